"""The leak check: stops a training if information about the judging pairs, or about the results, has reached it.

It runs in every training before the test part is opened. It looks for pairs that are in two parts (also with the sides
swapped), for matchups that occur twice in a part, for held-out families in the training part, and for features that
contain the result.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from pokebattle.datasets.splits import LeakError, distinct_pairs, unseen_species

MAX_ROC_AUC = 0.999  # bound on a feature's ROC AUC, where each matchup was won by one side only
MAX_CORRELATION = (
    0.985  # bound on a feature's rank correlation with the share of wins; a legitimate feature cannot predict chance
)
ENOUGH = 30  # matchups won by both sides, the minimum for a meaningful correlation
SAMPLE = 20_000  # matchups that are checked, at most


def check_parts(parts: Mapping[str, pd.DataFrame], protocol: str, families: pd.Series) -> pd.DataFrame:
    """Check that no part contains a matchup twice, and that the parts do not overlap.

    Parameters
    ----------
    parts : mapping of str to DataFrame
        Matchups of "train" and of the other parts.
    protocol : {"pair", "one_unseen", "both_unseen"}
        See `splits`.
    families : Series
        Index species id, values the family.

    Returns
    -------
    DataFrame
        Numbers of matchups, pairs and species, one row per part.

    Raises
    ------
    LeakError
        If a part contains the same matchup twice, in the same orientation, two parts share a pair, or a held-out family
        is in the training part. The message contains the part, the kind of overlap, its size and an example.
    """
    pairs = {name: set(distinct_pairs(part)[0]) for name, part in parts.items()}
    species = {name: _species(part) for name, part in parts.items()}
    known, unseen = set(families.reindex(sorted(species["train"]))), unseen_species(families)
    for name, part in parts.items():
        leaks = {"matchups that occur twice": _twice(part)}
        if name != "train":
            leaks["pairs of species that are also in the training part"] = sorted(pairs[name] & pairs["train"])
            met = set(families.reindex(sorted(species[name] & unseen)))
            leaks["held-out families in the training part"] = sorted(met & known) if protocol != "pair" else []
            for other in parts.keys() - {name, "train"}:
                leaks[f"pairs of species of the {other} part"] = sorted(pairs[name] & pairs[other])
        for kind, examples in leaks.items():
            if examples:
                raise LeakError(f"leak: the {name} part has {len(examples)} {kind}, e.g. {examples[0]}")
    counts = {name: (len(part), len(pairs[name]), len(species[name])) for name, part in parts.items()}
    return pd.DataFrame(counts, index=["matchups", "pairs", "species"]).T


def check_columns(X: np.ndarray, names: Sequence[str], wins: ArrayLike, n: ArrayLike) -> pd.DataFrame:
    """Check that no feature contains the result.

    Something that is known before a battle cannot predict the chance in its result. If matchups were fought several
    times, the check is the rank correlation of each feature with the share of wins, over the matchups that both sides
    have won (bound `MAX_CORRELATION`). If there are fewer than `ENOUGH` such matchups, it is the ROC AUC of
    each feature (bound `MAX_ROC_AUC`).

    Parameters
    ----------
    X : ndarray of shape (n_matchups, n_features)
    names : sequence of str
        Names of the features. Each `a_...` needs a `b_...`; their difference is checked too.
    wins, n : array-like of shape (n_matchups,)
        Battles won by A, and battles fought.

    Returns
    -------
    DataFrame
        Index feature; column follows_result (0 to 1), largest first.

    Raises
    ------
    LeakError
        If a feature reaches the bound.
    """
    rows = slice(None, None, -(-len(X) // SAMPLE))
    X, share = X[rows], (np.asarray(wins) / np.asarray(n))[rows]
    open_ = (share > 0) & (share < 1)
    both_won = open_.sum() >= ENOUGH
    limit, ranks = (MAX_CORRELATION, rankdata(share[open_])) if both_won else (MAX_ROC_AUC, share > 0.5)
    correlations = {
        name: _correlation(rankdata(values[open_]), ranks) if both_won else _separates(values, ranks)
        for name, values in _columns(X, list(names))
    }
    closest = (
        pd.Series(correlations, name="follows_result")
        .rename_axis("feature")
        .sort_values(ascending=False, kind="stable")
    )
    if len(closest) and closest.iloc[0] >= limit:
        raise LeakError(
            f"leak: the column {closest.index[0]} contains the result: it orders the battles almost as the results do "
            f"({'correlation' if both_won else 'AUC'} {closest.iloc[0]:.4f})"
        )
    return closest.to_frame()


def _columns(X: np.ndarray, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every feature, and A's value minus B's for features that both sides have."""
    for column, name in enumerate(names):
        yield name, X[:, column]
        if name.startswith("a_"):
            yield f"{name} less b_{name[2:]}", X[:, column] - X[:, names.index(f"b_{name[2:]}")]


def _species(matchups: pd.DataFrame) -> set[str]:
    return {*matchups["species_a"].unique(), *matchups["species_b"].unique()}


def _twice(matchups: pd.DataFrame) -> list[str]:
    """Return a label for each repetition of a matchup.

    A matchup with swapped sides is another matchup: v1 and v2 contain both.
    """
    sides = ["species_a", "species_b", "move_a", "move_b", "policy"]
    again = matchups.duplicated([name for name in sides if name in matchups])
    return [f"{row.species_a} against {row.species_b}" for row in matchups[again].itertuples()]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if not np.ptp(x) or not np.ptp(y):
        return 0.0
    return float(abs(np.corrcoef(x, y)[0, 1]))


def _separates(values: np.ndarray, won: np.ndarray) -> float:
    """Return the area under the ROC curve of a feature or of its negative, whichever is larger."""
    n_won = int(won.sum())
    if not 0 < n_won < len(won):
        return 0.5
    area = (rankdata(values)[won].sum() - n_won * (n_won + 1) / 2) / (n_won * (len(won) - n_won))
    return float(max(area, 1 - area))
