"""Battle sets: matchups with the wins that the engine counted, checked at every load.

A set that the engine fought is a folder of `data/battles` with two Parquet files and a manifest: `battles.parquet`
holds every matchup with its battles of the stream "training", `evaluation.parquet` the matchups that only judge, with
more battles, of the stream "evaluation". The sets of `formula` are computed when they are loaded.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from pokebattle import dex, formula, splits
from pokebattle.battles import MATCHUP

FOLDER = Path(__file__).parent / "data" / "battles"
STREAMS = {"battles.parquet": "training", "evaluation.parquet": "evaluation"}
LABELS = {"wins_a": "int16", "n_battles": "int16", "turns": "float32"}
COLUMNS = [*MATCHUP, *LABELS]


class DatasetError(ValueError):
    """A battle set is missing, damaged, or not what its manifest says."""


@dataclass(frozen=True)
class BattleSet:
    """A checked battle set.

    Attributes
    ----------
    name : str
        The version, e.g. "v3".
    digest : str
        16 hexadecimal digits that identify the battles and the number of matchups kept.
    manifest : dict
        Where the battles come from: engine, conditions, policy, seeds; rows, n_battles and sha256 of each file. Or the
        formula.
    training, evaluation : DataFrame
        Columns species_a, species_b, move_a, move_b, policy, wins_a (0 to n_battles), n_battles and, of the engine's
        battles, turns (mean length, a result like wins_a and no feature). No unordered pair of species is in both.
    """

    name: str
    digest: str
    manifest: dict[str, Any]
    training: pd.DataFrame
    evaluation: pd.DataFrame


def load_battles(name: str, max_matchups: int = 0, *, by_engine: bool = False, folder: Path = FOLDER) -> BattleSet:
    """Load a battle set and check it against its manifest.

    Parameters
    ----------
    name : str
        A folder in `folder`, e.g. "v3", or a set of `formula`.
    max_matchups : int, default 0
        Keep this many matchups of the set, training and evaluation in the set's own proportion; 0 keeps all.
        Smaller numbers are subsets of larger ones: matchups are taken in the order of a hash of their pair.
    by_engine : bool, default False
        Take only a set that the engine fought.
    folder : Path
        Where battle sets are.

    Raises
    ------
    DatasetError
        If there is no such set, or a file is missing, changed or malformed.
    """
    if by_engine and name in formula.SCENARIOS:
        raise DatasetError(f"dataset: expected battles that the engine fought, as in v3, got {name!r}, which a formula "
                           "decides")
    if max_matchups < 0:
        raise DatasetError(f"max_matchups: expected 0 (all) or more, got {max_matchups}")
    manifest, battles, evaluation, hashes = _computed(name) if name in formula.SCENARIOS else _stored(name, folder)
    judged = set(splits.pair_ids(evaluation))
    battles = splits.subset(battles, max_matchups)
    evaluation = evaluation[splits.pair_ids(evaluation).isin(splits.pair_ids(battles))]
    training = battles[~splits.pair_ids(battles).isin(judged)]
    splits.check_disjoint(training, evaluation)
    return BattleSet(
        name=name,
        digest=sha256("/".join([*hashes, str(max_matchups)]).encode()).hexdigest()[:16],
        manifest=manifest,
        training=training.reset_index(drop=True),
        evaluation=evaluation.reset_index(drop=True),
    )


def _stored(name: str, folder: Path) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame, list[str]]:
    """Read manifest, all battles, those that judge, and the files' hashes."""
    manifest = _manifest(name, folder)
    battles, evaluation = (_read(folder / name / file, manifest) for file in STREAMS)
    if unknown := set(splits.pair_ids(evaluation)) - set(splits.pair_ids(battles)):
        raise DatasetError(f"{name}/evaluation.parquet: {len(unknown)} pairs are not in battles.parquet, "
                           f"e.g. {min(unknown)}")
    return manifest, battles, evaluation, [manifest["files"][file]["sha256"] for file in STREAMS]


def _computed(name: str) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame, list[str]]:
    """Compute a set of the formula, which sets the same pairs aside as the engine's battles do."""
    battles = formula.battles(name)
    digest = sha256(pd.util.hash_pandas_object(battles, index=False).to_numpy().tobytes()).hexdigest()
    manifest = {"name": name, "formula": formula.SOURCE, "scenarios": formula.SCENARIOS[name], "seed": formula.SEED,
                "rows": len(battles), "sha256": digest}  # fmt: skip
    return manifest, battles, battles[splits.evaluation_pairs(battles)], [digest]


def write_battles(folder: Path, battles: pd.DataFrame, evaluation: pd.DataFrame, origin: Mapping[str, Any]) -> Path:
    """Write a battle set in the committed format.

    Parameters
    ----------
    folder : Path
        The folder of the set; its last part is the set's name.
    battles, evaluation : DataFrame
        Every matchup with its battles of the training stream, and the ones set aside with those of the other.
    origin : mapping
        What the manifest says about where the battles come from.

    Returns
    -------
    Path
        The manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for file, table in zip(STREAMS, (battles, evaluation), strict=True):
        typed = table[COLUMNS].astype(dict.fromkeys(MATCHUP, "category")).astype(LABELS)
        typed.to_parquet(folder / file, index=False, compression="zstd")
        files[file] = {
            "stream": STREAMS[file],
            "rows": len(table),
            "n_battles": int(table["n_battles"].min()) if len(table) else 0,
            "sha256": sha256((folder / file).read_bytes()).hexdigest(),
        }
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"name": folder.name, **origin, "files": files}, indent=2) + "\n")
    return manifest


def compare(fought: pd.DataFrame, committed: pd.DataFrame) -> pd.DataFrame:
    """Put the wins of newly fought matchups beside the ones of a battle set.

    Returns
    -------
    DataFrame
        The matchups that both have: the matchup's columns, wins_a, n_battles, and wins_committed, n_committed.

    Raises
    ------
    DatasetError
        If a matchup was fought as often as in the set and the wins differ: then engine or seeds have changed.
    """
    known = committed.set_index(MATCHUP)[["wins_a", "n_battles"]]
    known.columns = pd.Index(["wins_committed", "n_committed"])
    both = fought[[*MATCHUP, "wins_a", "n_battles"]].join(known, on=MATCHUP, how="inner")
    differs = (both["n_battles"] == both["n_committed"]) & (both["wins_a"] != both["wins_committed"])
    if differs.any():
        row = both[differs].iloc[0]
        raise DatasetError(f"{differs.sum()} of {len(both)} matchups do not repeat the set's battles, e.g. "
                           f"{row['species_a']} against {row['species_b']}: wins_a expected "
                           f"{row['wins_committed']}, got {row['wins_a']}")
    return both


def _manifest(name: str, folder: Path) -> dict[str, Any]:
    path = folder / name / "manifest.json"
    if not path.exists():
        known = sorted([*formula.SCENARIOS, *(found.parent.name for found in folder.glob("*/manifest.json"))])
        near = get_close_matches(name, known, n=1, cutoff=0.4)
        raise DatasetError(f"dataset: unknown, got {name!r}; expected one of {', '.join(known)}"
                           + (f"; did you mean {near[0]}?" if near else ""))
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DatasetError(f"{name}/manifest.json: expected JSON, got {error}") from error
    for file in STREAMS:
        for key in ("rows", "n_battles", "sha256"):
            if key not in manifest.get("files", {}).get(file, {}):
                raise DatasetError(f"{name}/manifest.json: expected files.{file}.{key}, got nothing")
    return manifest


def _read(path: Path, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """Read one file of a set, after its sha256 and before its values are checked."""
    where, expected = f"{path.parent.name}/{path.name}", manifest["files"][path.name]
    if not path.exists():
        raise DatasetError(f"{where}: the manifest names it, and it is missing")
    if (found := sha256(path.read_bytes()).hexdigest()) != expected["sha256"]:
        raise DatasetError(f"{where}: sha256 expected {expected['sha256'][:12]}…, got {found[:12]}…: "
                           "the file is not the one that the manifest describes")
    table = pd.read_parquet(path)
    if list(table.columns) != COLUMNS:
        raise DatasetError(f"{where}: columns expected {', '.join(COLUMNS)}, got {', '.join(table.columns)}")
    if len(table) != expected["rows"]:
        raise DatasetError(f"{where}: rows expected {expected['rows']}, got {len(table)}")
    table = table.astype(dict.fromkeys(MATCHUP, "str")).astype({"wins_a": "int64", "n_battles": "int64"})
    for problem, rows in _problems(table, expected["n_battles"]).items():
        if rows.any():
            row = table[rows].iloc[0]
            raise DatasetError(f"{where}: {problem} in {rows.sum()} rows, e.g. {' '.join(map(str, row))}")
    return table


def _problems(table: pd.DataFrame, n_battles: int) -> dict[str, pd.Series]:
    """Name what no row may be, with the rows that are."""
    species, moves = dex.species().index, dex.moves().index
    return {
        "unknown species": ~(table["species_a"].isin(species) & table["species_b"].isin(species)),
        "unknown move": ~(table["move_a"].isin(moves) & table["move_b"].isin(moves)),
        "species_a not before species_b": table["species_a"] >= table["species_b"],
        f"n_battles below {n_battles}": table["n_battles"] < n_battles,
        "wins_a outside 0 to n_battles": ~table["wins_a"].between(0, table["n_battles"]),
        "a matchup twice": table.duplicated(MATCHUP),
    }
