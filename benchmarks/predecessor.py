"""The predecessor's own battles: does the formula of v1 decide them, and how well do our features predict them?

``python benchmarks/predecessor.py FOLDER`` reads the three ``matchups_*.parquet`` of benjsant/lets-go-predictiondex.

First it prints how many of the predecessor's labels the formula reproduces. Then it predicts the labels:

- v1 is the scenario best_move; v2 is all three scenarios together.
- The features are `raw` and `mechanics`. They describe level-50 battles and do not contain the formula.
- A tenth of the unordered pairs of species, chosen by a hash, judges the models. No row of these pairs is in the
  training part.
- The settings are the predecessor's (`params/v2.yaml`). `mechanics` is also fitted with the best of `CANDIDATES`,
  chosen by inner cross-validation, by pair, on the training part of v1.
- Intervals are 95 % intervals over resamples of the species.

The predecessor's species are identified by stats and types. Its moves are identified by power, type and priority, or by
name (`MOVES`) if these are ambiguous. Four moves have other numbers there than in the game's tables: rows with these
moves do not count as mapped, and their features use the game's numbers.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pokebattle.datasets import formula_battles
from pokebattle.datasets.splits import pair_hashes
from pokebattle.evaluation import species_bootstrap
from pokebattle.evaluation.metrics import INTERVAL
from pokebattle.game import dex
from pokebattle.game.matchups import LEVEL, STATS
from pokebattle.learning.features import matchup_features
from pokebattle.model import BattleWinner
from pokebattle.params import load_params

SCENARIOS = ("best_move", "random_move", "all_combinations")
VERSIONS = {"v1": SCENARIOS[:1], "v2": SCENARIOS}
HELD_OUT, N_FOLDS, N_BOOTSTRAP = 0.1, 3, 1000
CANDIDATES = [
    {"n_estimators": 300, "max_depth": 8},
    {"n_estimators": 600, "max_depth": 6},
    {"n_estimators": 1000, "max_depth": 5},
]
COLUMNS = ["species_a", "species_b", "move_a", "move_b", "wins_a", "n_battles", "mapped", "scenario"]
THEIR_STATS = ["hp", "attack", "defense", "sp_attack", "sp_defense", "speed"]
TYPES = {
    "Acier": "steel",
    "Combat": "fighting",
    "Dragon": "dragon",
    "Eau": "water",
    "Feu": "fire",
    "Fée": "fairy",
    "Glace": "ice",
    "Insecte": "bug",
    "Normal": "normal",
    "Plante": "grass",
    "Poison": "poison",
    "Psy": "psychic",
    "Roche": "rock",
    "Sol": "ground",
    "Spectre": "ghost",
    "Ténèbres": "dark",
    "Vol": "flying",
    "Électrik": "electric",
}
MOVES = {
    "Charge": "tackle",
    "Combo-Griffe": "furyswipes",
    "Coud'Krâne": "skullbash",
    "Coup d'Boule": "headbutt",
    "Coupe-Vent": "razorwind",
    "Croc de Mort": "hyperfang",
    "Câlinerie": "playrough",
    "Damoclès": "doubleedge",
    "Danse-Fleur": "petaldance",
    "Double Pied": "doublekick",
    "Double-Dard": "twineedle",
    "Draco-Queue": "dragontail",
    "Force": "strength",
    "Furie": "furyattack",
    "Façade": "facade",
    "Griffe": "scratch",
    "Jackpot": "payday",
    "Koud'Korne": "hornattack",
    "Lance-Flammes": "flamethrower",
    "Laser Glace": "icebeam",
    "Ligotage": "wrap",
    "Mania": "thrash",
    "Mawashi Geri": "rollingkick",
    "Mâchouille": "crunch",
    "Mégafouet": "powerwhip",
    "Météores": "swift",
    "Osmerang": "bonemerang",
    "Picanon": "spikecannon",
    "Pika-Piqué": "floatyfall",
    "Pika-Splash": "splishysplash",
    "Pika-Sprint": "zippyzap",
    "Pilonnage": "barrage",
    "Pistolet à O": "watergun",
    "Plaie-Croix": "xscissor",
    "Poing Comète": "cometpunch",
    "Psyko": "psychic",
    "Ruse": "feint",
    "Souplesse": "slam",
    "Surf": "surf",
    "Séisme": "earthquake",
    "Tonnerre": "thunderbolt",
    "Torgnoles": "doubleslap",
    "Tranche": "slash",
    "Triplattaque": "triattack",
    "Tunnel": "dig",
    "Tunnelier": "drillrun",
    "Ultimapoing": "megapunch",
    "Ultimawashi": "megakick",
    "Uppercut": "dizzypunch",
    "Vampirisme": "leechlife",
    "Vibrobscur": "darkpulse",
    "Vol": "fly",
    "Cascade": "waterfall",
    "Ébullition": "scald",
    "Écrasement": "stomp",
    "Écras'Face": "pound",
    "Écume": "bubble",
    "Étreinte": "bind",
    "Évo-Congélo": "freezyfrost",
    "Évo-Dynamo": "buzzybuzz",
    "Évo-Fabulo": "sparklyswirl",
    "Évo-Flambo": "sizzlyslide",
    "Évo-Psycho": "glitzyglow",
    "Évo-Thalasso": "bouncybubble",
}


def read(file: Path) -> pd.DataFrame:
    """Read a scenario and add this project's ids.

    Returns
    -------
    DataFrame
        The predecessor's columns, and species_a, species_b, move_a, move_b, wins_a, n_battles and mapped (whether both
        moves have the same power, type and priority in the game's tables).
    """
    rows = pd.read_parquet(file)
    for side in "ab":
        rows[f"species_{side}"], rows[f"move_{side}"] = species_ids(rows, side), move_ids(rows, side)
    numbers = dex.moves().assign(power=formula_battles.power())[["power", "type", "priority"]]
    same = [_numbers(rows, side) == numbers.loc[rows[f"move_{side}"]].to_numpy() for side in "ab"]
    mapped = np.logical_and(*(of_side.all(axis=1) for of_side in same))
    return rows.assign(wins_a=rows["winner"] == 1, n_battles=1, mapped=mapped).astype({"wins_a": int})


def species_ids(rows: pd.DataFrame, side: str) -> pd.Series:
    """Find the species ids of one side by base stats and types, which no two species share."""
    ours = dex.species()
    known = dict(zip(zip(*(ours[stat] for stat in STATS), _types(ours, "type_"), strict=True), ours.index, strict=True))
    distinct = rows.drop_duplicates(f"pokemon_{side}_name")
    theirs = zip(*(distinct[f"{side}_{stat}"] for stat in THEIR_STATS), _types(distinct, f"{side}_type_"), strict=True)
    ids = {name: known[key] for name, key in zip(distinct[f"pokemon_{side}_name"], theirs, strict=True)}
    return rows[f"pokemon_{side}_name"].map(ids)


def _types(rows: pd.DataFrame, prefix: str) -> list[frozenset[str]]:
    pairs = rows[[f"{prefix}1", f"{prefix}2"]].fillna("").replace(TYPES).to_numpy()
    return [frozenset(pair) - {"", "none"} for pair in pairs]


def move_ids(rows: pd.DataFrame, side: str) -> pd.Series:
    """Find the move ids of one side: by name if it is in `MOVES`, else by power, type and priority."""
    moves = dex.moves().assign(power=formula_battles.power()).reset_index()
    ours = moves.set_index(["power", "type", "priority"])["move_id"]
    distinct = rows.drop_duplicates(f"{side}_move_name")
    ids = {
        name: MOVES[name] if name in MOVES else ours.loc[tuple(numbers)]
        for name, numbers in zip(distinct[f"{side}_move_name"], _numbers(distinct, side), strict=True)
    }
    return rows[f"{side}_move_name"].map(ids)


def _numbers(rows: pd.DataFrame, side: str) -> np.ndarray:
    """Return power, type and priority of one side's moves, one row per matchup."""
    columns = [f"{side}_move_{name}" for name in ("power", "type", "priority")]
    return rows[columns].assign(**{columns[1]: rows[columns[1]].map(TYPES)}).to_numpy(object)


def agreement(rows: pd.DataFrame) -> int:
    """Count the labels that the formula reproduces."""
    a_wins = formula_battles.decide(
        (rows["b_hp"] / damage(rows, "a", "b")).to_numpy(),
        (rows["a_hp"] / damage(rows, "b", "a")).to_numpy(),
        (rows["a_move_priority"] - rows["b_move_priority"]).to_numpy(),
        (rows["a_speed"] - rows["b_speed"]).to_numpy(),
    )
    return int((a_wins == rows["wins_a"]).sum())


def damage(rows: pd.DataFrame, side: str, other: str) -> np.ndarray:
    """Return the damage per turn of one side's attacks."""
    physical = dex.moves().loc[rows[f"move_{side}"], "category"].to_numpy() == "physical"
    attack = np.where(physical, rows[f"{side}_attack"], rows[f"{side}_sp_attack"])
    defense = np.where(physical, rows[f"{other}_defense"], rows[f"{other}_sp_defense"])
    plain = (2 * LEVEL / 5 + 2) * rows[f"{side}_move_power"] * attack / defense / 50 + 2
    return np.maximum(plain * rows[f"{side}_move_stab"] * rows[f"{side}_move_type_mult"], formula_battles.LEAST)


def predictions(rows: pd.DataFrame, judges: np.ndarray, model: BattleWinner) -> np.ndarray:
    """Fit on the training rows and predict, for the judging rows, whether A wins."""
    X = matchup_features(model.features).both_orientations(rows)
    model.fit(X[:, ~judges], rows["wins_a"][~judges], rows["n_battles"][~judges])
    return model.predict_proba(X[:, judges])[:, 1] >= 0.5


def search(rows: pd.DataFrame, model: BattleWinner) -> dict[str, int]:
    """Return the settings of `CANDIDATES` with the highest accuracy in cross-validation by pair."""
    X, fold = matchup_features(model.features).both_orientations(rows), np.floor(N_FOLDS * pair_hashes(rows, "fold"))
    won, right = rows["wins_a"].to_numpy(), []
    for candidate in CANDIDATES:
        model.set_params(**candidate)
        right.append(0)
        for judges in (fold == number for number in range(N_FOLDS)):
            model.fit(X[:, ~judges], won[~judges], np.ones((~judges).sum()))
            right[-1] += ((model.predict_proba(X[:, judges])[:, 1] >= 0.5) == won[judges]).sum()
    return CANDIDATES[int(np.argmax(right))]


def accuracy(rows: pd.DataFrame, right: np.ndarray) -> str:
    """Return the accuracy with its interval, as text."""
    weights = species_bootstrap(rows, N_BOOTSTRAP, random_state=42)
    shares = weights @ right / weights.sum(axis=1)
    low, high = np.quantile(shares[1:], INTERVAL)
    return f"{shares[0]:.4f} [{low:.4f}, {high:.4f}]"


def held_out(rows: pd.DataFrame) -> np.ndarray:
    """Return which rows are held out to judge the models: a mask."""
    return pair_hashes(rows, "predecessor") < HELD_OUT


def report(version: str, scenarios: dict[str, pd.DataFrame], models: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield lines with the accuracy of each model: on all held-out rows, on the mapped ones, and per scenario."""
    rows = pd.concat([scenarios[name].assign(scenario=name)[COLUMNS] for name in VERSIONS[version]], ignore_index=True)
    judges = held_out(rows)
    held = rows[judges].reset_index(drop=True)
    right = {}
    for name, settings in models.items():
        right[name] = (predictions(rows, judges, BattleWinner(**settings)) == held["wins_a"]).to_numpy()
    parts = {"all": np.ones(len(held), dtype=bool), "mapped": held["mapped"].to_numpy()}
    if len(VERSIONS[version]) > 1:
        parts |= {name: (held["scenario"] == name).to_numpy() for name in VERSIONS[version]}
    for part, of_part in parts.items():
        for name, values in right.items():
            yield f"{version} | {part} | {of_part.sum()} | {name} | {accuracy(held[of_part], values[of_part])}\n"


def other_numbers(scenarios: dict[str, pd.DataFrame]) -> str:
    """List the moves with another power or priority in the game's tables: the predecessor's, and (the game's)."""
    numbers, deviations = dex.moves().assign(power=formula_battles.power())[["power", "type", "priority"]], {}
    for rows in scenarios.values():
        for side in "ab":
            distinct = rows[~rows["mapped"]].drop_duplicates(f"{side}_move_name")
            for move, theirs in zip(distinct[f"move_{side}"], _numbers(distinct, side), strict=True):
                ours = numbers.loc[move].tolist()
                if theirs.tolist() != ours:
                    deviations[move] = f"{move} {theirs[0]:g}/{theirs[2]} ({ours[0]:g}/{ours[2]})"
    return ", ".join(sorted(deviations.values()))


def main(folder: Path) -> None:
    """Print how many labels the formula reproduces, and the accuracies of the models."""
    scenarios = {name: read(folder / f"matchups_{name}.parquet") for name in SCENARIOS}
    sys.stdout.write("scenario | rows | labels that the formula gives | mapped rows\n")
    for name, rows in scenarios.items():
        sys.stdout.write(f"{name} | {len(rows)} | {agreement(rows)} | {rows['mapped'].sum()}\n")
    sys.stdout.write(f"not mapped, power/priority there (and in the game): {other_numbers(scenarios)}\n")
    settings = BattleWinner.from_params(load_params({"version": "v2"})).get_params()
    teaching = scenarios["best_move"][~held_out(scenarios["best_move"])]
    searched = search(teaching, BattleWinner(**settings | {"features": "mechanics"}))
    models = {
        "raw": settings | {"features": "raw"},
        "mechanics": settings | {"features": "mechanics"},
        f"mechanics, {searched}": settings | {"features": "mechanics"} | searched,
    }
    sys.stdout.write("version | held out | rows | features | accuracy\n")
    for version in VERSIONS:
        for line in report(version, scenarios, models):
            sys.stdout.write(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
