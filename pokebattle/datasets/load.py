"""Battle sets: matchups with their wins, divided into three parts by a protocol, and checked whenever they are loaded.

A set fought by the engine is a folder in `data/battles` with a manifest and Parquet files. `training`, `test` and
`gate` contain the matchups and the results of the stream of the same name. `protocols` contains, for every pair of
species, its part under each protocol of `splits`. The sets of `formula_battles` are computed when they are loaded. The
set "tables" is read from your own CSV files.

Loading returns only the training part. The test part and the gate part are returned by `open_part`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pokebattle.datasets import formula_battles, leaks, splits
from pokebattle.datasets.own_battles import OwnBattles, read
from pokebattle.errors import UserError, did_you_mean
from pokebattle.game import dex
from pokebattle.game.matchups import MATCHUP, RANDOM
from pokebattle.hooks import BATTLES_LOADED, PART_OPENED, publish
from pokebattle.params import Tables

FOLDER = Path(__file__).parents[1] / "data" / "battles"
STREAMS = ("training", "test", "gate")
PROTOCOLS = "protocols.parquet"
LABELS = {"wins_a": "int16", "n_battles": "int16", "turns": "float32"}
COLUMNS = [*MATCHUP, *LABELS]
PAIR = ["species_a", "species_b"]
OWN = "tables"
FEWEST = {"train": 20, "test": 10}  # pairs of your own battles: fewer are not enough to train or to evaluate
NO_MOVES = "there are no moves: features are stats and types; no mechanics, no simulation and no damage race"


class DatasetError(UserError, ValueError):
    """A battle set is unknown, damaged, or differs from its manifest."""


@dataclass(frozen=True)
class BattleSet:
    """A checked battle set under one protocol.

    Attributes
    ----------
    name : str
        The version, e.g. "v3".
    protocol : str
        One of `splits.PROTOCOLS`.
    digest : str
        16 hexadecimal digits that identify the battles, the protocol and the number of matchups kept.
    manifest : dict
        The origin of the battles. For the engine: its version, conditions and seeds, and rows and sha256 of each file.
        Otherwise the formula, or your own files.
    families : Series
        Index species id, values the family. Under the unseen protocols a family is held out as a whole.
    training : DataFrame
        The training part. Columns species_a, species_b, move_a, move_b, policy, wins_a (0 to n_battles), n_battles and,
        for the engine's battles, turns (mean length; a result like wins_a, not a feature). Your own battles have no
        moves and no policy.
    species : DataFrame, optional
        The species of your own battles, see `own_battles.OwnBattles`; None for the species of the game.
    notes : tuple of str
        Remarks for the reader, one line each.
    """

    name: str
    protocol: str
    digest: str
    manifest: dict[str, Any]
    families: pd.Series = field(repr=False)
    training: pd.DataFrame = field(repr=False)
    _sealed: dict[str, pd.DataFrame] = field(repr=False)
    species: pd.DataFrame | None = field(default=None, repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)

    def sizes(self) -> pd.DataFrame:
        """Return the sizes of the parts: index part and policy, columns pairs, matchups, battles, battles_each.

        battles_each is the median number of battles of a matchup.
        """
        counts = {}
        for part, table in {"train": self.training, **self._sealed}.items():
            policies = table["policy"] if "policy" in table else np.full(len(table), "own")
            for policy, rows in table.groupby(policies, sort=False):
                n = rows["n_battles"]
                counts[part, policy] = (len(splits.distinct_pairs(rows)[0]), len(rows), n.sum(), n.median())
        columns = ["pairs", "matchups", "battles", "battles_each"]
        return pd.DataFrame(counts, index=columns).T.astype(int).rename_axis(["part", "policy"])

    def named(self, matchups: pd.DataFrame) -> pd.DataFrame:
        """Replace the ids of your own species by names, for display: `name (id)`.

        Parameters
        ----------
        matchups : DataFrame
            Columns species_a and species_b (ids).

        Returns
        -------
        DataFrame
            Unchanged for species of the game.
        """
        if self.species is None:
            return matchups
        names = self.species["name"]
        texts = names.where(names == names.index, names + " (" + names.index + ")")
        return matchups.assign(**{column: matchups[column].map(texts) for column in ("species_a", "species_b")})


def load_battles(
    name: str,
    protocol: str = "pair",
    max_matchups: int = 0,
    max_judging_pairs: int = 0,
    *,
    tables: Tables | None = None,
    by_engine: bool = False,
    folder: Path = FOLDER,
) -> BattleSet:
    """Load a battle set, check it against its manifest, and check its parts for leaks.

    Parameters
    ----------
    name : str
        A folder in `folder`, e.g. "v3"; "v1" or "v2" (see `formula_battles`); or "tables" for your own files.
    protocol : {"pair", "one_unseen", "both_unseen"}
        What the test and gate parts hold out, see `splits`.
    max_matchups : int, default 0
        Number of matchups of the training part to keep; 0 keeps all. Matchups are selected in the order of a hash of
        their pair, so a smaller selection is a subset of a larger one.
    max_judging_pairs : int, default 0
        Number of pairs to keep, with all their matchups, in the test part and in the gate part; selected likewise.
    tables : Tables, optional
        The files of "tables" and the meaning of their columns.
    by_engine : bool, default False
        Accept only sets fought by the engine.
    folder : Path
        Folder of the stored battle sets.

    Raises
    ------
    DatasetError
        If the set or the protocol is unknown, a limit is below 0, a file is missing, changed or malformed, `tables` is
        missing, or your own files contain too few pairs.
    csv_reader.TablesError
        If your own files cannot be used.
    splits.LeakError
        As in `leaks.check_parts`.
    """
    if by_engine:
        _check_engine(name)
    if protocol not in splits.PROTOCOLS:
        raise DatasetError(f"protocol: unknown, got {protocol!r}; expected one of {', '.join(splits.PROTOCOLS)}")
    for limit, number in (("max_matchups", max_matchups), ("max_judging_pairs", max_judging_pairs)):
        if number < 0:
            raise DatasetError(f"{limit}: expected 0 (all) or more, got {number}")
    own = _own(tables) if name == OWN else None
    groups = own.species["family"] if own else families()
    if own:
        manifest, parts, hashes = _divided(own, protocol)
    else:
        computed = name in formula_battles.SCENARIOS
        manifest, parts, hashes = _computed(name, protocol) if computed else _stored(name, protocol, folder)
    parts = {
        part: splits.subset(rows, max_matchups) if part == "train" else splits.subset_of_pairs(rows, max_judging_pairs)
        for part, rows in parts.items()
    }
    leaks.check_parts(parts, protocol, groups)
    battle_set = BattleSet(
        name=name,
        protocol=protocol,
        digest=_digest(*hashes, protocol, max_matchups, max_judging_pairs),
        manifest=manifest,
        families=groups,
        training=parts.pop("train").reset_index(drop=True),
        _sealed={part: rows.reset_index(drop=True) for part, rows in parts.items()},
        species=own.species if own else None,
        notes=(*own.notes, NO_MOVES) if own else (),
    )
    publish(BATTLES_LOADED, battle_set)
    return battle_set


def open_part(battle_set: BattleSet, part: str) -> pd.DataFrame:
    """Return the test part or the gate part. In a tracked execution, the run records that it was opened.

    Parameters
    ----------
    battle_set : BattleSet
    part : {"test", "gate"}
        "test" evaluates finished models and must not be used to choose between them; "gate" is for promotion.

    Returns
    -------
    DataFrame
        Columns as in `BattleSet.training`. The engine fights these matchups more often than those of the training part.

    Raises
    ------
    DatasetError
        If there is no such part.
    """
    if part not in battle_set._sealed:
        raise DatasetError(f"part: expected one of {', '.join(battle_set._sealed)}, got {part!r}")
    opened = battle_set._sealed[part].copy()
    publish(PART_OPENED, battle_set, part, len(opened))
    return opened


def families() -> pd.Series:
    """Return the family of every species of the game: its evolution line, including Mega, Alolan and partner forms."""
    return dex.species()["evolution_line"]


def stored_battles(name: str, folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """Return all matchups of a set fought by the engine, by stream. Use them to fight them again, not to evaluate.

    Parameters
    ----------
    name : str
        For example "v3".
    folder : Path
        Folder of the stored battle sets.

    Returns
    -------
    dict of str to DataFrame
        For "training", "test" and "gate".

    Raises
    ------
    DatasetError
        If the engine did not fight this set, or a file is missing, changed or malformed.
    """
    _check_engine(name)
    manifest = _manifest(name, folder)
    return {stream: _read(folder / name / f"{stream}.parquet", manifest) for stream in STREAMS}


def _stored(name: str, protocol: str, folder: Path) -> tuple[dict[str, Any], dict[str, pd.DataFrame], list[str]]:
    """Read a stored set: return its manifest, its parts under a protocol, and the hashes of its files."""
    manifest = _manifest(name, folder)
    protocols = _parquet(folder / name / PROTOCOLS, manifest).astype("str")
    expected = splits.assign(protocols[PAIR], protocol, families())
    if (moved := protocols[protocol] != expected).any():
        row = protocols[moved].iloc[0]
        raise DatasetError(
            f"{name}/{PROTOCOLS}: {protocol} assigns {moved.sum()} pairs to other parts than splits.assign, "
            f"e.g. {row['species_a']} against {row['species_b']}"
        )
    part_of = pd.Series(protocols[protocol].to_numpy(), index=splits.pair_ids(protocols))
    parts = {}
    for part, stream in zip(splits.PARTS, STREAMS, strict=True):
        rows = _read(folder / name / f"{stream}.parquet", manifest)
        belongs = splits.pair_ids(rows).map(part_of)
        if (unknown := belongs.isna()).any():
            raise DatasetError(
                f"{name}/{stream}.parquet: {unknown.sum()} matchups are of pairs that are not in "
                f"{PROTOCOLS}, e.g. {splits.pair_ids(rows)[unknown].iloc[0]}"
            )
        parts[part] = rows[belongs == part]
    return manifest, parts, [manifest["files"][file]["sha256"] for file in _files()]


def _computed(name: str, protocol: str) -> tuple[dict[str, Any], dict[str, pd.DataFrame], list[str]]:
    """Compute a set of the formula. Its pairs belong to the same parts as in the engine's sets."""
    rows = formula_battles.battles(name)
    digest = sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes()).hexdigest()
    manifest = {
        "name": name,
        "formula": formula_battles.SOURCE,
        "scenarios": formula_battles.SCENARIOS[name],
        "seed": formula_battles.SEED,
        "rows": len(rows),
        "sha256": digest,
    }
    distinct, pair = splits.distinct_pairs(rows)
    pairs = pd.DataFrame([names.split("|") for names in distinct], columns=PAIR)
    part = splits.assign(pairs, protocol, families()).to_numpy()[pair]
    return manifest, {name: rows[part == name] for name in splits.PARTS}, [digest]


def _own(tables: Tables | None) -> OwnBattles:
    if tables is None:
        raise DatasetError(
            f"tables: expected two files and the mapping of their columns, as dataset is {OWN}, got none"
        )
    return read(tables)


def _divided(own: OwnBattles, protocol: str) -> tuple[dict[str, Any], dict[str, pd.DataFrame], list[str]]:
    """Divide your own battles into parts. Only pairs that fought count as pairs."""
    part = splits.assign(own.battles, protocol, own.species["family"])
    parts = {name: own.battles[part == name] for name in splits.PARTS}
    for name in ("train", "test"):
        if len(parts[name]) < FEWEST[name]:
            raise DatasetError(
                f"{list(own.files)[1]}: expected at least {FEWEST[name]} pairs of species in the {name} "
                f"part under the protocol {protocol}, got {len(parts[name])} of {len(own.battles)}"
            )
    hashes = [
        sha256(pd.util.hash_pandas_object(table).to_numpy().tobytes()).hexdigest()
        for table in (own.species.sort_index(), own.battles)
    ]
    manifest = {
        "name": OWN,
        "species": len(own.species),
        "pairs": len(own.battles),
        "battles": int(own.battles["n_battles"].sum()),
        "files": own.files,
        "notes": list(own.notes),
    }
    return manifest, parts, hashes


def _digest(*parts: object) -> str:
    return sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]


def _check_engine(name: str) -> None:
    """Raise a DatasetError for sets that the engine did not fight."""
    if name in (*formula_battles.SCENARIOS, OWN):
        decides = "come from your own files" if name == OWN else "a formula decides"
        raise DatasetError(f"dataset: expected battles that the engine fought, as in v3, got {name!r}, which {decides}")


def _files() -> list[str]:
    return [f"{stream}.parquet" for stream in STREAMS] + [PROTOCOLS]


def _manifest(name: str, folder: Path) -> dict[str, Any]:
    path = folder / name / "manifest.json"
    if not path.exists():
        known = sorted([*formula_battles.SCENARIOS, *(file.parent.name for file in folder.glob("*/manifest.json"))])
        raise DatasetError(
            f"dataset: unknown, got {name!r}; expected one of {', '.join(known)}{did_you_mean(name, known, 0.4)}"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DatasetError(f"{name}/manifest.json: expected JSON, got {error}") from error
    for file in _files():
        for key in ("rows", "sha256"):
            if key not in manifest.get("files", {}).get(file, {}):
                raise DatasetError(f"{name}/manifest.json: expected files.{file}.{key}, got nothing")
    return manifest


def _parquet(path: Path, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """Read one file of a set and check its sha256 and its number of rows."""
    where, expected = f"{path.parent.name}/{path.name}", manifest["files"][path.name]
    if not path.exists():
        raise DatasetError(f"{where}: the file is missing, but the manifest lists it")
    if (digest := sha256(path.read_bytes()).hexdigest()) != expected["sha256"]:
        raise DatasetError(
            f"{where}: sha256 expected {expected['sha256'][:12]}…, got {digest[:12]}…: "
            "the manifest describes another file"
        )
    table = pd.read_parquet(path)
    if len(table) != expected["rows"]:
        raise DatasetError(f"{where}: rows expected {expected['rows']}, got {len(table)}")
    return table


def _read(path: Path, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """Read the matchups of one stream and check their values."""
    where, table = f"{path.parent.name}/{path.name}", _parquet(path, manifest)
    if list(table.columns) != COLUMNS:
        raise DatasetError(f"{where}: columns expected {', '.join(COLUMNS)}, got {', '.join(table.columns)}")
    table = table.astype(dict.fromkeys(MATCHUP, "str")).astype({"wins_a": "int64", "n_battles": "int64"})
    for problem, rows in _problems(table).items():
        if rows.any():
            row = table[rows].iloc[0]
            raise DatasetError(f"{where}: {problem} in {rows.sum()} rows, e.g. {' '.join(map(str, row))}")
    return table


def _problems(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Return a mask of the invalid rows for each kind of problem."""
    species, moves = dex.species().index, [*dex.moves().index, RANDOM]
    return {
        "unknown species": ~(table["species_a"].isin(species) & table["species_b"].isin(species)),
        "unknown move": ~(table["move_a"].isin(moves) & table["move_b"].isin(moves)),
        "species_a not before species_b": table["species_a"] >= table["species_b"],
        "n_battles below 1": table["n_battles"] < 1,
        "wins_a outside 0 to n_battles": ~table["wins_a"].between(0, table["n_battles"]),
        "a matchup twice": table.duplicated(MATCHUP),
    }
