"""Versions v1 and v2: battles that a formula decides, as the public predecessor of this project defined them.

There is no luck in them. Each side does the same damage every turn, computed from base stats; a turn may be a
fraction, and who needs fewer turns wins. What a model learns here is the formula, not the game: these versions are for
comparison with published figures alone.

The rule was read from the predecessor's published battles (benjsant/lets-go-predictiondex): it gives all of their
898,612 labels (`benchmarks/predecessor.py`). Tables, best moves and draws are this project's own.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pokebattle import dex
from pokebattle.battles import LEVEL, draw, same_type_bonus, type_effectiveness

SCENARIOS = {"v1": ["best_move"], "v2": ["best_move", "random_move", "all_combinations"]}
N_RANDOM = 5  # moves that B draws against A's best
N_COMBINATIONS = 20  # pairs of moves that a pair of species draws
LEAST = 0.1  # damage a turn, so that turns are finite
SOURCE = "turns on base stats, of benjsant/lets-go-predictiondex"
SEED = 20_240_101  # of the draws; they belong to the battle set, not to a model

Numbers = NDArray[np.int64]


def power() -> pd.Series:
    """Return the power that the formula gives every move: index move_id; 0 where a move has none.

    Three hits for moves of two to five, two for those of two; half for a move that spends a second turn, unless its
    user is out of reach meanwhile (dig, fly).
    """
    moves = dex.moves()
    waits = (moves["charge"] & ~moves["evades_while_charging"]) | moves["recharge"]
    hits = np.where(moves["multihit_max"] > 2, 3, moves["multihit_max"])
    return moves["base_power"].where(moves["category"] != "status", 0) * hits / np.where(waits, 2, 1)


@dataclass(frozen=True)
class Attacks:
    """What every learned move does to every species: rows attacker and move, columns defender.

    Attributes
    ----------
    fighters : Index
        The species that can do damage: the columns.
    moves : DataFrame
        The rows: move_id, power, priority.
    first, count : ndarray of int
        Where a fighter's rows begin, and how many it has.
    damage, score : ndarray
        Damage a turn, and what the best move is chosen by.
    """

    fighters: pd.Index
    moves: pd.DataFrame
    first: Numbers
    count: Numbers
    damage: NDArray[np.float64]
    score: NDArray[np.float64]


@cache
def attacks() -> Attacks:
    """Work out every attack.

    damage = ((2 x level / 5 + 2) x power x attack / defence / 50 + 2) x same-type bonus x effectiveness, on base stats
    and never rounded; score = power x same-type bonus x effectiveness x accuracy + 50 x priority.
    """
    known = dex.learnsets().assign(power=lambda learned: learned["move_id"].map(power()))
    known = known[known["power"] > 0].sort_values(["species_id", "move_id"], ignore_index=True)
    known = known.join(dex.moves()[["type", "category", "accuracy", "priority"]], on="move_id")
    fighters = pd.Index(known["species_id"].unique())
    own, other = dex.species().loc[known["species_id"]], dex.species().loc[fighters]
    physical = (known["category"] == "physical").to_numpy()[:, None]
    attack = np.where(physical, own[["attack"]], own[["special_attack"]])
    defense = np.where(physical, other["defense"], other["special_defense"])
    types, code = np.unique(known["type"], return_inverse=True)
    chart = type_effectiveness(np.repeat(types, len(fighters)), np.tile(fighters, len(types)))
    multiplier = chart.reshape(len(types), -1)[code]
    multiplier = multiplier * same_type_bonus(known["type"], known["species_id"])[:, None]
    strength, accuracy, priority = (known[[name]].to_numpy() for name in ("power", "accuracy", "priority"))
    return Attacks(
        fighters=fighters,
        moves=known[["move_id", "power", "priority"]],
        first=known["species_id"].searchsorted(fighters),
        count=known.groupby("species_id").size().loc[fighters].to_numpy(),
        damage=np.maximum(((2 * LEVEL / 5 + 2) * strength * attack / defense / 50 + 2) * multiplier, LEAST),
        score=strength * multiplier * accuracy / 100 + 50 * priority,
    )


def battles(version: str) -> pd.DataFrame:
    """Return every battle of a version.

    Every species meets every other one twice, once on either side. *best_move*: both use the move with the highest
    score, of equal ones the first by id. *random_move*: A uses that, B each of five drawn ones. *all_combinations*:
    twenty drawn pairs of moves. Draws are without repetition, so that species with few moves have fewer rows.

    Parameters
    ----------
    version : str
        "v1" (34,782 rows) or "v2".

    Returns
    -------
    DataFrame
        species_a, species_b, move_a, move_b, policy, wins_a (1 if A wins) and n_battles (1).
    """
    table, rng = attacks(), np.random.default_rng(SEED)
    a, b = np.nonzero(~np.eye(len(table.fighters), dtype=bool))
    parts: list[tuple[Numbers, ...]] = []
    for policy in SCENARIOS[version]:
        pair, ours, theirs = _draw_moves(policy, a, b, rng)
        parts.append((a[pair], b[pair], ours, theirs, np.full(len(pair), len(parts))))
    a, b, ours, theirs, scenario = (np.concatenate(column) for column in zip(*parts, strict=True))
    moves, code = np.unique(table.moves["move_id"], return_inverse=True)
    return pd.DataFrame({
        "species_a": _text(table.fighters, a), "species_b": _text(table.fighters, b),
        "move_a": _text(moves, code[ours]), "move_b": _text(moves, code[theirs]),
        "policy": _text(SCENARIOS[version], scenario),
        "wins_a": wins(a, b, ours, theirs).astype(int), "n_battles": 1,
    })  # fmt: skip


def _draw_moves(policy: str, a: Numbers, b: Numbers, rng: np.random.Generator) -> tuple[Numbers, Numbers, Numbers]:
    """Return, for every row of a scenario, which pair of fighters meets and which attack each of them uses."""
    table = attacks()
    if policy == "all_combinations":
        pair, drawn = draw(table.count[a] * table.count[b], N_COMBINATIONS, rng)
        ours, theirs = np.divmod(drawn, table.count[b][pair])
        return pair, table.first[a][pair] + ours, table.first[b][pair] + theirs
    scores = np.split(table.score, table.first[1:])
    best = np.array([start + score.argmax(axis=0) for start, score in zip(table.first, scores, strict=True)])
    if policy == "random_move":
        pair, drawn = draw(table.count[b], N_RANDOM, rng)
        return pair, best[a, b][pair], table.first[b][pair] + drawn
    return np.arange(len(a)), best[a, b], best[b, a]


def _text(known: Any, codes: Numbers) -> Any:
    return pd.array(np.asarray(known, dtype=object), dtype="str").take(codes)


def wins(a: Numbers, b: Numbers, ours: Numbers, theirs: Numbers) -> NDArray[np.bool_]:
    """Tell whether A wins, by the numbers of fighters and of attacks; of equally fast sides A moves first."""
    table = attacks()
    species, priority = dex.species().loc[table.fighters], table.moves["priority"].to_numpy()
    return decide(
        species["hp"].to_numpy()[b] / table.damage[ours, b], species["hp"].to_numpy()[a] / table.damage[theirs, a],
        priority[ours] - priority[theirs], species["speed"].to_numpy()[a] - species["speed"].to_numpy()[b],
    )  # fmt: skip


def decide(
    turns_a: NDArray[np.float64], turns_b: NDArray[np.float64], priority: Numbers, speed: Numbers
) -> NDArray[np.bool_]:
    """Tell whether A wins.

    Parameters
    ----------
    turns_a, turns_b : ndarray of shape (n,)
        Turns that each side needs, fractions of a turn too.
    priority, speed : ndarray of shape (n,)
        A's less B's. The higher priority moves first, then the higher speed, then A; and who moves first wins a tie.
    """
    first = np.where(priority != 0, priority > 0, speed >= 0)
    return np.where(first, turns_a <= turns_b, turns_a < turns_b)
