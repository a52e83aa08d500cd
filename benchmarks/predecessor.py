"""Does `pokebattle.formula` decide the predecessor's own battles as the predecessor did?

``python benchmarks/predecessor.py FOLDER`` reads the three ``matchups_*.parquet`` of benjsant/lets-go-predictiondex
and prints how many of their labels the formula gives. The rows hold base stats, and power, priority, same-type bonus
and type multiplier of both moves. What they lack is the moves' category: it is that of the moves of the same power,
type and priority in the project's tables, or, where these differ or there are none, physical unless named in `SPECIAL`.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from pokebattle import dex, formula
from pokebattle.battles import LEVEL

SCENARIOS = ("best_move", "random_move", "all_combinations")
TYPES = {
    "Acier": "steel", "Combat": "fighting", "Dragon": "dragon", "Eau": "water", "Feu": "fire", "Fée": "fairy",
    "Glace": "ice", "Insecte": "bug", "Normal": "normal", "Plante": "grass", "Poison": "poison", "Psy": "psychic",
    "Roche": "rock", "Sol": "ground", "Spectre": "ghost", "Ténèbres": "dark", "Vol": "flying", "Électrik": "electric",
}  # fmt: skip
SPECIAL = {"Danse-Fleur", "Vibrobscur", "Triplattaque", "Lance-Flammes", "Ébullition", "Coupe-Vent", "Météores",
           "Évo-Fabulo"}  # fmt: skip


def categories(rows: pd.DataFrame) -> dict[str, str]:
    """Return the category of every move in the rows by its French name."""
    moves = dex.moves().assign(power=formula.power()).query("power > 0")
    known = moves.groupby(["power", "type", "priority"])["category"].agg(set).to_dict()
    found = {}
    for side in "ab":
        columns = [f"{side}_move_{name}" for name in ("name", "power", "type", "priority")]
        for name, power, kind, priority in rows[columns].drop_duplicates().itertuples(index=False):
            alike = known.get((power, TYPES[kind], priority), set())
            guess = "special" if name in SPECIAL else "physical"
            found[name] = next(iter(alike)) if len(alike) == 1 else guess
    return found


def damage(rows: pd.DataFrame, side: str, other: str, category: dict[str, str]) -> np.ndarray:
    """Return the damage a turn of one side's attacks."""
    physical = rows[f"{side}_move_name"].map(category) == "physical"
    attack = np.where(physical, rows[f"{side}_attack"], rows[f"{side}_sp_attack"])
    defense = np.where(physical, rows[f"{other}_defense"], rows[f"{other}_sp_defense"])
    plain = (2 * LEVEL / 5 + 2) * rows[f"{side}_move_power"] * attack / defense / 50 + 2
    return np.maximum(plain * rows[f"{side}_move_stab"] * rows[f"{side}_move_type_mult"], formula.LEAST)


def main(folder: Path) -> None:
    """Print a line a scenario."""
    for scenario in SCENARIOS:
        rows = pd.read_parquet(folder / f"matchups_{scenario}.parquet")
        category = categories(rows)
        a_wins = formula.decide(
            (rows["b_hp"] / damage(rows, "a", "b", category)).to_numpy(),
            (rows["a_hp"] / damage(rows, "b", "a", category)).to_numpy(),
            (rows["a_move_priority"] - rows["b_move_priority"]).to_numpy(),
            (rows["a_speed"] - rows["b_speed"]).to_numpy(),
        )
        differ = rows[a_wins != (rows["winner"] == 1)]
        told = differ[["a_move_name", "b_move_name"]].value_counts().head(5).to_dict() or "none"
        sys.stdout.write(f"{scenario}: {len(rows) - len(differ)} of {len(rows)} labels agree; others: {told}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
