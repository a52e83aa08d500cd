"""The game tables as arrays for compiled code: one record per move, one record per species."""

from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pokebattle.game import dex
from pokebattle.game.attacks import (
    CRITICAL_CHANCE,
    IMMUNE,
    REACHED_BY,
    base_power,
    fixed_damage,
    low_kick_power,
    stages,
)
from pokebattle.game.matchups import STATS, battle_stats, type_effectiveness
from pokebattle.simulation.simulator import (
    BIDE,
    BURN,
    COUNTER,
    FIXED,
    FORMULA,
    FREEZE,
    LIGHT_SCREEN,
    LOW_KICKS,
    MIRROR_COAT,
    NONE,
    OHKO,
    PARALYSIS,
    POISON,
    PSYWAVE,
    REFLECT,
    SUPER_FANG,
)

STATUSES = {"burn": BURN, "paralysis": PARALYSIS, "freeze": FREEZE, "poison": POISON}
HIDEOUTS = {move: number for number, move in enumerate(REACHED_BY, start=1)}
RULES = {
    "ohko": OHKO,
    "psywave": PSYWAVE,
    "superfang": SUPER_FANG,
    "counter": COUNTER,
    "mirrorcoat": MIRROR_COAT,
    "bide": BIDE,
    "lowkick": LOW_KICKS,
    "": FORMULA,
    "pikapapow": FORMULA,
    "veeveevolley": FORMULA,
}
PP_UPS = 3  # the maximum, which the engine gives to every move: 8/5 of its PP

# Rules for single moves from the engine's moves.ts that the game tables do not contain.
OWN_RULES = {
    "doubles_in_hideout": ["earthquake", "gust"],
    "doubles_with_status": ["facade"],
    "clears_target": ["clearsmog", "freezyfrost"],
    "clears_user": ["freezyfrost"],
    "breaks_screens": ["brickbreak"],
    "cures_user": ["sparklyswirl"],
    "rages": ["rage"],
    "thaws_user": ["flareblitz", "scald", "sizzlyslide"],
    "thaws_target": ["scald"],  # and all moves of type fire, see `_moves`
}
FLAGS = [  # those of `learning.features.FLAGS`, and uses_target_attack
    "crash",
    "charge",
    "recharge",
    "locks_in",
    "self_destruct",
    "needs_sleeping_target",
    "needs_attacking_target",
    "first_turn_only",
    "uses_target_attack",
    "traps",
    "seeds",
]
CHANCES = ["flinch", "burn", "paralysis", "freeze", "poison", "confusion", "target_boost"]  # percent
PLAIN = ["priority", "multihit_min", "multihit_max", "drain", "recoil"]

Integers, Floats = np.int16, np.float64  # int16 keeps records small: with int64 a battle takes 1.8 times as long
MOVE = np.dtype(
    [
        *((name, Integers) for name in ("type", "power", "rule", "fixed", "pp", "screen", "hideout", "reaches")),
        *((name, Integers) for name in PLAIN[:3]),
        *((name, Floats) for name in ("accuracy", "critical_chance", "drain", "recoil")),
        *((f"{name}_chance", Floats) for name in CHANCES),
        ("self_boosts", Integers, len(STATS)),
        ("target_boosts", Integers, len(STATS)),
        *((name, np.bool_) for name in ("physical", "struggle", *OWN_RULES, *FLAGS)),
    ],
    align=True,
)
FIGHTER = np.dtype(
    [
        # The species, at level 50.
        ("species", Integers),
        ("stats", Integers, len(STATS)),
        ("type_1", Integers),
        ("type_2", Integers),
        ("low_kick", Integers),  # power of Low Kick against it
        ("immune", Integers, 1 + len(STATUSES)),
        ("seedable", np.bool_),
        # Its state in a battle. Numbers of turns count down to 0, which means off.
        ("hp", Integers),
        ("stages", Integers, len(STATS)),
        ("status", Integers),
        ("confusion", Integers),
        ("choice", Integers),
        ("slot", Integers),  # its move this turn: row of the table of moves; position in its pool
        ("usable", Integers),  # how many of its moves have PP left
        ("actions", Integers),
        ("lock", Integers),
        ("lock_left", Integers),
        ("bide", Integers),
        ("bide_damage", Integers),
        ("hideout", Integers),
        ("trapped", Integers),
        ("reflect", Integers),
        ("light_screen", Integers),
        ("physical_taken", Integers),
        ("special_taken", Integers),
        ("flinched", np.bool_),
        ("charging", np.bool_),
        ("recharging", np.bool_),
        ("seeded", np.bool_),
        ("raging", np.bool_),
    ],
    align=True,
)


class Tables(NamedTuple):
    """The arrays that the rules read.

    Attributes
    ----------
    moves : ndarray of `MOVE`
        The damaging moves in the order of `move_ids`, then Struggle.
    fighters : ndarray of `FIGHTER`
        The species in the order of `species_ids`, as they begin a battle.
    effectiveness : ndarray of float, shape (n_types, n_species)
        Type multiplier of a move's type against a species; the last row is for Struggle, which has no type.
    move_ids, species_ids : Index
    """

    moves: NDArray[np.void]
    fighters: NDArray[np.void]
    effectiveness: NDArray[np.float64]
    move_ids: pd.Index
    species_ids: pd.Index


@cache
def tables() -> Tables:
    """Return the arrays made from the tables of `dex`, in the order of the ids, with damaging moves only."""
    moves, species = dex.moves().sort_index(), dex.species().sort_index()
    moves = moves[moves["category"] != "status"]
    types = dex.type_chart().index
    n = len(species)
    effectiveness = [type_effectiveness([name] * n, species.index) for name in types]
    return Tables(
        moves=np.concatenate([_moves(moves, types), _struggle(len(types))]),
        fighters=_fighters(species, types),
        effectiveness=np.vstack([*effectiveness, np.ones(n)]),
        move_ids=moves.index,
        species_ids=species.index,
    )


def _moves(moves: pd.DataFrame, types: pd.Index) -> NDArray[np.void]:
    table = np.zeros(len(moves), dtype=MOVE)
    rule = moves["damage_rule"]
    table["type"] = types.get_indexer(pd.Index(moves["type"]))
    table["power"] = base_power(moves)
    table["fixed"] = fixed_damage(rule)
    table["rule"] = rule.map(RULES).fillna(FIXED)
    table["pp"] = moves["pp"] * (5 + PP_UPS) // 5
    table["physical"] = moves["category"] == "physical"
    table["accuracy"] = moves["accuracy"]
    table["critical_chance"] = np.where(moves["always_crits"], 100, moves["crit_ratio"].map(CRITICAL_CHANCE) * 100)
    table["screen"] = moves["screen"].map({"reflect": REFLECT, "lightscreen": LIGHT_SCREEN}).fillna(NONE)
    table["hideout"] = moves.index.map(HIDEOUTS).fillna(NONE)
    for hideout, reached_by in REACHED_BY.items():
        table["reaches"][moves.index.isin(reached_by)] = HIDEOUTS[hideout]
    for name in [*PLAIN, *FLAGS, *(f"{name}_chance" for name in CHANCES)]:
        table[name] = moves[name]
    for name, known in OWN_RULES.items():
        table[name] = moves.index.isin(known)
    table["thaws_target"] |= (moves["type"] == "fire").to_numpy()
    for name in ("self_boosts", "target_boosts"):
        table[name] = np.column_stack([stages(moves[name], stat) for stat in STATS])
    return table


def _struggle(no_type: int) -> NDArray[np.void]:
    """Return Struggle, used when no PP are left: power 50, no type, always hits, costs a quarter of the user's HP."""
    table = np.zeros(1, dtype=MOVE)
    values = {
        "type": no_type,
        "power": 50,
        "physical": True,
        "accuracy": 100,
        "struggle": True,
        "critical_chance": CRITICAL_CHANCE[1] * 100,
        "multihit_min": 1,
        "multihit_max": 1,
    }
    for name, value in values.items():
        table[name] = value
    return table


def _fighters(species: pd.DataFrame, types: pd.Index) -> NDArray[np.void]:
    table = np.zeros(len(species), dtype=FIGHTER)
    table["species"] = np.arange(len(species))
    table["stats"] = battle_stats().loc[species.index, STATS]
    table["hp"] = table["stats"][:, 0]
    own = species[["type_1", "type_2"]]
    for name in ("type_1", "type_2"):
        table[name] = types.get_indexer(pd.Index(own[name]))
    table["low_kick"] = low_kick_power(species["weight"])
    for name, status in STATUSES.items():
        table["immune"][:, status] = own.isin(IMMUNE[name]).any(axis=1)
    table["seedable"] = ~own.isin(["grass"]).any(axis=1)
    return table
