"""Versions v1 and v2: battles that a formula decides, as in the public predecessor of this project.

These battles contain no chance. Each side does the same damage every turn, computed from base stats, and the side that
needs fewer turns wins; fractions of a turn count. A model learns the formula here, not the game: use these versions
only to compare with published figures.

The formula was inferred from the predecessor's published battles (benjsant/lets-go-predictiondex) and reproduces all
of their 898,612 labels (`benchmarks/predecessor.py`). Game tables, best moves and random draws are this project's own.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pokebattle.game import dex
from pokebattle.game.matchups import LEVEL, draw, same_type_bonus, type_effectiveness

SCENARIOS = {"v1": ["best_move"], "v2": ["best_move", "random_move", "all_combinations"]}
N_RANDOM = 5  # moves drawn for B against A's best move
N_COMBINATIONS = 20  # pairs of moves drawn for a pair of species
LEAST = 0.1  # minimal damage per turn, so that the number of turns is finite
SOURCE = "turns on base stats, of benjsant/lets-go-predictiondex"
SEED = 20_240_101  # for drawing moves; part of the battle set, not of a model

Numbers = NDArray[np.int64]


def power() -> pd.Series:
    """Return the power of every move in the formula: index move_id; 0 for moves without base power.

    Base power times the number of hits (3 for moves with two to five hits, 2 for moves with two), halved for moves that
    take a second turn, unless the user is out of reach in the meantime (dig, fly).
    """
    moves = dex.moves()
    waits = (moves["charge"] & ~moves["evades_while_charging"]) | moves["recharge"]
    hits = np.where(moves["multihit_max"] > 2, 3, moves["multihit_max"])
    return moves["base_power"].where(moves["category"] != "status", 0) * hits / np.where(waits, 2, 1)


@dataclass(frozen=True)
class AttackTable:
    """The attacks of every species with each of its moves against every species.

    Attributes
    ----------
    fighters : Index, length n_species
        The species that can do damage.
    moves : DataFrame of n_attacks rows
        Columns move_id, power, priority; one row for each species and move, sorted by species.
    first, count : ndarray of int, shape (n_species,)
        First row and number of rows of each species in `moves`.
    damage, score : ndarray, shape (n_attacks, n_species)
        Damage per turn against each defender in HP, and the score that selects the best move.
    """

    fighters: pd.Index
    moves: pd.DataFrame
    first: Numbers
    count: Numbers
    damage: NDArray[np.float64]
    score: NDArray[np.float64]


@cache
def attack_table() -> AttackTable:
    """Compute damage and score of every attack.

    damage = ((2 x level / 5 + 2) x power x attack / defense / 50 + 2) x same-type bonus x effectiveness, with base
    stats, not rounded, and at least `LEAST`.
    score = power x same-type bonus x effectiveness x accuracy + 50 x priority, with accuracy from 0 to 1.
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
    return AttackTable(
        fighters=fighters,
        moves=known[["move_id", "power", "priority"]],
        first=known["species_id"].searchsorted(fighters),
        count=known.groupby("species_id").size().loc[fighters].to_numpy(),
        damage=np.maximum(((2 * LEVEL / 5 + 2) * strength * attack / defense / 50 + 2) * multiplier, LEAST),
        score=strength * multiplier * accuracy / 100 + 50 * priority,
    )


def battles(version: str) -> pd.DataFrame:
    """Return all battles of a version.

    Each ordered pair of different species meets, so every pair meets twice. *best_move*: both use the move with the
    highest score; equal scores go to the first id. *random_move*: A uses its best move, B each of five drawn moves.
    *all_combinations*: twenty drawn pairs of moves. Moves are drawn without repetition, so species with few moves have
    fewer rows.

    Parameters
    ----------
    version : {"v1", "v2"}
        "v1" has 34,782 rows (only *best_move*), "v2" has all three policies.

    Returns
    -------
    DataFrame
        Columns species_a, species_b, move_a, move_b, policy, wins_a (1 if A wins, else 0) and n_battles (1).

    Raises
    ------
    KeyError
        If there is no such version.
    """
    table, rng = attack_table(), np.random.default_rng(SEED)
    a, b = np.nonzero(~np.eye(len(table.fighters), dtype=bool))
    parts: list[tuple[Numbers, ...]] = []
    for policy in SCENARIOS[version]:
        pair, ours, theirs = _draw_moves(policy, a, b, rng)
        parts.append((a[pair], b[pair], ours, theirs, np.full(len(pair), len(parts))))
    a, b, ours, theirs, scenario = (np.concatenate(column) for column in zip(*parts, strict=True))
    moves, code = np.unique(table.moves["move_id"], return_inverse=True)
    return pd.DataFrame(
        {
            "species_a": _text(table.fighters, a),
            "species_b": _text(table.fighters, b),
            "move_a": _text(moves, code[ours]),
            "move_b": _text(moves, code[theirs]),
            "policy": _text(SCENARIOS[version], scenario),
            "wins_a": wins(a, b, ours, theirs).astype(int),
            "n_battles": 1,
        }
    )


def _draw_moves(policy: str, a: Numbers, b: Numbers, rng: np.random.Generator) -> tuple[Numbers, Numbers, Numbers]:
    """Return, for every battle of a policy, the position of its pair and the rows of both sides' attacks."""
    table = attack_table()
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
    """Return whether A wins each battle.

    Parameters
    ----------
    a, b : ndarray of int, shape (n,)
        Positions of the species in `AttackTable.fighters`.
    ours, theirs : ndarray of int, shape (n,)
        Rows of `AttackTable.moves` that A and B use.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    table = attack_table()
    species, priority = dex.species().loc[table.fighters], table.moves["priority"].to_numpy()
    return decide(
        species["hp"].to_numpy()[b] / table.damage[ours, b],
        species["hp"].to_numpy()[a] / table.damage[theirs, a],
        priority[ours] - priority[theirs],
        species["speed"].to_numpy()[a] - species["speed"].to_numpy()[b],
    )


def decide(
    turns_a: NDArray[np.float64], turns_b: NDArray[np.float64], priority: Numbers, speed: Numbers
) -> NDArray[np.bool_]:
    """Return whether A wins each battle: the side that needs fewer turns, and at a tie the side that moves first.

    The side with the higher priority moves first, then the side with the higher speed, then A.

    Parameters
    ----------
    turns_a, turns_b : ndarray of shape (n,)
        Turns that each side needs, with fractions.
    priority, speed : ndarray of shape (n,)
        A's value minus B's.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    first = np.where(priority != 0, priority > 0, speed >= 0)
    return np.where(first, turns_a <= turns_b, turns_a < turns_b)
