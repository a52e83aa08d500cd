"""The game tables of Pokémon Let's Go: species, moves, learnsets, type chart.

The tables are in `data/dex`, extracted from the engine (`SOURCE.json` names package and version; `make dex` extracts
them again). Ids are the engine's: lower case, no spaces (`charizardmegax`, `doubleironbash`, `fire`).
Every function returns a new DataFrame, which callers may change.
"""

import re
from functools import cache
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parents[1] / "data" / "dex"


def species() -> pd.DataFrame:
    """Return the 188 species and forms of Let's Go.

    Returns
    -------
    DataFrame
        Index species_id. Columns name; num (national number); type_1, type_2 ("" if there is only one type); base
        stats hp, attack, defense, special_attack, special_defense, speed; weight (kg); form (base, alola, mega,
        starter); base_species (for a form: the species it is a form of); evolution_line (species_id of the line's
        first member; a Mega, Alolan or partner form belongs to the line of its base species).
    """
    return _read("species").set_index("species_id")


def moves() -> pd.DataFrame:
    """Return the 226 moves that at least one species can learn.

    Returns
    -------
    DataFrame
        Index move_id. The columns in groups:

        - name, type, category (physical, special, status), base_power (0: see `damage_rule`), pp (before PP Ups),
          priority;
        - accuracy (percent; 100 if `always_hits`), multihit_min and multihit_max (1 if the move hits once);
        - crit_ratio (1: one hit in 24, 2: one in 8), always_crits;
        - drain and recoil (share of the damage dealt), crash (hurts the user on a miss);
        - damage_rule: "" for the damage formula, "ohko", "level", a number of HP, or the move's own id if it has
          a rule of its own (psywave, superfang, counter, mirrorcoat, bide, lowkick, pikapapow, veeveevolley);
        - flags: ohko, charge (strikes in the second turn), evades_while_charging (dig, fly), recharge,
          locks_in (2-3 turns, then confused), self_destruct, needs_sleeping_target, needs_attacking_target,
          first_turn_only, uses_target_attack, traps (an eighth of the HP each turn), seeds;
        - screen (the user's side gets "reflect" or "lightscreen"), self_boosts ("attack-1 defense-1"; for a charging
          move: in its first turn), target_boosts and target_boost_chance;
        - flinch_, burn_, paralysis_, freeze_, poison_, sleep_ and confusion_chance (percent, of each hit).
    """
    return _read("moves").set_index("move_id")


def learnsets() -> pd.DataFrame:
    """Return which species can use which move, one row per combination: species_id, move_id.

    A Mega form has the moves of its base species. An evolved species also has those of the earlier members of its
    evolution line.
    """
    return _read("learnsets")


def type_chart() -> pd.DataFrame:
    """Return the 18 x 18 type multipliers (0, 0.5, 1, 2): index attacking type, columns defending type."""
    return _read("type_chart").set_index("type").astype(float)


def plain_id(text: str) -> str:
    """Normalise a name or an id to the form of an id: lower case, without spaces and punctuation.

    Parameters
    ----------
    text : str
    """
    return re.sub(r"[\W_]", "", text.lower())


def _read(table: str) -> pd.DataFrame:
    return _read_once(table).copy()


@cache
def _read_once(table: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / f"{table}.csv", keep_default_na=False)
