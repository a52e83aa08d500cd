"""One attacker, one move, one defender: what a use of the move does and how soon it knocks the defender out.

Nothing here knows what the defender does meanwhile. Damage is as in `battles.damage`; a use of the move is a
draw of hit or miss, number of hits, critical hits and damage rolls, and the chances below are exact sums over it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from pokebattle import dex
from pokebattle.battles import FRIENDSHIP, LEVEL, battle_stats, damage, same_type_bonus, type_effectiveness

TURNS = 8  # counted exactly; a battle takes two or three in the mean
NEVER = 40.0  # turns for a move that cannot knock out
ROLLS = np.arange(85, 101)
CRITICAL_CHANCE = {1: 1 / 24, 2: 1 / 8, 3: 1 / 2, 4: 1.0}  # by critical-hit ratio, from Generation 7
HITS_OF_2_TO_5 = (0.35, 0.35, 0.15, 0.15)  # since Generation 5
LOW_KICK = ([10, 25, 50, 100, 200], [20, 40, 60, 80, 100, 120])  # power by the defender's weight in kg
IMMUNE = {"burn": ["fire"], "paralysis": ["electric"], "freeze": ["ice"], "poison": ["poison", "steel"]}
CERTAIN = 1 - 1e-9
DECIMALS = 6  # what a Fourier transform adds in the last bits must not tell rows apart
REACHED_BY = {"dig": ["earthquake"], "fly": ["gust", "thunder"]}  # moves that hit a user who is hiding
CHUNK = 1024


def attacks(attacker: ArrayLike, move: ArrayLike, defender: ArrayLike) -> pd.DataFrame:
    """Describe the first use of a move.

    Parameters
    ----------
    attacker, move, defender : array-like of str, shape (n,)
        Ids of species and moves.

    Returns
    -------
    DataFrame of n rows
        power, attack and defense (the stats that the move sets against each other), stab, effectiveness, fixed
        (HP of a move with fixed damage, else 0), hit_chance, critical_chance, attacker_hp, defender_hp, attack_stages
        (by which a use changes the attack), and the columns of `dex.moves` that say when it strikes.

    Notes
    -----
    Moves with rules that need the battle's course (counter, bide, super fang, psywave, ...) have power 0. Dream
    eater never hits, for nothing else puts the defender to sleep. Sources: the engine's battle-actions.ts and
    moves.ts.
    """
    moves = dex.moves()
    moves["attack_stages"] = stages(moves["self_boosts"], "attack").where(moves["category"] == "physical", 0)
    rows = moves.loc[np.asarray(move, dtype=object)].reset_index(drop=True)
    ours, theirs = (battle_stats().loc[np.asarray(side, dtype=object)] for side in (attacker, defender))
    weight = dex.species()["weight"].loc[theirs.index].to_numpy()
    rule, physical = rows["damage_rule"], (rows["category"] == "physical").to_numpy()
    by_rule: dict[str, ArrayLike] = {
        "lowkick": np.take(LOW_KICK[1], np.searchsorted(LOW_KICK[0], weight, side="right")),
        "pikapapow": FRIENDSHIP * 10 // 25,
        "veeveevolley": FRIENDSHIP * 10 // 25,
    }
    power = rows["base_power"].to_numpy()
    for name, value in by_rule.items():
        power = np.where(rule == name, value, power)
    fixed = np.select(
        [rule == "level", rule == "ohko"], [LEVEL, theirs["hp"]], pd.to_numeric(rule, errors="coerce").fillna(0)
    )
    effectiveness = type_effectiveness(rows["type"], theirs.index)
    borrowed = np.where(rows["uses_target_attack"], theirs["attack"], ours["attack"])
    return rows[["multihit_min", "multihit_max", "charge", "recharge", "attack_stages"]].assign(
        once=rows["self_destruct"] | rows["first_turn_only"],
        power=power,
        attack=np.where(physical, borrowed, ours["special_attack"]),
        defense=np.where(physical, theirs["defense"], theirs["special_defense"]),
        stab=same_type_bonus(rows["type"], ours.index),
        effectiveness=effectiveness,
        fixed=np.where(effectiveness > 0, fixed, 0).astype(int),
        hit_chance=np.where(rows["needs_sleeping_target"], 0, rows["accuracy"] / 100),
        critical_chance=np.where(rows["always_crits"], 1.0, rows["crit_ratio"].map(CRITICAL_CHANCE)),
        attacker_hp=ours["hp"].to_numpy(),
        defender_hp=theirs["hp"].to_numpy(),
    )


def stages(boosts: pd.Series, stat: str) -> pd.Series:
    """Read the change of one stat from texts such as "attack-1 defense-1"; 0 where it is not named."""
    return boosts.str.extract(rf"(?:^| ){stat}([+-]\d)", expand=False).astype(float).fillna(0).astype(int)


def hit_damage(table: pd.DataFrame, use: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what one hit can take, in HP, and how likely that is: 16 rolls, then 16 rolls of a critical hit.

    Parameters
    ----------
    table : DataFrame of n rows
        From `attacks`.
    use : int, default 0
        Uses of the move before this one; only a move that changes its user's attack minds.

    Returns
    -------
    points : ndarray of int, shape (n, 32)
    chances : ndarray of float, shape (n, 32)
        Each row sums to 1.
    """
    columns = ("power", "attack", "defense", "stab", "effectiveness", "fixed", "attack_stages", "critical_chance")
    power, attack, defense, stab, effectiveness, fixed, stages, critical = (
        table[name].to_numpy()[:, None] for name in columns
    )
    stage = np.clip(use * stages, -6, 6)
    changed = attack * np.maximum(2, 2 + stage) // np.maximum(2, 2 - stage)
    ordinary = damage(power, changed, defense, stab, effectiveness, ROLLS)
    critical_hit = damage(power, np.maximum(attack, changed), defense, stab, effectiveness, ROLLS, critical=True)
    points = np.where(fixed > 0, fixed, np.hstack([ordinary, critical_hit]))
    chances = np.hstack([np.broadcast_to(1 - critical, ordinary.shape), np.broadcast_to(critical, ordinary.shape)])
    return points, chances / len(ROLLS)


def hits(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the chances that a use which does not miss hits once, twice, ... five times; shape (n, 5)."""
    low, high = table["multihit_min"].to_numpy()[:, None], table["multihit_max"].to_numpy()[:, None]
    spread = np.where((low == 2) & (high == 5), [0, *HITS_OF_2_TO_5], 0.0)
    return np.where(low == high, np.arange(1, 6) == low, spread).astype(float)


def uses_by_turn(table: pd.DataFrame) -> NDArray[np.int64]:
    """Return how often the move has struck by the end of turn 0, 1, ... `TURNS`; shape (n, TURNS + 1).

    A charged move strikes in every second turn, one that needs recharging in the first, third, ...
    """
    turn = np.arange(TURNS + 1)
    conditions = [table[name].to_numpy()[:, None] for name in ("once", "charge", "recharge")]
    return np.select(conditions, [np.minimum(turn, 1), turn // 2, (turn + 1) // 2], turn)


def knock_outs(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how likely the defender, undisturbed, is knocked out by each turn, and the turns that takes.

    Parameters
    ----------
    table : DataFrame of n rows
        From `attacks`.

    Returns
    -------
    chances : ndarray, shape (n, TURNS + 1)
        Chance that it is down by the end of turn 0, 1, ... `TURNS`.
    turns : ndarray, shape (n,)
        Expected turns, at most `NEVER`. What is left after `TURNS` falls at the mean damage per turn.
    """
    order = np.lexsort([table["defender_hp"], table["attack_stages"], table["multihit_max"]])
    down, left = np.zeros((len(table), TURNS + 1)), np.zeros((len(table), TURNS + 1))
    for rows in np.array_split(order, range(CHUNK, len(order), CHUNK)):
        down[rows], left[rows] = _by_use(table.iloc[rows])
    uses = uses_by_turn(table)
    down, left = np.take_along_axis(down, uses, axis=1), np.take_along_axis(left, uses, axis=1)
    points, chances = hit_damage(table, use=1)
    per_use = table["hit_chance"] * (points * chances).sum(axis=1) * (hits(table) @ np.arange(1, 6))
    pace = np.where(table["once"], 0, per_use * (uses[:, -1] / TURNS)).clip(1e-9)
    turns = np.minimum((1 - down[:, :-1]).sum(axis=1) + left[:, -1] / pace, NEVER)
    return down.round(DECIMALS), turns.round(DECIMALS)


def _by_use(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Follow the damage taken over `TURNS` uses: chance of being down, and expected HP left (0 when down)."""
    hp, chance, n_hits = table["defender_hp"].to_numpy(), table["hit_chance"].to_numpy(), hits(table)
    width = hp.max()
    size = fft.next_fast_len(2 * width - 1, real=True)
    standing = np.arange(width) < hp[:, None]
    remaining = np.where(standing, hp[:, None] - np.arange(width), 0)
    taken = np.zeros((len(hp), width))  # chance of every damage so far that leaves the defender standing
    taken[:, 0] = 1.0
    down, left = np.zeros((len(hp), TURNS + 1)), np.repeat(hp[:, None], TURNS + 1, axis=1).astype(float)
    spectrum = fft.rfft(_distribution(*hit_damage(table), hp), size)
    for use in range(TURNS):
        up = np.flatnonzero(down[:, use] < CERTAIN)
        if use and table["attack_stages"].any():
            spectrum = fft.rfft(_distribution(*hit_damage(table, use), hp), size)
        hit, after = taken[up], (1 - chance[up, None]) * taken[up]
        for count in range(table["multihit_max"].max()):
            hit = fft.irfft(fft.rfft(hit, size) * spectrum[up], size)[:, :width] * standing[up]
            after += (chance[up] * n_hits[up, count])[:, None] * hit
        taken[up] = after
        down[:, use + 1 :], left[:, use + 1 :] = 1.0, 0.0
        down[up, use + 1 :] = 1 - after.sum(axis=1, keepdims=True)
        left[up, use + 1 :] = (after * remaining[up]).sum(axis=1, keepdims=True)
    return down.clip(0, 1), left.clip(0)


def _distribution(
    points: NDArray[np.int64], chances: NDArray[np.float64], hp: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Chance of every damage from 0 to below the HP, one row a defender; damage that knocks out is left out."""
    spread = np.zeros((len(hp), hp.max() + 1))
    index = np.arange(len(hp))[:, None] * spread.shape[1] + np.minimum(points, hp[:, None])
    spread += np.bincount(index.ravel(), chances.ravel(), minlength=spread.size).reshape(spread.shape)
    return np.where(np.arange(spread.shape[1]) < hp[:, None], spread, 0.0)[:, :-1]
