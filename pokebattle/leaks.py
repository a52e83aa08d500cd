"""The leak check: stops a training whose score would be a memory, not a skill.

It runs in every training, before the test part is opened, and looks for what makes scores in this field too good:
the same battles on both sides of a split (as they stand, or with the sides swapped), species that were to be unseen,
and columns that tell the result.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from pokebattle.splits import LeakError, distinct_pairs, unseen_species

TELLS = 0.999  # of a column: area under the ROC curve, or rank correlation with the share of wins
TIGHT = 0.985  # the same where luck takes part: what is known before cannot follow the luck
ENOUGH = 30  # open matchups from which on a correlation means something
SAMPLE = 20_000  # matchups that are looked at


def check_parts(parts: Mapping[str, pd.DataFrame], protocol: str, families: pd.Series) -> pd.DataFrame:
    """Refuse parts that share something.

    Parameters
    ----------
    parts : mapping of str to DataFrame
        Matchups of "train" and of what judges, by name.
    protocol : str
        See `splits`.
    families : Series
        Index species id, values the family.

    Returns
    -------
    DataFrame
        What was looked at, one row a part: matchups, pairs, species.

    Raises
    ------
    LeakError
        Naming part, kind, how many and the first.
    """
    pairs = {name: set(distinct_pairs(part)[0]) for name, part in parts.items()}
    species = {name: _species(part) for name, part in parts.items()}
    known, unseen = set(families.reindex(sorted(species["train"]))), unseen_species(families)
    for name, part in parts.items():
        found = {"the same matchup twice": _twice(part)}
        if name != "train":
            found["pairs of species that also teach"] = sorted(pairs[name] & pairs["train"])
            met = set(families.reindex(sorted(species[name] & unseen)))
            found["families that were to be unseen"] = sorted(met & known) if protocol != "pair" else []
            for other in parts.keys() - {name, "train"}:
                found[f"pairs of species of the {other} part"] = sorted(pairs[name] & pairs[other])
        for kind, those in found.items():
            if those:
                raise LeakError(f"leak: the {name} part has {len(those)} {kind}, e.g. {those[0]}")
    counts = {name: (len(part), len(pairs[name]), len(species[name])) for name, part in parts.items()}
    return pd.DataFrame(counts, index=["matchups", "pairs", "species"]).T


def check_columns(X: np.ndarray, names: Sequence[str], wins: ArrayLike, n: ArrayLike) -> pd.DataFrame:
    """Refuse a feature that gives the result away.

    What is known before a battle cannot order the battles as their results do. Where matchups were fought once, a
    column tells when it separates wins from losses; where more often, when it follows the share of wins, luck included.

    Parameters
    ----------
    X : ndarray of shape (n_matchups, n_features)
    names : sequence of str
    wins, n : array-like of shape (n_matchups,)
        Battles won by A and fought.

    Returns
    -------
    DataFrame
        Index feature; column follows_result (0 to 1), largest first.

    Raises
    ------
    LeakError
        Naming the column and how closely it follows the result.
    """
    rows = slice(None, None, -(-len(X) // SAMPLE))
    X, share = X[rows], (np.asarray(wins) / np.asarray(n))[rows]
    open_ = (share > 0) & (share < 1)
    lucky = open_.sum() >= ENOUGH
    limit, ranks = (TIGHT, rankdata(share[open_])) if lucky else (TELLS, share > 0.5)
    found = {
        name: _correlation(rankdata(values[open_]), ranks) if lucky else _separates(values, ranks)
        for name, values in _columns(X, list(names))
    }
    closest = pd.Series(found, name="follows_result").rename_axis("feature").sort_values(ascending=False, kind="stable")
    if len(closest) and closest.iloc[0] >= limit:
        raise LeakError(f"leak: the column {closest.index[0]} gives the result away: it orders the battles as their "
                        f"results do ({closest.iloc[0]:.4f} of 1)")
    return closest.to_frame()


def _columns(X: np.ndarray, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every column, and what A has beyond B of those that both sides have."""
    for column, name in enumerate(names):
        yield name, X[:, column]
        if name.startswith("a_"):
            yield f"{name} less b_{name[2:]}", X[:, column] - X[:, names.index(f"b_{name[2:]}")]


def _species(matchups: pd.DataFrame) -> set[str]:
    return {*matchups["species_a"].unique(), *matchups["species_b"].unique()}


def _twice(matchups: pd.DataFrame) -> list[str]:
    """Name matchups that are there twice, as they stand or from the other side with the result mirrored."""
    sides = ["species_a", "species_b", "move_a", "move_b", "policy"]
    again = matchups.duplicated([name for name in sides if name in matchups])
    return [f"{row.species_a} against {row.species_b}" for row in matchups[again].itertuples()]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if not np.ptp(x) or not np.ptp(y):
        return 0.0
    return float(abs(np.corrcoef(x, y)[0, 1]))


def _separates(values: np.ndarray, won: np.ndarray) -> float:
    """Return the area under the ROC curve of a column, whichever way it points."""
    n_won = int(won.sum())
    if not 0 < n_won < len(won):
        return 0.5
    area = (rankdata(values)[won].sum() - n_won * (n_won + 1) / 2) / (n_won * (len(won) - n_won))
    return float(max(area, 1 - area))
