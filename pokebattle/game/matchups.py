"""Matchups and the arithmetic of the game: stats, the damage formula, the policies that choose the moves.

A matchup is two species at level 50 with individual values of 31, no awakening values, a neutral nature, friendship
70 and no item. Each side uses one move for the whole battle, or draws one of its damaging moves every turn.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pokebattle.errors import did_you_mean
from pokebattle.game import dex

LEVEL = 50
INDIVIDUAL_VALUE = 31
FRIENDSHIP = 70
STATS = ["hp", "attack", "defense", "special_attack", "special_defense", "speed"]
MATCHUP = ["species_a", "species_b", "move_a", "move_b", "policy"]
RANDOM = "random"  # instead of a move id: one of the damaging moves is drawn every turn, all equally likely
STAB = 1.5
DRAWS = 20_261_126  # seed for drawing the moves of the policy given_move; part of the battle set, not of a model

CONDITIONS = {
    "level": LEVEL,
    "individual_values": INDIVIDUAL_VALUE,
    "awakening_values": 0,
    "nature": "neutral",
    "friendship": FRIENDSHIP,
    "items": "none",
}

Ids = Sequence[str] | pd.Series | pd.Index | NDArray[np.object_]


def rows_of(ids: Ids, known: pd.Index, name: str) -> NDArray[np.int64]:
    """Return the positions of ids in an index.

    Parameters
    ----------
    ids : array-like of str, shape (n,)
    known : Index
        All valid ids.
    name : str
        What the ids are, for the error message.

    Returns
    -------
    ndarray of int, shape (n,)

    Raises
    ------
    ValueError
        If an id is unknown; the message names the nearest known id.
    """
    codes, distinct = pd.factorize(ids if isinstance(ids, pd.Series) else _index(ids), use_na_sentinel=False)
    names = [str(value) for value in distinct]
    rows: NDArray[np.int64] = known.get_indexer(pd.Index(names, dtype=known.dtype))
    if (rows < 0).any():
        unknown = names[int(np.argmax(rows < 0))]
        raise ValueError(f"{name}: unknown id, got {unknown!r}{did_you_mean(unknown, known)}")
    return rows[codes]


def positions(matchups: pd.DataFrame, column: str, known: pd.Index) -> NDArray[np.int16]:
    """Return the positions of a column's ids in an index.

    Parameters
    ----------
    matchups : DataFrame
    column : str
        Column of `matchups`.
    known : Index
        All valid ids.

    Returns
    -------
    ndarray of int16, shape (n_matchups,)

    Raises
    ------
    ValueError
        If the column is missing, or an id is unknown, see `rows_of`.
    """
    if column not in matchups:
        raise ValueError(f"matchups: column {column} is missing, got {', '.join(map(str, matchups.columns))}")
    return rows_of(matchups[column], known, column).astype(np.int16)


def battle_stats() -> pd.DataFrame:
    """Return the stats in battle: index species_id, integer columns hp to speed, shape (188, 6).

    The formulas are those of the main games since Generation 3. Let's Go also multiplies every stat except HP by the
    friendship factor 1 + friendship / 255 / 10, rounded down to whole percent (the engine's mod gen7letsgo,
    scripts.ts).
    """
    base = dex.species()[STATS]
    grown = (2 * base + INDIVIDUAL_VALUE) * LEVEL // 100
    stats = (grown + 5) * int((1 + FRIENDSHIP / 255 / 10) * 100) // 100
    stats["hp"] = grown["hp"] + LEVEL + 10
    return stats


def type_effectiveness(move_type: Ids, defender: Ids) -> NDArray[np.float64]:
    """Return the type multiplier of a move against a species: the product over the species' one or two types.

    Parameters
    ----------
    move_type, defender : array-like of str, shape (n,)
        Type ids and species ids.

    Returns
    -------
    ndarray of float, shape (n,)
        0 to 4.
    """
    chart = dex.type_chart().assign(**{"": 1.0})
    types = dex.species()[["type_1", "type_2"]].loc[_index(defender)]
    multipliers, attacking = chart.to_numpy(), chart.index.get_indexer(_index(move_type))
    first, second = (chart.columns.get_indexer(_index(types[name])) for name in types)
    return multipliers[attacking, first] * multipliers[attacking, second]


def same_type_bonus(move_type: Ids, attacker: Ids) -> NDArray[np.float64]:
    """Return 1.5 if the move has one of the attacker's types, else 1.

    Parameters
    ----------
    move_type, attacker : array-like of str, shape (n,)
        Type ids and species ids.

    Returns
    -------
    ndarray of float, shape (n,)
    """
    types = dex.species()[["type_1", "type_2"]].loc[_index(attacker)].to_numpy()
    return np.where((types == np.asarray(move_type)[:, None]).any(axis=1), STAB, 1.0)


def damage(
    power: ArrayLike,
    attack: ArrayLike,
    defense: ArrayLike,
    stab: ArrayLike,
    effectiveness: ArrayLike,
    roll: ArrayLike = 100,
    critical: ArrayLike = False,
) -> NDArray[np.int64]:
    """Return the damage of one hit at level 50, in HP, rounded at every step as in the game.

    Parameters
    ----------
    power, attack, defense, stab, effectiveness : array-like
        Base power, the two stats in battle, 1 or 1.5, the type multiplier. All arguments are broadcast.
    roll : array-like of int, default 100
        The random factor: 85 to 100 percent, all equally likely in the game.
    critical : array-like of bool, default False
        A critical hit multiplies by 1.5.

    Returns
    -------
    ndarray of int
        At least 1; 0 if the target is immune or the power is 0.

    Notes
    -----
    Source: getDamage and modifyDamage of the engine's battle-actions.ts (the main games since Generation 6). The
    same-type bonus is rounded to the nearest point, halves down; everything else is truncated.
    """
    power, attack, defense = (np.asarray(value, dtype=np.int64) for value in (power, attack, defense))
    effectiveness = np.asarray(effectiveness, dtype=float)
    points = (2 * LEVEL // 5 + 2) * power * attack // defense // 50 + 2
    points = np.where(critical, points * 3 // 2, points)
    points = points * np.asarray(roll) // 100
    points = np.where(np.asarray(stab) > 1, (points * 3 * 2048 + 2047) // 4096, points)
    dealt = np.maximum(np.floor(points * effectiveness), 1)
    return np.where((power > 0) & (effectiveness > 0), dealt, 0).astype(np.int64)


@cache
def _best_moves() -> pd.DataFrame:
    """Score every damaging move of every attacker against every defender, and keep the best one."""
    moves, stats, learnsets = dex.moves().sort_index(), battle_stats(), dex.learnsets()
    moves = moves[moves["category"] != "status"]
    known = pd.crosstab(learnsets["species_id"], learnsets["move_id"]).reindex(columns=moves.index, fill_value=0) > 0
    known = known[known.any(axis=1)]
    fighters, stats = known.index, stats.loc[known.index]
    physical = (moves["category"] == "physical").to_numpy()
    attack = np.where(physical, stats[["attack"]], stats[["special_attack"]])  # shape (species, moves), as the next two
    defense = np.where(physical, stats[["defense"]], stats[["special_defense"]])
    stab, effectiveness = (
        rule(np.tile(moves["type"], len(fighters)), np.repeat(fighters, len(moves))).reshape(attack.shape)
        for rule in (same_type_bonus, type_effectiveness)
    )
    strength = (moves["base_power"] * moves["accuracy"]).to_numpy() * stab * attack
    # All numbers are exact before the only division, so equal moves get equal scores; argmax takes the first id.
    scores = strength[:, None, :] * effectiveness / defense
    scores = np.where(known.to_numpy()[:, None, :], scores, -1.0)
    best = scores.argmax(axis=2).ravel()
    index = pd.MultiIndex.from_product([fighters, fighters], names=["attacker", "defender"])
    score = scores.max(axis=2).ravel() / 100  # accuracy is in percent
    return pd.DataFrame({"move_id": moves.index[best], "score": score}, index=index)


def best_moves() -> pd.DataFrame:
    """Return the best move of every attacker against every defender (187 x 187, mirror matches included).

    The score of a move is base power x same-type bonus x type effectiveness x accuracy x attack / defense. There is
    no correction for moves that strike late, hit several times or make their user faint, and moves whose damage has
    a rule of its own score 0 (base power 0). The highest score wins; equal scores go to the first move id.

    Returns
    -------
    DataFrame
        Index (attacker, defender); columns move_id, score.
    """
    return _best_moves().copy()


def damaging_moves() -> dict[str, list[str]]:
    """Return the damaging moves that each species can use, sorted by id. `RANDOM` draws from them.

    Species without damaging moves (Ditto) are left out.
    """
    moves, learnsets = dex.moves(), dex.learnsets()
    known = learnsets[learnsets["move_id"].map(moves["category"]) != "status"].sort_values(["species_id", "move_id"])
    return {str(species): group.tolist() for species, group in known.groupby("species_id")["move_id"]}


def pairs() -> pd.DataFrame:
    """Return all unordered pairs of the 187 species that can deal damage: species_a < species_b, sorted."""
    fighters = np.array(sorted(damaging_moves()), dtype=object)
    first, second = np.triu_indices(len(fighters), k=1)
    return pd.DataFrame({"species_a": fighters[first], "species_b": fighters[second]})


def _best_move(pairs: pd.DataFrame, n_given: int) -> pd.DataFrame:
    """Give both sides the best move against the other."""
    best = best_moves()["move_id"]
    moves = {
        "move_a": best.loc[pd.MultiIndex.from_frame(pairs[["species_a", "species_b"]])].to_numpy(),
        "move_b": best.loc[pd.MultiIndex.from_frame(pairs[["species_b", "species_a"]])].to_numpy(),
    }
    return pairs.assign(**moves)


def _random_move(pairs: pd.DataFrame, n_given: int) -> pd.DataFrame:
    """Let both sides draw a move every turn."""
    return pairs.assign(move_a=RANDOM, move_b=RANDOM)


def _given_move(pairs: pd.DataFrame, n_given: int) -> pd.DataFrame:
    """Give one side a move that is drawn from all except its best, and the other side its best move."""
    best, known = _best_move(pairs, n_given), damaging_moves()
    rng = np.random.default_rng((DRAWS, n_given))
    tables = []
    for own, move in (("species_a", "move_a"), ("species_b", "move_b")):
        pools = [known[species] for species in best[own]]
        row, number = draw(np.array([len(pool) - 1 for pool in pools]), n_given, rng)
        rank = np.array([pool.index(used) for pool, used in zip(pools, best[move], strict=True)])[row]
        number += number >= rank
        given = [pools[meeting][chosen] for meeting, chosen in zip(row, number, strict=True)]
        tables.append(best.iloc[row].assign(**{move: given}))
    return pd.concat(tables).sort_values(["species_a", "species_b"], kind="stable", ignore_index=True)


POLICIES: dict[str, Callable[[pd.DataFrame, int], pd.DataFrame]] = {
    "best_move": _best_move,
    "random_move": _random_move,
    "given_move": _given_move,
}


def matchups(policy: str = "best_move", n_given: int = 1) -> pd.DataFrame:
    """Return the matchups of every unordered pair of the 187 species that can deal damage.

    Parameters
    ----------
    policy : {"best_move", "random_move", "given_move"}
        "best_move": both sides use their best move; one matchup per pair. "random_move": both sides draw a damaging
        move every turn; one matchup per pair. "given_move": one side uses a move other than its best, against the best
        move of the other side.
    n_given : int, default 1
        Number of moves that "given_move" draws for each side of each pair; fewer if the side has fewer.

    Returns
    -------
    DataFrame
        Columns species_a, species_b, move_a, move_b, policy; species_a < species_b; sorted by the two species. 17,391
        rows; for "given_move" up to 34,782 x n_given.

    Raises
    ------
    ValueError
        If there is no such policy.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy: unknown, got {policy!r}; expected one of {', '.join(POLICIES)}")
    return POLICIES[policy](pairs(), n_given).assign(policy=policy)[MATCHUP]


def draw(n: NDArray[np.int64], k: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw `k` distinct numbers from 0 to `n[i]` - 1 for every i, or all of them if there are fewer than `k`.

    Every subset is equally likely (Floyd's algorithm, Bentley and Floyd 1987, for all rows at once).

    Parameters
    ----------
    n : ndarray of int
    k : int
    rng : Generator

    Returns
    -------
    row, number : ndarray of int, shape (n_drawn,)
        The i and one of its numbers, in the order of the rows.
    """
    drawn = np.full((len(n), k), -1)
    for turn in range(k):
        top = n - k + turn  # the largest number that can be drawn now; below 0 nothing is drawn
        number = np.floor(rng.random(len(n)) * (top + 1)).astype(int)
        taken = (drawn[:, :turn] == number[:, None]).any(axis=1)
        drawn[:, turn] = np.where(top < 0, -1, np.where(taken, top, number))
    row, column = np.nonzero(drawn >= 0)
    return row, drawn[row, column]


def _index(ids: Ids) -> pd.Index:
    return pd.Index(np.asarray(ids, dtype=object))
