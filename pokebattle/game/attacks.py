"""One attacker, one move, one defender: the effect of one use of the move, and the turns until a knock-out.

The attacker may also have several moves and draw one every turn. What the defender does is ignored. Damage follows
`matchups.damage`. Whether a use hits, its number of hits, critical hits and damage rolls are random; all probabilities
here are exact sums over these outcomes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import fft, sparse

from pokebattle.game import dex
from pokebattle.game.matchups import (
    FRIENDSHIP,
    LEVEL,
    battle_stats,
    damage,
    rows_of,
    same_type_bonus,
    type_effectiveness,
)

TURNS = 8  # turns that are computed exactly; a battle takes two or three on average
NEVER = 40.0  # turns assigned to a move that cannot knock out
ROLLS = np.arange(85, 101)
CRITICAL_CHANCE = {1: 1 / 24, 2: 1 / 8, 3: 1 / 2, 4: 1.0}  # by critical-hit ratio, from Generation 7
SELF_HIT = 0.33  # chance that a confused user hits itself
HITS_OF_2_TO_5 = (0.35, 0.35, 0.15, 0.15)  # since Generation 5
LOW_KICK = ([10, 25, 50, 100, 200], [20, 40, 60, 80, 100, 120])  # power by the defender's weight in kg
PSYWAVE = np.arange(50, 151) * LEVEL // 100  # HP, all equally likely
IMMUNE = {"burn": ["fire"], "paralysis": ["electric"], "freeze": ["ice"], "poison": ["poison", "steel"]}
WEAR, BURN = 8, 16  # a trap, a seed or poison takes 1/8 of the HP each turn; a burn 1/16, from Generation 7
TRAPPED = 5  # turns with damage, then one without
CERTAIN = 1 - 1e-9
DECIMALS, OFF_TIES = 6, 1e-10  # rounding removes the errors of Fourier transforms, so that equal rows stay equal
REACHED_BY = {"dig": ["earthquake"], "fly": ["gust", "thunder"]}  # moves that hit a hiding user
CHUNK = 512
_START = "free"  # initial state of the user between turns, see `_transitions`
SCHEDULES = ["every", "once", "charge", "recharge", "locks_in"]
COPIED = [
    "multihit_min",
    "multihit_max",
    "charge",
    "recharge",
    "locks_in",
    "self_destruct",
    "first_turn_only",
    "traps",
    "varies",
    "halves",
    "hit_chance",
    "critical_chance",
    "attack_stages",
    "schedule",
]
PROFILE = [
    "power",
    "attack",
    "defense",
    "stab",
    "effectiveness",
    "fixed",
    "varies",
    "critical_chance",
    "multihit_min",
    "multihit_max",
    "attack_stages",
]

Numbers = NDArray[np.int64]
Chances = NDArray[np.float64]


def attacks(attacker: ArrayLike, move: ArrayLike, defender: ArrayLike) -> pd.DataFrame:
    """Describe the first use of a move.

    Parameters
    ----------
    attacker, move, defender : array-like of str, shape (n,)
        Ids of species and moves.

    Returns
    -------
    DataFrame of n rows
        power; attack and defense (the stats that the move uses); stab; effectiveness; fixed (HP of a move with fixed
        damage, else 0); varies (psywave, whose fixed damage is random: `fixed` is its mean); halves (super fang, whose
        fixed damage is half of the remaining HP); hit_chance; critical_chance; wears (HP that the defender loses at
        the end of every turn once it is trapped, seeded, burnt or poisoned); wear_chance (that a use that hits causes
        this); attacker_hp; defender_hp; attack_stages (change of the user's attack by one use); schedule (index into
        `SCHEDULES`: when the move strikes); and columns of `dex.moves`.

    Raises
    ------
    ValueError
        If an id is not in the game tables, see `matchups.rows_of`.

    Notes
    -----
    Moves that return the damage that their user took (counter, mirror coat, bide) have power 0. Dream eater never hits,
    because no other move puts the defender to sleep. Sources: the engine's battle-actions.ts, moves.ts and
    conditions.ts.
    """
    stats, moves = battle_stats(), _moves()
    ours, used, theirs = (
        rows_of(np.asarray(ids, dtype=object), known, name)
        for ids, known, name in (
            (attacker, stats.index, "attacker"),
            (move, moves.index, "move"),
            (defender, stats.index, "defender"),
        )
    )
    own, other = ({stat: stats[stat].to_numpy()[side] for stat in stats} for side in (ours, theirs))
    of = {name: column.to_numpy()[used] for name, column in moves.items()}
    effectiveness, physical = _effectiveness()[used, theirs], of["is_physical"]
    low_kick = low_kick_power(dex.species()["weight"])[theirs]
    fixed = np.select(
        [of["by_target"] == "ohko", of["halves"]], [other["hp"], np.maximum(other["hp"] // 2, 1)], of["fixed"]
    )
    return pd.DataFrame(
        {name: of[name] for name in COPIED}
        | {
            "power": np.where(of["by_target"] == "lowkick", low_kick, of["power"]),
            "attack": np.where(
                physical, np.where(of["uses_target_attack"], other["attack"], own["attack"]), own["special_attack"]
            ),
            "defense": np.where(physical, other["defense"], other["special_defense"]),
            "stab": _same_type_bonus()[ours, used],
            "effectiveness": effectiveness,
            "fixed": np.where(effectiveness > 0, fixed, 0).astype(int),
            "wears": np.maximum(other["hp"] // of["wears_by"], 1),
            "wear_chance": np.where(effectiveness > 0, _wear_chance()[used, theirs], 0.0),
            "attacker_hp": own["hp"],
            "defender_hp": other["hp"],
        }
    )


@cache
def _moves() -> pd.DataFrame:
    """Return the properties of every move that `attacks` needs."""
    moves = dex.moves()
    rule = moves["damage_rule"]
    once = moves["self_destruct"] | moves["first_turn_only"]
    schedule = np.select([once, moves["charge"], moves["recharge"], moves["locks_in"]], [1, 2, 3, 4], 0)
    lowers = stages(moves["self_boosts"], "attack").where(moves["category"] == "physical", 0)
    return moves.assign(
        by_target=rule,
        power=base_power(moves),
        fixed=fixed_damage(rule).mask(rule == "psywave", int(PSYWAVE.mean())),
        varies=rule == "psywave",
        halves=rule == "superfang",
        is_physical=moves["category"] == "physical",
        hit_chance=(moves["accuracy"] / 100).mask(moves["needs_sleeping_target"], 0.0),
        critical_chance=moves["crit_ratio"].map(CRITICAL_CHANCE).mask(moves["always_crits"], 1.0),
        attack_stages=lowers,
        schedule=schedule,
        wears_by=np.where(moves["burn_chance"] > 0, BURN, WEAR),
    )[[*COPIED, "by_target", "power", "fixed", "is_physical", "uses_target_attack", "wears_by"]]


@cache
def _wear_chance() -> Chances:
    """Return the chance that a use that hits makes the species lose HP every turn, by move and species."""
    moves, species = dex.moves(), dex.species()
    types = species[["type_1", "type_2"]].to_numpy()
    spared = {name: np.isin(types, immune).any(axis=1) for name, immune in IMMUNE.items()}
    chance = np.zeros((len(moves), len(species)))
    chance[moves["traps"]] = 1.0
    chance[moves["seeds"]] = ~np.isin(types, "grass").any(axis=1)
    for ailment in ("burn", "poison"):
        missed = (1 - moves[[f"{ailment}_chance"]].to_numpy() / 100) ** moves[["multihit_max"]].to_numpy()
        chance = np.maximum(chance, (1 - missed) * ~spared[ailment])
    return chance


@cache
def _effectiveness() -> Chances:
    """Return the type multiplier of every move against every species."""
    moves, species = dex.moves(), dex.species().index
    pairs = np.repeat(moves["type"], len(species)), np.tile(species, len(moves))
    return type_effectiveness(*pairs).reshape(len(moves), len(species))


@cache
def _same_type_bonus() -> Chances:
    """Return the same-type bonus of every species for every move."""
    moves, species = dex.moves(), dex.species().index
    pairs = np.tile(moves["type"], len(species)), np.repeat(species, len(moves))
    return same_type_bonus(*pairs).reshape(len(species), len(moves))


def base_power(moves: pd.DataFrame) -> pd.Series:
    """Return the power of moves in the damage formula; that of Pika Papow and Veevee Volley grows with friendship.

    Parameters
    ----------
    moves : DataFrame
        Rows of `dex.moves`.

    Returns
    -------
    Series of int
        0 for moves whose damage does not follow the formula, and for Low Kick, see `low_kick_power`.
    """
    by_friendship = moves["damage_rule"].isin(["pikapapow", "veeveevolley"])
    return moves["base_power"].mask(by_friendship, FRIENDSHIP * 10 // 25)


def fixed_damage(rule: pd.Series) -> pd.Series:
    """Return the HP that a move takes whatever the species: a number, or the level of its user.

    Parameters
    ----------
    rule : Series of str
        The column damage_rule of `dex.moves`.

    Returns
    -------
    Series of int
        0 for all other rules.
    """
    return pd.to_numeric(rule, errors="coerce").fillna(0).mask(rule == "level", LEVEL).astype(int)


def low_kick_power(weight: ArrayLike) -> Numbers:
    """Return the power of Low Kick against species.

    Parameters
    ----------
    weight : array-like of float
        Weight of the species in kg.
    """
    power: Numbers = np.take(LOW_KICK[1], np.searchsorted(LOW_KICK[0], np.asarray(weight), side="right"))
    return power


def stages(boosts: pd.Series, stat: str) -> pd.Series:
    """Read the change of one stat from texts such as "attack-1 defense-1".

    Parameters
    ----------
    boosts : Series of str
    stat : str

    Returns
    -------
    Series of int
        In stages; 0 where the text does not name the stat.
    """
    return boosts.str.extract(rf"(?:^| ){stat}([+-]\d)", expand=False).astype(float).fillna(0).astype(int)


def hit_damage(table: pd.DataFrame, use: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the possible damage of one hit and the probabilities: 16 rolls, then 16 rolls of a critical hit.

    Super fang is computed as half of the full HP.

    Parameters
    ----------
    table : DataFrame of n rows
        From `attacks`.
    use : int, default 0
        Number of earlier uses of the move. It matters only for moves that change their user's attack.

    Returns
    -------
    points : ndarray of int, shape (n, 32)
        Damage in HP.
    chances : ndarray of float, shape (n, 32)
        Each row sums to 1. If psywave is among the moves, both arrays have 101 more columns with its damage.
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
    chances = chances / len(ROLLS)
    drawn = (table["varies"] & (table["fixed"] > 0)).to_numpy()[:, None]
    if not drawn.any():
        return points, chances
    more = np.where(drawn, PSYWAVE, 0), np.where(drawn, np.full(len(PSYWAVE), 1 / len(PSYWAVE)), 0.0)
    return np.hstack([points, more[0]]), np.hstack([np.where(drawn, 0, chances), more[1]])


def hits(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the chances that a use that does not miss hits once, twice, ... five times.

    Parameters
    ----------
    table : DataFrame of n rows
        From `attacks`.

    Returns
    -------
    ndarray of float, shape (n, 5)
    """
    low, high = table["multihit_min"].to_numpy()[:, None], table["multihit_max"].to_numpy()[:, None]
    spread = np.where((low == 2) & (high == 5), [0, *HITS_OF_2_TO_5], 0.0)
    return np.where(low == high, np.arange(1, 6) == low, spread).astype(float)


def damage_of_use(table: pd.DataFrame) -> tuple[Numbers, Chances, Numbers]:
    """Return the damage of a first use that does not miss.

    Parameters
    ----------
    table : DataFrame of n rows
        From `attacks`.

    Returns
    -------
    least, mean, most : ndarray of shape (n,)
        In HP. Least and most exclude critical hits; the mean includes them and is 0 for a move that never hits.
    """
    number, distinct = _profiles(table)
    points, _ = hit_damage(distinct)
    highest = np.where(distinct["varies"], points[:, -1], points[:, len(ROLLS) - 1]) * distinct["multihit_max"]
    lowest = np.where(distinct["varies"] & (distinct["fixed"] > 0), PSYWAVE[0], points[:, 0]) * distinct["multihit_min"]
    mean = _mean_of_use(distinct, use=0)[number] * (table["hit_chance"] > 0).to_numpy()
    return lowest.to_numpy()[number], mean, highest.to_numpy()[number]


@cache
def courses(schedule: str, hit_chance: float, wear_chance: float) -> Chances:
    """Return the joint probability of turns of wear and number of hits at the end of each turn.

    Wear is the HP that a burn, poison, a trap or a seed takes at the end of every turn.

    Parameters
    ----------
    schedule : str
        One of `SCHEDULES`: the move is used every turn ("every"); only in the first turn, because its user faints or
        it fails later ("once"); strikes in every second turn ("charge"); its user rests for a turn after a hit
        ("recharge"); or it locks its user in ("locks_in").
    hit_chance : float
        0 to 1.
    wear_chance : float
        Chance that a hit starts wear if no earlier hit has, 0 to 1.

    Returns
    -------
    ndarray of shape (TURNS + 1, TURNS + 1, TURNS + 1)
        Probabilities by turn, turns of wear, and hits. Each turn's sum to 1.

    Notes
    -----
    A move that locks in is used for two or three turns. It then confuses its user for one to four turns; in each of
    them the user hits itself instead with 33 % (lockedmove and confusion in the engine's conditions.ts).
    """
    nothing = np.zeros((TURNS + 1, TURNS + 1))
    nothing[0, 0] = 1.0
    states, table = {_START: nothing}, [nothing]
    for _ in range(TURNS):
        following: dict[str, Chances] = {}
        for state, mass in states.items():
            for chance, state_after, n_hits in _transitions(schedule, state, hit_chance):
                moved = np.hstack([np.zeros((TURNS + 1, n_hits)), chance * mass])[:, : TURNS + 1]
                begins = moved[:1] * wear_chance * n_hits
                worn = np.vstack([moved[:1] - begins, begins, moved[1:-1]])
                following[state_after] = following.get(state_after, 0) + worn
        states = following
        table.append(np.sum(list(states.values()), axis=0))
    return np.array(table)


def _transitions(schedule: str, state: str, p: float) -> list[tuple[float, str, int]]:
    """List the possible outcomes of a turn: probability, state afterwards, number of hits."""
    if schedule == "once":
        return [(p, "over", 1), (1 - p, "over", 0)] if state == _START else [(1.0, "over", 0)]
    if schedule == "charge":
        return [(1.0, "charged", 0)] if state == _START else [(p, _START, 1), (1 - p, _START, 0)]
    if schedule == "recharge":
        return [(p, "resting", 1), (1 - p, _START, 0)] if state == _START else [(1.0, _START, 0)]
    if schedule == "locks_in":
        return _locked(state, p)
    return [(p, _START, 1), (1 - p, _START, 0)]


def _locked(state: str, p: float) -> list[tuple[float, str, int]]:
    """List the transitions of a user that is free, locked in for one or two more turns, or confused."""
    if state in (_START, "confused 1"):  # confusion that is in its last turn ends before the move
        return [(p / 2, "locked 1", 1), (p / 2, "locked 2", 1), (1 - p, _START, 0)]
    kind, left = state.split()
    after = f"{kind} {int(left) - 1}"
    if kind == "confused":
        hit = p * (1 - SELF_HIT)
        return [(hit, after, 1), (1 - hit, after, 0)]
    following = [after] if left == "2" else [f"confused {turns}" for turns in (2, 3, 4, 5)]
    return [(chance / len(following), then, n) for then in following for chance, n in ((p, 1), (1 - p, 0))]


def knock_outs(table: pd.DataFrame) -> tuple[Chances, Chances]:
    """Return the chances that a defender that does nothing is knocked out by each turn, and the expected turns.

    Parameters
    ----------
    table : DataFrame of n rows
        From `attacks`.

    Returns
    -------
    chances : ndarray, shape (n, TURNS + 1)
        Chance that the defender is knocked out by the end of turn 0, 1, ... `TURNS`.
    turns : ndarray, shape (n,)
        Expected turns, at most `NEVER`. HP that remain after `TURNS` turns are divided by the mean damage per turn.
    """
    number, distinct = _profiles(table)
    standing, left = np.zeros((len(table), TURNS + 1)), np.zeros((len(table), TURNS + 1))
    pace, wears = _mean_of_use(distinct, use=1)[number], (table["wear_chance"] > 0).to_numpy()
    for rows in (np.flatnonzero(~wears), np.flatnonzero(wears)):
        part, worn = table.iloc[rows], _worn(table.iloc[rows])
        stands, remains = _after_hits(part, number[rows], distinct, worn)
        for kind, of_kind in _kinds(part):
            chances, kept = courses(*kind)[:, : worn.shape[1]], rows[of_kind]
            flat = chances.reshape(TURNS + 1, -1).T
            standing[kept], left[kept] = (values[of_kind].reshape(len(kept), -1) @ flat for values in (stands, remains))
            pace[kept] *= 0 if kind[0] == "once" else chances[-1].sum(axis=0) @ np.arange(TURNS + 1) / TURNS
            pace[kept] += chances[-1, 1:].sum() * part["wears"].to_numpy()[of_kind]
    down = np.where(standing < 1 - CERTAIN, 1.0, 1 - standing).clip(0, 1)
    remaining = np.where(down[:, -1] == 1, 0.0, left[:, -1])
    turns = (1 - down[:, :-1]).sum(axis=1) + remaining / pace.clip(1e-9)
    return _rounded(down), _rounded(np.minimum(turns, NEVER))


def _rounded(values: Chances) -> Chances:
    """Round to `DECIMALS`. Sums of sixteenths often lie half-way; the offset keeps the last bits from deciding."""
    return (values + OFF_TIES).round(DECIMALS)


def _kinds(table: pd.DataFrame) -> Iterator[tuple[tuple[str, float, float], Numbers]]:
    """Yield each distinct combination of schedule, hit chance and wear chance, with the positions of its rows."""
    columns = ["schedule", "hit_chance", "wear_chance"]
    for kind in table[columns].drop_duplicates().itertuples(index=False):
        of_kind = np.all([table[name] == value for name, value in zip(columns, kind, strict=True)], axis=0)
        yield (SCHEDULES[kind[0]], kind[1], kind[2]), np.flatnonzero(of_kind)


def _worn(table: pd.DataFrame) -> Numbers:
    """Return the HP that wear has taken 0, 1, ... `TURNS` turns after it began; one column if no row has wear."""
    turns = np.arange(TURNS + 1 if table["wear_chance"].any() else 1)
    ticks = turns - (table["traps"].to_numpy()[:, None] & (turns > TRAPPED))
    worn: Numbers = ticks * table["wears"].to_numpy()[:, None]
    return worn


def mixed_knock_outs(table: pd.DataFrame, sizes: Numbers) -> tuple[Chances, Chances]:
    """Return the same as `knock_outs` for sides that draw one of their moves every turn, all equally likely.

    Parameters
    ----------
    table : DataFrame
        From `attacks`: the moves of the first side, then those of the second, and so on.
    sizes : ndarray of int, shape (n,)
        Number of moves of each side, at least 1.

    Returns
    -------
    chances : ndarray, shape (n, TURNS + 1)
    turns : ndarray, shape (n,)

    Notes
    -----
    A move that charges or recharges takes two turns; no other move is drawn in the second. Locking in, changes of the
    user's attack and wear (burn, poison, traps, seeds) are ignored.
    """
    side, n = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
    hp = table["defender_hp"].to_numpy()[np.cumsum(sizes) - sizes]
    number, distinct = _profiles(table)
    use, share, halves = _use_damage(distinct, hp.max()), 1 / sizes[side], table["halves"].to_numpy()
    hit, schedule = share * table["hit_chance"].to_numpy(), table["schedule"].to_numpy()

    def total(values: ArrayLike) -> Chances:
        return np.bincount(side, values, n).astype(float)

    def damage_of(hitting: NDArray[np.bool_], missing: NDArray[np.bool_]) -> Chances:
        weights = np.where(hitting & ~halves, hit, 0.0)
        chances = np.asarray(sparse.csr_array((weights, (side, number)), shape=(n, len(distinct))) @ use)
        chances[:, 0] += total(np.where(missing, share - hit, 0))
        return chances

    once, charge, recharge = (schedule == SCHEDULES.index(name) for name in ("once", "charge", "recharge"))
    first, steady = table["first_turn_only"].to_numpy(), ~(once | charge | recharge)
    moves = {
        "hp": hp,
        "steady": damage_of(steady, steady | recharge),
        "first": damage_of(first, first),
        "charge": damage_of(charge, charge),
        "recharge": damage_of(recharge, np.zeros_like(recharge)),
        "last": damage_of(once & ~first, once & ~first),
        "failing": total(np.where(first, share, 0)),
        "charging": total(np.where(charge, share, 0)),
        "halving": total(np.where(halves, hit, 0)),
    }
    down, left, gone = np.zeros((n, TURNS + 1)), np.zeros(n), np.zeros(n)
    order = np.argsort(hp, kind="stable")
    for rows in np.array_split(order, range(CHUNK, len(order), CHUNK)):
        down[rows], left[rows], gone[rows] = _follow({name: values[rows] for name, values in moves.items()})
    left, gone = (np.where(down[:, -1] == 1, 0, value) for value in (left, gone))
    per_move = np.where(once, 0, hit * _mean_of_use(distinct, use=1)[number])
    pace = total(per_move) / total(share + np.where(charge, share, 0) + np.where(recharge, hit, 0))
    turns = (1 - down[:, :-1]).sum(axis=1) + left / pace.clip(1e-9) + gone * NEVER
    return _rounded(down), _rounded(np.minimum(turns, NEVER))


def _follow(moves: dict[str, NDArray]) -> tuple[Chances, Chances, Chances]:
    """Compute the distribution of the damage that drawn moves have done over `TURNS` turns.

    Parameters
    ----------
    moves : dict of ndarray with n rows
        hp: of the defender.
        steady, first (fails from the second turn on), charge, recharge, last (its user faints): for each kind of move
        the chance of every damage (a miss is damage 0), weighted by the moves' shares.
        failing (moves of the kind first), charging, halving (hits of super fang): shares.

    Returns
    -------
    down : ndarray, shape (n, TURNS + 1)
        Chance that the defender is knocked out by the end of each turn.
    left, gone : ndarray, shape (n,)
        Expected HP that remain after the last turn; chance that the attacker has fainted before the defender.
    """
    hp, width = moves["hp"][:, None], int(moves["hp"].max())
    taken, size = np.arange(width), fft.next_fast_len(2 * width - 1, real=True)
    inside, remaining = taken < hp, (hp - taken).clip(0)
    first, steady, charge, recharge, last = (
        moves[name][:, :width] for name in ("first", "steady", "charge", "recharge", "last")
    )
    opening, usual, slow = (fft.rfft(kernel, size) for kernel in (steady + first, steady, charge + recharge))
    # Chance that the defender has HP left after a last move, or while the attacker recharges, by earlier damage.
    stands_last, stands_resting = (
        np.take_along_axis(kernel.cumsum(axis=1), (remaining - 1).clip(0), axis=1) for kernel in (last, recharge)
    )
    free, before = np.zeros((len(hp), width)), np.zeros_like(usual)
    free[:, 0] = 1.0
    down, gone = np.zeros((len(hp), TURNS + 1)), np.zeros(len(hp))
    for turn in range(1, TURNS + 1):
        spectrum = fft.rfft(free, size)
        after = fft.irfft(spectrum * (opening if turn == 1 else usual) + before * slow, size)[:, :width]
        if turn > 1:
            after += moves["failing"][:, None] * free
        _halve(after, moves["halving"][:, None] * free, remaining)
        after *= inside
        gone += (free * stands_last).sum(axis=1)
        waiting = moves["charging"][:, None] * free + free * stands_resting
        standing = (after + waiting).sum(axis=1) + gone
        left = ((after + waiting) * remaining).sum(axis=1)
        down[:, turn] = np.where(standing < 1 - CERTAIN, 1.0, 1 - standing).clip(0, 1)
        free, before = after.clip(0), spectrum
    return down, left, gone


def _halve(after: Chances, before: Chances, remaining: Numbers) -> None:
    """Halve the remaining HP in the distribution `before`, and add the result to `after` in place."""
    rows, width = np.flatnonzero(before.any(axis=1)), after.shape[1]
    taken = np.minimum(np.arange(width) + np.maximum(remaining[rows] // 2, 1), width)
    index = taken + np.arange(len(rows))[:, None] * (width + 1)
    moved = np.bincount(index.ravel(), before[rows].ravel(), len(rows) * (width + 1))
    after[rows] += moved.reshape(len(rows), width + 1)[:, :-1]


def _profiles(table: pd.DataFrame) -> tuple[Numbers, pd.DataFrame]:
    """Find the distinct distributions of damage, so that each is computed once.

    Return the number of every row's distribution, and one example row per distribution. Unless uses change the attack,
    power, attack and defense matter only through the base damage that they give.
    """
    factor = 2 * LEVEL // 5 + 2
    power, defense = table["power"].to_numpy() * (table["effectiveness"] > 0).to_numpy(), table["defense"].to_numpy()
    base = factor * power * table["attack"].to_numpy() // defense // 50
    alike = (table["attack_stages"] == 0).to_numpy()
    same = table[PROFILE].assign(
        power=np.where(alike, np.sign(power), power),
        attack=np.where(alike, 50 * base, table["attack"]),
        defense=np.where(alike, factor, defense),
    )
    number = np.asarray(same.groupby(PROFILE, sort=False).ngroup(), dtype=np.int64)
    return number, same.iloc[np.unique(number, return_index=True)[1]].reset_index(drop=True)


def _mean_of_use(distinct: pd.DataFrame, use: int) -> Chances:
    """Return the mean damage of a use that does not miss."""
    points, chances = hit_damage(distinct, use)
    products, usual = points * chances, 2 * len(ROLLS)
    # Two sums, so that the extra columns of psywave do not change the last bits of the other rows.
    one_hit = products[:, :usual].sum(axis=1) + products[:, usual:].sum(axis=1)
    mean: Chances = one_hit * (hits(distinct) @ np.arange(1, 6))
    return mean


def _after_hits(table: pd.DataFrame, number: Numbers, distinct: pd.DataFrame, worn: Numbers) -> tuple[Chances, Chances]:
    """Return the chance that the defender has HP left, and its expected HP, after 0 to `TURNS` hits and some wear.

    Parameters
    ----------
    table : DataFrame of n rows
    number, distinct
        From `_profiles`.
    worn : ndarray of int, shape (n, m)
        HP that wear has taken.

    Returns
    -------
    standing, left : ndarray, shape (n, m, TURNS + 1)
    """
    hp = table["defender_hp"].to_numpy()[:, None] - worn
    standing, left = (np.zeros((*hp.shape, TURNS + 1)) for _ in range(2))
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(0, len(distinct) + CHUNK, CHUNK))
    for start, stop in itertools.pairwise(starts):
        rows = order[start:stop]
        if len(rows):
            used, profile = np.unique(number[rows], return_inverse=True)
            below = _damage_sums(distinct.iloc[used], hp[rows].max()).cumsum(axis=2)
            index, up = (hp[rows] - 1).clip(0), hp[rows, :, None] > 0
            standing[rows] = np.where(up, below[profile[:, None], :, index], 0.0)
            left[rows] = np.where(up, below.cumsum(axis=2)[profile[:, None], :, index], 0.0)
    for row in np.flatnonzero(table["halves"] & (table["fixed"] > 0)):
        course = list(itertools.accumulate(range(TURNS), lambda left, _: left - max(left // 2, 1), initial=hp[row, 0]))
        left[row] = np.maximum(course, 0)
        standing[row] = left[row] > 0
    return standing, left


def _damage_sums(distinct: pd.DataFrame, width: int) -> Chances:
    """Return the chances of 0 to `width` - 1 HP of damage after 0 to `TURNS` hitting uses; (n, TURNS + 1, width)."""
    sums = np.zeros((len(distinct), TURNS + 1, width))
    sums[:, 0, 0] = 1.0
    changes = np.flatnonzero(distinct["attack_stages"])
    size = fft.next_fast_len(2 * width - 1, real=True)
    spectrum = fft.rfft(_use_damage(distinct, width), size)
    for use in range(TURNS):
        if use and len(changes):
            spectrum[changes] = fft.rfft(_use_damage(distinct.iloc[changes], width, use), size)
        sums[:, use + 1] = fft.irfft(fft.rfft(sums[:, use], size) * spectrum, size)[:, :width]
    return sums


def _use_damage(distinct: pd.DataFrame, width: int, use: int = 0) -> Chances:
    """Return the chances of 0 to `width` - 1 HP of damage by one use that does not miss; shape (n, width)."""
    points, chances = hit_damage(distinct, use)
    index = np.arange(len(distinct))[:, None] * (width + 1) + np.minimum(points, width)
    counted = np.bincount(index.ravel(), chances.ravel(), len(distinct) * (width + 1))
    single: Chances = counted.astype(float).reshape(len(distinct), width + 1)[:, :-1]
    several = np.flatnonzero(distinct["multihit_max"] > 1)
    if not len(several):
        return single
    size, n_hits = fft.next_fast_len(2 * width - 1, real=True), hits(distinct.iloc[several])
    spectrum, sums, total = fft.rfft(single[several], size), single[several], np.zeros((len(several), width))
    for count in range(n_hits.shape[1]):
        total += n_hits[:, count, None] * sums
        sums = fft.irfft(fft.rfft(sums, size) * spectrum, size)[:, :width]
    single[several] = total
    return single
