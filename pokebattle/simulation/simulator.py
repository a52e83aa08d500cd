"""The rules of a battle, compiled by numba: one against one, without items, abilities, weather and switching.

All rules are the engine's (pokemon-showdown, mod gen7letsgo): `battle-actions.ts` for the use of a move and its
damage, `battle.ts` for turns and the winner, `conditions.ts` for lasting effects, `moves.ts` for single moves.

The functions change their arguments in place and share names for them: `user`, `target`, `fighter` and `opponent` are
records of `records.FIGHTER`, `move` is a record of `records.MOVE`, `fighters` is an array of two records (the sides are
0 and 1), `moves` the table of all moves, `effectiveness` the type multiplier of the move against the target (or the
table of all multipliers, by type and species), `pp` the PP that are left of the moves in a pool, and `rng`, an array of
one uint64, the state of the random number generator. Stats are numbered as in `matchups.STATS`.

numba's cache notices changes of this file only. Therefore all compiled code and all constants that it uses must be
defined here. A test compares the constants with those of `game`.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

NONE, BURN, PARALYSIS, FREEZE, POISON = range(5)  # lasting conditions; a species has at most one of them
REFLECT, LIGHT_SCREEN = 1, 2
FORMULA, FIXED, OHKO, PSYWAVE, SUPER_FANG, COUNTER, MIRROR_COAT, BIDE, LOW_KICKS = range(9)  # rules for damage
HP, ATTACK, DEFENSE, SPECIAL_ATTACK, SPECIAL_DEFENSE, SPEED = range(6)  # the order of matchups.STATS
NOBODY = -1
LEVEL = 50
SCREEN_TURNS = 5
HIT_THRESHOLDS = (0.35, 0.7, 0.85)  # random numbers from which a move of 2 to 5 hits strikes 3, 4 and 5 times
PSYWAVE_LEAST, PSYWAVE_MOST = 50, 150  # percent of the level
ROLL_LEAST, ROLL_MOST = 85, 100  # percent of the damage
CONFUSION_POWER = 40
CONFUSION_CHANCE, FULL_PARALYSIS_CHANCE, THAW_CHANCE = 33.0, 25.0, 20.0  # percent; confusion since Generation 7
BURN_SHARE, POISON_SHARE, SEED_SHARE, TRAP_SHARE = 16, 8, 8, 8  # 1/16 or 1/8 of the full HP per turn

Record = Any  # of records.MOVE or records.FIGHTER
Records = NDArray[np.void]
Generator = NDArray[np.uint64]  # shape (1,): the state of the generator

compiled = njit(nogil=True, error_model="numpy")

GAMMA, MIX_1, MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFT_11, SHIFT_27, SHIFT_30, SHIFT_31 = (np.uint64(bits) for bits in (11, 27, 30, 31))


@compiled
def _uniform(rng: Generator) -> float:
    """Draw a number in [0, 1) with splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    rng[0] += GAMMA
    mixed = rng[0]
    mixed = (mixed ^ (mixed >> SHIFT_30)) * MIX_1
    mixed = (mixed ^ (mixed >> SHIFT_27)) * MIX_2
    mixed ^= mixed >> SHIFT_31
    return (mixed >> SHIFT_11) * 2.0**-53


@compiled
def _below(rng: Generator, n: int) -> int:
    """Draw an integer from 0 to n - 1."""
    return int(_uniform(rng) * n)


@compiled
def _occurs(rng: Generator, percent: float) -> bool:
    """Draw whether an event with this probability occurs. At 0 and 100 percent no random number is used."""
    if percent >= 100.0:
        return True
    return percent > 0.0 and _uniform(rng) * 100.0 < percent


@compiled
def _staged(fighter: Record, stat: int, stage: int) -> int:
    """Return a stat multiplied by the factor of its stage."""
    if stage == 0:
        return fighter.stats[stat]
    return fighter.stats[stat] * max(2, 2 + stage) // max(2, 2 - stage)


@compiled
def _speed(fighter: Record) -> int:
    """Return the speed in battle, which paralysis halves (since Generation 7)."""
    now = _staged(fighter, SPEED, fighter.stages[SPEED])
    return now // 2 if fighter.status == PARALYSIS else now


@compiled
def _base_damage(power: int, attack: int, defense: int) -> int:
    """Return the damage in HP before critical hits, random factor and types; the same formula as `matchups.damage`."""
    return (2 * LEVEL // 5 + 2) * power * attack // defense // 50 + 2


@compiled
def _rolled(points: int, rng: Generator) -> int:
    """Multiply damage by the random factor of 85 to 100 percent."""
    return points * (ROLL_MOST - _below(rng, ROLL_MOST - ROLL_LEAST + 1)) // 100


@compiled
def damage(user: Record, target: Record, move: Record, effectiveness: float, rng: Generator) -> int:
    """Return the damage of one hit in HP (getDamage and modifyDamage), not limited to the target's remaining HP.

    Parameters
    ----------
    user, target : record of `records.FIGHTER`
    move : record of `records.MOVE`
    effectiveness : float
        Type multiplier of the move against the target.
    rng : ndarray of uint64, shape (1,)
    """
    if move.rule == FIXED:
        return move.fixed
    if move.rule == OHKO:
        return target.stats[HP]
    if move.rule == PSYWAVE:
        return (PSYWAVE_LEAST + _below(rng, PSYWAVE_MOST - PSYWAVE_LEAST + 1)) * LEVEL // 100
    if move.rule == SUPER_FANG:
        return max(1, target.hp // 2)
    if move.rule == COUNTER:
        return 2 * user.physical_taken
    if move.rule == MIRROR_COAT:
        return 2 * user.special_taken
    power = target.low_kick if move.rule == LOW_KICKS else move.power
    if move.doubles_with_status and user.status != NONE:
        power *= 2
    critical = _occurs(rng, move.critical_chance)
    stat = ATTACK if move.physical else SPECIAL_ATTACK
    attacker = target if move.uses_target_attack else user
    attack_stage, defense_stage = attacker.stages[stat], target.stages[stat + 1]
    if critical:  # a critical hit ignores stages that would weaken it
        attack_stage, defense_stage = max(attack_stage, 0), min(defense_stage, 0)
    points = _base_damage(power, _staged(attacker, stat, attack_stage), _staged(target, stat + 1, defense_stage))
    if critical:
        points = points * 3 // 2
    points = _rolled(points, rng)
    if move.type == user.type_1 or move.type == user.type_2:
        points = (points * 3 * 2048 + 2047) // 4096
    points = int(points * effectiveness)
    if user.status == BURN and move.physical and not move.doubles_with_status:
        points //= 2
    screened = not critical and (target.reflect if move.physical else target.light_screen) > 0
    doubled = target.hideout != NONE and move.doubles_in_hideout
    if screened and not doubled:
        points //= 2
    elif doubled and not screened:
        points *= 2
    return max(points, 1)


@compiled
def _hurt(fighter: Record, points: int) -> int:
    """Subtract at least 1 HP, but not more than remain, and return how many were lost."""
    lost = min(max(points, 1), fighter.hp)
    fighter.hp -= lost
    return lost


@compiled
def _heal(fighter: Record, points: int) -> None:
    """Add at least 1 HP, up to the full HP, unless the fighter has fainted."""
    if fighter.hp > 0:
        fighter.hp = min(fighter.hp + max(points, 1), fighter.stats[HP])


@compiled
def _strike(target: Record, points: int, physical: bool) -> int:
    """Apply the damage of a move, record it for Counter, Mirror Coat and Bide, and return the HP lost."""
    lost = _hurt(target, points)
    if physical:
        target.physical_taken = lost
    else:
        target.special_taken = lost
    if target.bide > 0:
        target.bide_damage += points
    return lost


@compiled
def _boost(fighter: Record, stat: int, stages: int) -> None:
    """Change the stage of a stat, within -6 to 6."""
    fighter.stages[stat] = min(max(fighter.stages[stat] + stages, -6), 6)


@compiled
def _confuse(fighter: Record, rng: Generator) -> None:
    """Confuse a fighter for 1 to 4 actions, unless it is confused already.

    The counter starts at 2 to 5: the action at which it reaches 0 is no longer affected.
    """
    if fighter.confusion == 0:
        fighter.confusion = 2 + _below(rng, 4)


@compiled
def _choose(fighter: Record, pp: NDArray[np.int64], pool: NDArray[np.int64], struggle: int, rng: Generator) -> None:
    """Choose the move of this turn: the one in progress, else draw one with PP left, else Struggle."""
    if fighter.recharging or fighter.charging or fighter.lock > 0 or fighter.bide > 0:
        return
    if fighter.usable == 0:
        fighter.choice, fighter.slot = struggle, NOBODY
        return
    slot = _below(rng, len(pool)) if len(pool) > 1 else 0
    while pp[slot] == 0:
        slot = _below(rng, len(pool))
    fighter.choice, fighter.slot = pool[slot], slot


@compiled
def _goes_first(fighter: Record, opponent: Record, moves: Records, rng: Generator) -> bool:
    """Return whether `fighter` acts before `opponent`: higher priority, then higher speed, then chance."""
    lead = moves[fighter.choice].priority - moves[opponent.choice].priority
    if lead == 0:
        lead = _speed(fighter) - _speed(opponent)
    return lead > 0 or (lead == 0 and _uniform(rng) < 0.5)


@compiled
def _is_able(user: Record, move: Record, rng: Generator) -> bool:
    """Return whether the user can use its move, after the checks in the order of onBeforeMovePriority.

    Recharging, freezing, flinching, confusion and paralysis can prevent it. A confused user may hit itself.
    """
    if user.recharging:
        user.recharging = False
        return False
    if user.status == FREEZE and not move.thaws_user:
        if not _occurs(rng, THAW_CHANCE):
            return False
        user.status = NONE
    if user.flinched:
        return False
    if user.confusion > 0:
        user.confusion -= 1
        if user.confusion > 0 and _occurs(rng, CONFUSION_CHANCE):
            attack, defense = _staged(user, ATTACK, user.stages[ATTACK]), _staged(user, DEFENSE, user.stages[DEFENSE])
            _hurt(user, _rolled(_base_damage(CONFUSION_POWER, attack, defense), rng))
            return False
    return not (user.status == PARALYSIS and _occurs(rng, FULL_PARALYSIS_CHANCE))


@compiled
def _lands(user: Record, target: Record, move: Record, effectiveness: float, is_first: bool, rng: Generator) -> bool:
    """Return whether a move hits: its own conditions, a hiding target, immunity, accuracy."""
    if move.first_turn_only and user.actions > 1:
        return False
    if move.needs_attacking_target and (not is_first or target.recharging):
        return False
    if move.rule == COUNTER and user.physical_taken == 0:
        return False
    if move.rule == MIRROR_COAT and user.special_taken == 0:
        return False
    if target.hideout != NONE and target.hideout != move.reaches:
        return False
    if effectiveness == 0.0 or move.needs_sleeping_target:  # no damaging move puts anyone to sleep
        return False
    return _occurs(rng, move.accuracy)


@compiled
def _hit(user: Record, target: Record, move: Record, effectiveness: float, rng: Generator) -> None:
    """Hit once or several times, apply the effects of every hit, and apply the recoil."""
    if move.breaks_screens:
        target.reflect = target.light_screen = 0
    n_hits, total = move.multihit_min, 0
    if move.multihit_max > n_hits:
        draw = _uniform(rng)
        n_hits = 2 + (draw >= HIT_THRESHOLDS[0]) + (draw >= HIT_THRESHOLDS[1]) + (draw >= HIT_THRESHOLDS[2])
    for _ in range(n_hits):
        lost = _strike(target, damage(user, target, move, effectiveness, rng), move.physical)
        total += lost
        if move.drain > 0.0:
            _heal(user, int(lost * move.drain + 0.5))
        if target.hp == 0:
            break
        _affect(user, target, move, rng)
    if move.recoil > 0.0:
        _hurt(user, int(total * move.recoil + 0.5))
    if move.struggle:
        _hurt(user, int(user.stats[HP] / 4 + 0.5))


@compiled
def _affect(user: Record, target: Record, move: Record, rng: Generator) -> None:
    """Apply the effects of a hit besides damage. Call it only while the target has HP left.

    The order is: effects on the target, effects on the user, effects with a probability.
    """
    if move.traps and target.trapped == 0:
        target.trapped = 5 + _below(rng, 2)  # the last of these turns does no damage
    if move.seeds and target.seedable:
        target.seeded = True
    if move.clears_target:
        target.stages[:] = 0
    if move.clears_user:
        user.stages[:] = 0
    if target.raging:
        _boost(target, ATTACK, 1)
    if move.recharge:
        user.recharging = True
    if move.locks_in:
        _lock_in(user, rng)
    if move.screen == REFLECT and user.reflect == 0:
        user.reflect = SCREEN_TURNS
    if move.screen == LIGHT_SCREEN and user.light_screen == 0:
        user.light_screen = SCREEN_TURNS
    if not move.charge:
        _boost_all(user, move.self_boosts)
    if move.cures_user:
        user.status = NONE
    user.raging = move.rages
    if _occurs(rng, move.flinch_chance):
        target.flinched = True
    if _occurs(rng, move.confusion_chance):
        _confuse(target, rng)
    if _occurs(rng, move.target_boost_chance):
        _boost_all(target, move.target_boosts)
    status = _drawn_status(move, rng)
    if status != NONE and target.status == NONE and not target.immune[status]:
        target.status = status
    if move.thaws_target and target.status == FREEZE:
        target.status = NONE


@compiled
def _boost_all(fighter: Record, stages: NDArray[np.int64]) -> None:
    """Change the stages of several stats."""
    for stat in range(len(stages)):
        if stages[stat] != 0:
            _boost(fighter, stat, stages[stat])


@compiled
def _drawn_status(move: Record, rng: Generator) -> int:
    """Draw the lasting condition that a hit causes, or `NONE`. Tri Attack can cause one of three."""
    burn, paralysis, freeze = move.burn_chance, move.paralysis_chance, move.freeze_chance
    if burn + paralysis + freeze + move.poison_chance == 0.0:
        return NONE
    draw = _uniform(rng) * 100.0
    if draw < burn:
        return BURN
    if draw < burn + paralysis:
        return PARALYSIS
    if draw < burn + paralysis + freeze:
        return FREEZE
    return POISON if draw < burn + paralysis + freeze + move.poison_chance else NONE


@compiled
def _lock_in(user: Record, rng: Generator) -> None:
    """Lock the user into its move for 2 or 3 turns in total. A turn without a hit ends the lock (`lockedmove`)."""
    if user.lock == 0:
        user.lock, user.lock_left = 2, 2 + _below(rng, 2)
    elif user.lock_left >= 2:
        user.lock = 2


@compiled
def _unlock(user: Record, rng: Generator) -> None:
    """End the lock. If it lasted its full number of turns, the user gets confused."""
    user.lock = 0
    if user.lock_left <= 1:
        _confuse(user, rng)


@compiled
def _act(
    user: Record,
    target: Record,
    is_first: bool,
    pp: NDArray[np.int64],
    moves: Records,
    effectiveness: NDArray[np.float64],
    rng: Generator,
) -> None:
    """Carry out one side's action in this turn (runMove)."""
    move = moves[user.choice]
    user.actions += 1
    user.raging = False
    if not _is_able(user, move, rng):
        user.charging, user.hideout, user.bide = False, NONE, 0
        return
    multiplier = effectiveness[move.type, target.species]
    if user.bide > 0:
        if user.bide == 1:
            if user.bide_damage > 0 and multiplier > 0.0:
                _release(user, target, move.physical)
            user.bide = 0
        return
    if not user.charging and user.lock == 0 and user.slot != NOBODY:
        pp[user.slot] -= 1
        user.usable -= pp[user.slot] == 0
    if move.rule == BIDE:
        user.bide, user.bide_damage = 3, 0
        return
    if move.charge and not user.charging:
        user.charging, user.hideout = True, move.hideout
        _boost_all(user, move.self_boosts)
        return
    user.charging, user.hideout = False, NONE
    if move.thaws_user and user.status == FREEZE:
        user.status = NONE
    if move.self_destruct:
        user.hp = 0
    if _lands(user, target, move, multiplier, is_first, rng):
        _hit(user, target, move, multiplier, rng)
    elif move.crash:
        _hurt(user, user.stats[HP] // 2)
    if user.lock == 1:
        _unlock(user, rng)


@compiled
def _release(user: Record, target: Record, physical: bool) -> None:
    """Deal twice the damage that the user took during Bide. This also hits a hiding target."""
    _strike(target, 2 * user.bide_damage, physical)
    if target.hp > 0 and target.raging:
        _boost(target, ATTACK, 1)


@compiled
def _winner_after(side: int, fighters: Records, moves: Records) -> int:
    """Return the side that has won after one side's action, or NOBODY. If both faint, the one that faints last wins."""
    user, target = fighters[side], fighters[1 - side]
    if target.hp == 0 and not (user.hp == 0 and moves[user.choice].self_destruct):
        return side  # a user that faints from recoil faints after its target
    return 1 - side if user.hp == 0 else NOBODY


@compiled
def _end_turn(fighters: Records, rng: Generator) -> int:
    """Apply the effects at the end of a turn in the order of onResidualOrder; return the winning side, or NOBODY."""
    if _has_residual_damage(fighters[0]) or _has_residual_damage(fighters[1]):
        lead = _speed(fighters[0]) - _speed(fighters[1])
        for cause in range(4):
            first = 0 if lead > 0 or (lead == 0 and _uniform(rng) < 0.5) else 1
            for side in (first, 1 - first):
                _apply_residual_damage(cause, fighters[side], fighters[1 - side])
                if fighters[side].hp == 0:
                    return 1 - side
    for side in range(2):
        fighter = fighters[side]
        fighter.flinched = False
        fighter.physical_taken = fighter.special_taken = 0
        fighter.reflect = max(0, fighter.reflect - 1)
        fighter.light_screen = max(0, fighter.light_screen - 1)
        fighter.bide = max(0, fighter.bide - 1)
        if fighter.lock == 1:
            _unlock(fighter, rng)
        elif fighter.lock > 1:
            fighter.lock, fighter.lock_left = fighter.lock - 1, fighter.lock_left - 1
    return NOBODY


@compiled
def _has_residual_damage(fighter: Record) -> bool:
    """Return whether a fighter loses HP at the end of a turn."""
    return fighter.seeded or fighter.trapped > 0 or fighter.status == BURN or fighter.status == POISON


@compiled
def _apply_residual_damage(cause: int, fighter: Record, opponent: Record) -> None:
    """Apply the damage of one cause at the end of a turn: 0 seed, 1 poison, 2 burn, 3 trap, in the order of the engine.

    A seed heals the opponent.
    """
    whole = fighter.stats[HP]
    if cause == 0 and fighter.seeded:
        _heal(opponent, _hurt(fighter, whole // SEED_SHARE))
    elif cause == 1 and fighter.status == POISON:
        _hurt(fighter, whole // POISON_SHARE)
    elif cause == 2 and fighter.status == BURN:
        _hurt(fighter, whole // BURN_SHARE)
    elif cause == 3 and fighter.trapped > 0:
        fighter.trapped -= 1
        if fighter.trapped > 0:
            _hurt(fighter, whole // TRAP_SHARE)


@compiled
def _battle(
    fighters: Records,
    pp: NDArray[np.int64],
    pools: tuple[NDArray[np.int64], NDArray[np.int64]],
    moves: Records,
    effectiveness: NDArray[np.float64],
    rng: Generator,
) -> tuple[int, int]:
    """Fight until one side has fainted; return the winning side and the number of turns.

    Every battle ends, because fighters without PP use Struggle, whose recoil hurts them.
    """
    turn, struggle = 0, len(moves) - 1
    while True:
        turn += 1
        _choose(fighters[0], pp[0], pools[0], struggle, rng)
        _choose(fighters[1], pp[1], pools[1], struggle, rng)
        first = 0 if _goes_first(fighters[0], fighters[1], moves, rng) else 1
        for side in (first, 1 - first):
            _act(fighters[side], fighters[1 - side], side == first, pp[side], moves, effectiveness, rng)
            winner = _winner_after(side, fighters, moves)
            if winner != NOBODY:
                return winner, turn
        winner = _end_turn(fighters, rng)
        if winner != NOBODY:
            return winner, turn


@njit(nogil=True, error_model="numpy", cache=True)
def fight(
    species: NDArray[np.int64],
    pools: NDArray[np.int64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    n_battles: int,
    moves: Records,
    rested: Records,
    effectiveness: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Fight every matchup `n_battles` times. Each matchup has its own random number generator.

    Parameters
    ----------
    species : ndarray of int, shape (n_matchups, 2)
        Rows of `rested`.
    pools, starts, sizes : ndarray of int, shapes (any,), (n_matchups, 2), (n_matchups, 2)
        The moves of a side, as rows of `moves`, are `pools[start : start + size]`.
    seeds : ndarray of uint64, shape (n_matchups,)
    n_battles : int
    moves, rested, effectiveness : ndarray
        The arrays `moves`, `fighters` and `effectiveness` of `records.Tables`.

    Returns
    -------
    wins, turns : ndarray of int, shape (n_matchups,)
        Battles that side 0 won; turns, summed over the battles.
    left : ndarray of int, shape (n_matchups, 2)
        HP that each side had left at the end, summed over the battles.
    """
    n_matchups = len(seeds)
    wins, turns = np.zeros(n_matchups, np.int64), np.zeros(n_matchups, np.int64)
    left = np.zeros((n_matchups, 2), np.int64)
    fighters, rng = rested[:2].copy(), np.zeros(1, np.uint64)
    pp, full = np.zeros((2, len(moves)), np.int64), np.zeros((2, len(moves)), np.int64)
    for number in range(n_matchups):
        rng[0] = seeds[number]
        first, second = starts[number]
        pool = (pools[first : first + sizes[number, 0]], pools[second : second + sizes[number, 1]])
        for slot in range(sizes[number, 0]):
            full[0, slot] = moves[pool[0][slot]].pp
        for slot in range(sizes[number, 1]):
            full[1, slot] = moves[pool[1][slot]].pp
        for _ in range(n_battles):
            for side in range(2):
                fighters[side] = rested[species[number, side]]
                fighters[side].usable = sizes[number, side]
                for slot in range(sizes[number, side]):
                    pp[side, slot] = full[side, slot]
            winner, lasted = _battle(fighters, pp, pool, moves, effectiveness, rng)
            wins[number] += winner == 0
            turns[number] += lasted
            left[number, 0] += fighters[0].hp
            left[number, 1] += fighters[1].hp
    return wins, turns, left
