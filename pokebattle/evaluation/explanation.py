"""Explain predictions, find the kinds of moves with large errors, and use a model to choose moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pokebattle import evaluation
from pokebattle.errors import did_you_mean
from pokebattle.evaluation.notes import note
from pokebattle.game import dex
from pokebattle.game.matchups import MATCHUP, RANDOM, best_moves, damaging_moves
from pokebattle.learning.features import AILMENTS

if TYPE_CHECKING:
    from pokebattle.model import BattleWinner

REST, MARGIN = "all others", "log-odds that A wins"


def of_pairs(contributions: pd.DataFrame) -> pd.DataFrame:
    """Add up the contributions of a feature's two sides: `a_speed` and `b_speed` become `speed`.

    Parameters
    ----------
    contributions : DataFrame
        From `model.BattleWinner.contributions`.
    """
    names = contributions.columns.str.replace(r"^[ab]_", "", regex=True)
    return contributions.T.groupby(names.to_numpy(), sort=False).sum().T


def strongest_by_policy(contributions: pd.DataFrame, matchups: pd.DataFrame, n_features: int = 8) -> pd.DataFrame:
    """Return the features with the largest mean contribution under at least one policy.

    Parameters
    ----------
    contributions : DataFrame
        From `of_pairs`, one row per matchup.
    matchups : DataFrame
        The same matchups.
    n_features : int, default 8

    Returns
    -------
    DataFrame
        Index feature, columns policy: mean absolute contribution, in log-odds. A note if there are no policies.
    """
    if "policy" not in matchups:
        return note("these battles have no moves, and no policies that choose them")
    by_policy = contributions.abs().groupby(matchups["policy"], sort=False).mean().T
    return by_policy.loc[by_policy.max(axis=1).sort_values(ascending=False, kind="stable").index[:n_features]]


def explain(
    model: BattleWinner, matchups: pd.DataFrame, n_features: int = 5, *, named: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return the features that contribute most to each prediction.

    Parameters
    ----------
    model : BattleWinner
    matchups : DataFrame
        Matchups to explain.
    n_features : int, default 5
        Number of features per matchup.
    named : DataFrame, optional
        The same matchups with readable names, see `datasets.BattleSet.named`. By default `matchups`.

    Returns
    -------
    DataFrame
        Index matchup and feature: for every matchup its `n_features` features with the largest contributions, the sum
        of the others (`REST`), and the total (`MARGIN`). Columns a and b (the feature's value for each side; for a
        comparison one value, in a) and log_odds (positive values favour A).
    """
    values = model.features_.both_orientations(matchups)[0].astype(float)
    numbers = pd.DataFrame(values, index=matchups.index, columns=model.feature_names)
    contributions = of_pairs(model.contributions(matchups))
    tables = {}
    for row, name in zip(matchups.index, labels(matchups if named is None else named), strict=True):
        parts = contributions.loc[row]
        strongest = parts.abs().sort_values(ascending=False, kind="stable").index[:n_features]
        value = numbers.loc[row]
        a = [value[feature] if feature in value else value[f"a_{feature}"] for feature in strongest]
        b = [value.get(f"b_{feature}", np.nan) for feature in strongest]
        table = pd.DataFrame({"a": a, "b": b, "log_odds": parts[strongest]}, index=strongest)
        table.loc[REST] = np.nan, np.nan, parts.sum() - parts[strongest].sum()
        table.loc[MARGIN] = np.nan, np.nan, parts.sum()
        tables[name] = table
    return pd.concat(tables, names=["matchup", "feature"])


def labels(matchups: pd.DataFrame) -> list[str]:
    """Return a label for every matchup: the species, with their moves in brackets if there are any.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a and species_b; optionally move_a and move_b.
    """
    if "move_a" not in matchups:
        return [f"{row.species_a} – {row.species_b}" for row in matchups.itertuples(index=False)]
    return [
        f"{row.species_a} ({row.move_a}) – {row.species_b} ({row.move_b})" for row in matchups.itertuples(index=False)
    ]


def move_kinds() -> pd.DataFrame:
    """Return the special properties of every move: index move_id, one boolean column per kind."""
    moves = dex.moves()
    ailments = moves[[f"{name}_chance" for name in AILMENTS]].gt(0).any(axis=1)
    kinds = pd.DataFrame(
        {
            "misses often (accuracy below 90 %)": ~moves["always_hits"] & (moves["accuracy"] < 90),
            "takes two turns": moves["charge"] | moves["recharge"] | moves["locks_in"],
            "its user faints": moves["self_destruct"],
            "works only in some situations": moves[
                ["needs_sleeping_target", "needs_attacking_target", "first_turn_only"]
            ].any(axis=1),
            "hits more than once": moves["multihit_max"] > 1,
            "may cause a condition": ailments,
            "changes stats": (moves["self_boosts"] != "") | (moves["target_boosts"] != ""),
            "recoil or drain": (moves["recoil"] > 0) | (moves["drain"] > 0),
            "strikes first or last": moves["priority"] != 0,
            "no damage formula": moves["damage_rule"] != "",
        }
    )
    kinds.loc[RANDOM] = False
    kinds["drawn each turn"] = kinds.index == RANDOM
    kinds["none of these"] = ~kinds.any(axis=1)
    return kinds


def excess_by_kind(matchups: pd.DataFrame, probability: np.ndarray) -> pd.DataFrame:
    """Divide the log-loss above the Bayes limit by kinds of moves.

    Parameters
    ----------
    matchups : DataFrame
        In one orientation, with wins_a and n_battles.
    probability : ndarray of shape (n_matchups,)
        Predicted P(A wins).

    Returns
    -------
    DataFrame
        Index kind, see `move_kinds`; largest above_limit first. A matchup belongs to a kind if a move of either side
        does (for "none of these": of both sides), and may belong to several kinds. Columns matchups, above_limit
        (log-loss above the limit, nats per battle), share_of_battles and share_of_excess (0 to 1). A note if the
        battles have no moves or no limit.
    """
    if "move_a" not in matchups:
        return note("these battles have no moves")
    if not evaluation.has_limit(matchups):
        return note("a formula decides these battles: there is no limit")
    wins, n = matchups["wins_a"].to_numpy(float), matchups["n_battles"].to_numpy(float)
    inside = np.clip(np.asarray(probability, dtype=float), np.finfo(float).eps, 1 - np.finfo(float).eps)
    limit = n * evaluation.jackknife(evaluation.entropy, wins, n)
    excess = -wins * np.log(inside) - (n - wins) * np.log1p(-inside) - limit
    kinds = move_kinds()
    of_a, of_b = (kinds.loc[matchups[f"move_{side}"]].to_numpy() for side in "ab")
    plain = kinds.columns == "none of these"
    member = np.where(plain, of_a & of_b, of_a | of_b).astype(float)
    sums = member.T @ np.column_stack([np.ones_like(n), n, excess])
    table = pd.DataFrame(sums, index=kinds.columns, columns=["matchups", "battles", "excess"]).query("matchups > 0")
    return pd.DataFrame(
        {
            "matchups": table["matchups"].astype(int),
            "above_limit": table["excess"] / table["battles"],
            "share_of_battles": table["battles"] / n.sum(),
            "share_of_excess": table["excess"] / excess.sum(),
        }
    ).sort_values("above_limit", ascending=False)


def move_options(species_a: str, species_b: str) -> pd.DataFrame:
    """Return the matchups of each damaging move of A with each damaging move of B.

    Parameters
    ----------
    species_a, species_b : str
        Species ids.

    Returns
    -------
    DataFrame
        The columns of `matchups.MATCHUP`; policy is "best_move" if A uses its best move against B, else "given_move".
        Sorted by A's move, then B's.

    Raises
    ------
    ValueError
        If a species is unknown, or has no damaging move.
    """
    known = damaging_moves()
    for control, name in (("species_a", species_a), ("species_b", species_b)):
        if name not in known:
            hint = did_you_mean(dex.plain_id(name), known)
            raise ValueError(f"{control}: expected the id of a species with damaging moves, got {name!r}{hint}")
    moves = [known[species_a], known[species_b]]
    options = pd.MultiIndex.from_product(moves, names=["move_a", "move_b"]).to_frame(index=False)
    taken = options["move_a"] == best_moves()["move_id"][species_a, species_b]
    policy = np.where(taken, "best_move", "given_move")
    return options.assign(species_a=species_a, species_b=species_b, policy=policy)[MATCHUP]


def strongest_answers(options: pd.DataFrame, chance: str) -> pd.DataFrame:
    """Return, for every move of A, the move of B with the lowest P(A wins); the first of equal ones.

    Parameters
    ----------
    options : DataFrame
        From `move_options`, for one pair of species or several, with a column of probabilities.
    chance : str
        Name of the column with P(A wins).
    """
    worst = options.groupby(["species_a", "species_b", "move_a"], sort=False)[chance].idxmin()
    return options.loc[worst].reset_index(drop=True)


def worth_of_choices(options: pd.DataFrame, choosers: list[str], worth: str) -> pd.Series:
    """Return how well A does when it chooses its move by a predictor, against B's strongest answer.

    For each predictor, A takes the move with the highest predicted P(A wins) against the answer that the predictor
    considers B's strongest (maximin). The move is then scored against B's strongest answer according to `worth`.

    Parameters
    ----------
    options : DataFrame
        From `move_options`, for several pairs of species, with columns of probabilities.
    choosers : list of str
        Columns with the predictors' P(A wins).
    worth : str
        Column with the P(A wins) that scores the moves.

    Returns
    -------
    Series
        Mean score by predictor, then of the policy "best_move", and of "any" move (the mean over all moves of A).
    """
    pair, move = ["species_a", "species_b"], ["species_a", "species_b", "move_a"]
    true = strongest_answers(options, worth).set_index(move)
    means = {}
    for chooser in choosers:
        seen = strongest_answers(options, chooser)
        taken = seen.loc[seen.groupby(pair, sort=False)[chooser].idxmax(), move]
        means[chooser] = true.loc[pd.MultiIndex.from_frame(taken), worth].mean()
    means["best_move"] = true.loc[true["policy"] == "best_move", worth].mean()
    means["any"] = true.groupby(level=pair)[worth].mean().mean()
    return pd.Series(means)
