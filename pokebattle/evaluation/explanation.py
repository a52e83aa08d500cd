"""Explain predictions, and find the kinds of moves with large errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pokebattle import evaluation
from pokebattle.evaluation.placeholders import note
from pokebattle.game import dex
from pokebattle.game.matchups import RANDOM
from pokebattle.learning.features import AILMENTS

if TYPE_CHECKING:
    from pokebattle.model import BattleWinner

REST, MARGIN = "all others", "log-odds that A wins"


def sum_over_sides(contributions: pd.DataFrame) -> pd.DataFrame:
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
        From `sum_over_sides`, one row per matchup.
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
    contributions = sum_over_sides(model.contributions(matchups))
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
    limit = n * evaluation.jackknife(evaluation.bayes_log_loss, wins, n)
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
