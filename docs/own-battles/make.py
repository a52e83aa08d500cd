"""Writes species.csv and battles.csv: an invented league, for params/own.yaml to be trained on.

Forty creatures with six types of their own fight 1,500 battles. Who wins is a matter of stats, types and luck; the rule
is below, and no part of the files.
"""

import csv
from pathlib import Path

import numpy as np

TYPES = ["Fajro", "Herbo", "Ŝtono", "Vento", "Lumo", "Ombro"]  # each beats the next, the last one the first
ONSETS, ENDINGS = ["Bra", "Fli", "Go", "Kru", "Mil", "Nor", "Pe", "Ŝu", "Tal", "Vi"], ["dino", "lumo", "rako", "zeto"]
FOLDER = Path(__file__).parent


def main() -> None:
    rng = np.random.default_rng(7)
    names = [onset + ending for onset in ONSETS for ending in ENDINGS]
    stats = rng.integers(30, 111, (len(names), 4))  # Vivo, Forto, Ŝirmo, Rapido
    types = [rng.choice(len(TYPES), rng.integers(1, 3), replace=False) for _ in names]
    weights = np.round(rng.uniform(0.4, 90, len(names)), 1)  # decides nothing
    species = [
        [f"K{number:02}", name, TYPES[own[0]], TYPES[own[1]] if len(own) == 2 else "", *numbers, comma(weight)]
        for number, (name, own, numbers, weight) in enumerate(zip(names, types, stats, weights, strict=True), 1)
    ]
    write("species.csv", ["Nr", "Nomo", "Speco", "Dua speco", "Vivo", "Forto", "Ŝirmo", "Rapido", "Pezo"], species)

    battles = []
    for _ in range(1_500):
        a, b = rng.choice(len(names) - 1, 2, replace=False)  # the last one never fights
        margin = strike(stats[a], types[a], stats[b], types[b]) - strike(stats[b], types[b], stats[a], types[a])
        margin += 0.4 * np.sign(stats[a][3] - stats[b][3])
        battles.append([names[a], names[b], names[a if rng.logistic() < 2.5 * margin else b]])
    for number in (311, 872):
        battles[number][2] = ""  # broken off
    write("battles.csv", ["Unua", "Dua", "Venkinto"], battles)


def strike(own: np.ndarray, own_types: np.ndarray, other: np.ndarray, other_types: np.ndarray) -> float:
    """Logarithm of strength over shield and life of the other, with an advantage for each type that beats one."""
    beats = sum((attacking + 1) % len(TYPES) == defending for attacking in own_types for defending in other_types)
    return float(np.log(own[1] / (other[2] * other[0] ** 0.5)) + 0.5 * beats)


def comma(number: float) -> str:
    return str(number).replace(".", ",")


def write(name: str, headers: list[str], rows: list[list[object]]) -> None:
    with (FOLDER / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";", lineterminator="\n").writerows([headers, *rows])


if __name__ == "__main__":
    main()
