"""Battle sets: matchups with their wins, in three parts by a stored protocol, checked at every load.

A set that the engine fought is a folder of `data/battles` with a manifest and Parquet files: `training`, `test` and
`gate` hold matchups with their battles of the stream of the same name, `protocols` says for every pair of species which
part it belongs to under each protocol of `splits`. The sets of `formula` are computed when they are loaded, and those
of `tables` are read from files of one's own.

Loading hands out the train part alone. What judges is sealed until `open_part`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pokebattle import battles, dex, formula, leaks, splits
from pokebattle.battles import MATCHUP, RANDOM
from pokebattle.params import Tables
from pokebattle.tables import OwnBattles, read

FOLDER = Path(__file__).parent / "data" / "battles"
STREAMS = ("training", "test", "gate")
PROTOCOLS = "protocols.parquet"
LABELS = {"wins_a": "int16", "n_battles": "int16", "turns": "float32"}
COLUMNS = [*MATCHUP, *LABELS]
PAIR = ["species_a", "species_b"]
# How often the engine fights a matchup of each policy, and how many moves are given to a side: v3's recipe.
N_BATTLES = {
    "training": {"best_move": 20, "random_move": 10, "given_move": 5},
    "test": {"best_move": 400, "random_move": 100, "given_move": 100},
    "gate": {"best_move": 200, "random_move": 100, "given_move": 50},
}
N_GIVEN = {"training": 5, "test": 1, "gate": 1}
OWN = "tables"
FEWEST = {"train": 20, "test": 10}  # pairs of one's own: fewer teach nothing, and judge nothing
NO_MOVES = "there are no moves: features are stats and types; no mechanics, no simulation and no damage race"


class DatasetError(ValueError):
    """A battle set is missing, damaged, or not what its manifest says."""


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
        Where the battles come from: engine, conditions, seeds; rows and sha256 of each file. Or the formula, or files
        of one's own.
    families : Series
        Index species id; species with one value stay together where a protocol holds species back.
    training : DataFrame
        The train part. Columns species_a, species_b, move_a, move_b, policy, wins_a (0 to n_battles), n_battles and, of
        the engine's battles, turns (mean length, a result like wins_a and no feature). Battles of one's own have no
        moves and no policy.
    species : DataFrame, optional
        Of battles of one's own: their species, see `tables.OwnBattles`.
    notes : tuple of str
        What a reader should know, a line each.
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
        """Return how much each part holds: index part and policy, columns pairs, matchups, battles, battles_each."""
        counts = {}
        for part, table in {"train": self.training, **self._sealed}.items():
            policies = table["policy"] if "policy" in table else np.full(len(table), "own")
            for policy, rows in table.groupby(policies, sort=False):
                n = rows["n_battles"]
                counts[part, policy] = (len(splits.distinct_pairs(rows)[0]), len(rows), n.sum(), n.median())
        columns = ["pairs", "matchups", "battles", "battles_each"]
        return pd.DataFrame(counts, index=columns).T.astype(int).rename_axis(["part", "policy"])

    def named(self, matchups: pd.DataFrame) -> pd.DataFrame:
        """Return matchups for readers: species of one's own, which are told by ids, with their names before these."""
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
    """Load a battle set, check it against its manifest, and check that its parts share nothing.

    Parameters
    ----------
    name : str
        A folder in `folder`, e.g. "v3", or a set of `formula`, or "tables".
    protocol : {"pair", "one_unseen", "both_unseen"}
        What the parts that judge hold back, see `splits`.
    max_matchups : int, default 0
        Keep this many matchups of the train part; 0 keeps all. Smaller numbers are subsets of larger ones: matchups
        are taken in the order of a hash of their pair.
    max_judging_pairs : int, default 0
        Keep the matchups of this many pairs in each of the other parts, likewise.
    tables : Tables, optional
        Which files "tables" are, and what their columns mean.
    by_engine : bool, default False
        Take only a set that the engine fought.
    folder : Path
        Where battle sets are.

    Raises
    ------
    DatasetError
        If there is no such set, or a file is missing, changed or malformed.
    sheets.TablesError
        If files of one's own cannot be used.
    splits.LeakError
        If the parts share a pair, or a family that was to be unseen.
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
        computed = name in formula.SCENARIOS
        manifest, parts, hashes = _computed(name, protocol) if computed else _stored(name, protocol, folder)
    parts = {
        part: splits.subset(rows, max_matchups) if part == "train" else splits.subset_of_pairs(rows, max_judging_pairs)
        for part, rows in parts.items()
    }
    leaks.check_parts(parts, protocol, groups)
    return BattleSet(
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


def open_part(battle_set: BattleSet, part: str) -> pd.DataFrame:
    """Hand out a part that judges; a tracked execution says on its run that it was opened.

    Parameters
    ----------
    battle_set : BattleSet
    part : {"test", "gate"}
        "test" judges finished models, and nothing is chosen by it; "gate" is for promotion.

    Returns
    -------
    DataFrame
        Matchups as in `BattleSet.training`, with more battles each.

    Raises
    ------
    DatasetError
        If there is no such part.
    """
    if part not in battle_set._sealed:
        raise DatasetError(f"part: expected one of {', '.join(battle_set._sealed)}, got {part!r}")
    return battle_set._sealed[part].copy()


def families() -> pd.Series:
    """Return the evolution line of every species of the game, which its Mega, Alolan and partner forms share."""
    return dex.species()["evolution_line"]


def stored_battles(name: str, folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """Return all matchups of a set that the engine fought, by stream: to fight them again, not to judge by them."""
    _check_engine(name)
    manifest = _manifest(name, folder)
    return {stream: _read(folder / name / f"{stream}.parquet", manifest) for stream in STREAMS}


def to_fight(stream: str) -> pd.DataFrame:
    """Return the matchups that the engine fights for a stream of v3: all pairs teach, under one protocol or another.

    Parameters
    ----------
    stream : {"training", "test", "gate"}

    Returns
    -------
    DataFrame
        The matchup's columns and n_battles; of the streams that judge, the pairs that judge under some protocol.
    """
    pairs, kin = battles.pairs(), families()
    part = splits.PARTS[STREAMS.index(stream)]
    fights = np.any([splits.assign(pairs, protocol, kin) == part for protocol in splits.PROTOCOLS], axis=0)
    wanted = pairs if part == "train" else pairs[fights]
    tables = [
        battles.matchups(policy, N_GIVEN[stream]).merge(wanted, on=PAIR).assign(n_battles=n_battles)
        for policy, n_battles in N_BATTLES[stream].items()
    ]
    return pd.concat(tables, ignore_index=True)


def _stored(name: str, protocol: str, folder: Path) -> tuple[dict[str, Any], dict[str, pd.DataFrame], list[str]]:
    """Read manifest, the parts under a protocol, and the files' hashes."""
    manifest = _manifest(name, folder)
    protocols = _parquet(folder / name / PROTOCOLS, manifest).astype("str")
    expected = splits.assign(protocols[PAIR], protocol, families())
    if (moved := protocols[protocol] != expected).any():
        row = protocols[moved].iloc[0]
        raise DatasetError(f"{name}/{PROTOCOLS}: {protocol} puts {moved.sum()} pairs elsewhere than splits.assign, "
                           f"e.g. {row['species_a']} against {row['species_b']}")
    part_of = pd.Series(protocols[protocol].to_numpy(), index=splits.pair_ids(protocols))
    parts = {}
    for part, stream in zip(splits.PARTS, STREAMS, strict=True):
        rows = _read(folder / name / f"{stream}.parquet", manifest)
        belongs = splits.pair_ids(rows).map(part_of)
        if (unknown := belongs.isna()).any():
            raise DatasetError(f"{name}/{stream}.parquet: {unknown.sum()} matchups are of pairs that are not in "
                               f"{PROTOCOLS}, e.g. {splits.pair_ids(rows)[unknown].iloc[0]}")
        parts[part] = rows[belongs == part]
    return manifest, parts, [manifest["files"][file]["sha256"] for file in _files()]


def _computed(name: str, protocol: str) -> tuple[dict[str, Any], dict[str, pd.DataFrame], list[str]]:
    """Compute a set of the formula, whose pairs belong to the same parts as the engine's."""
    rows = formula.battles(name)
    digest = sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes()).hexdigest()
    manifest = {"name": name, "formula": formula.SOURCE, "scenarios": formula.SCENARIOS[name], "seed": formula.SEED,
                "rows": len(rows), "sha256": digest}  # fmt: skip
    distinct, pair = splits.distinct_pairs(rows)
    pairs = pd.DataFrame([names.split("|") for names in distinct], columns=PAIR)
    part = splits.assign(pairs, protocol, families()).to_numpy()[pair]
    return manifest, {name: rows[part == name] for name in splits.PARTS}, [digest]


def _own(tables: Tables | None) -> OwnBattles:
    if tables is None:
        raise DatasetError(f"tables: expected two files and what their columns mean, as dataset is {OWN}, got none")
    return read(tables)


def _divided(own: OwnBattles, protocol: str) -> tuple[dict[str, Any], dict[str, pd.DataFrame], list[str]]:
    """Divide battles of one's own: the pairs that fought are the pairs that there are."""
    part = splits.assign(own.battles, protocol, own.species["family"])
    parts = {name: own.battles[part == name] for name in splits.PARTS}
    for name in ("train", "test"):
        if len(parts[name]) < FEWEST[name]:
            raise DatasetError(f"{list(own.files)[1]}: expected at least {FEWEST[name]} pairs of species in the {name} "
                               f"part under the protocol {protocol}, got {len(parts[name])} of {len(own.battles)}")
    hashes = [sha256(pd.util.hash_pandas_object(table).to_numpy().tobytes()).hexdigest()
              for table in (own.species.sort_index(), own.battles)]  # fmt: skip
    manifest = {"name": OWN, "species": len(own.species), "pairs": len(own.battles),
                "battles": int(own.battles["n_battles"].sum()), "files": own.files,
                "notes": list(own.notes)}  # fmt: skip
    return manifest, parts, hashes


def write_battles(
    folder: Path, streams: Mapping[str, pd.DataFrame], pairs: pd.DataFrame, origin: Mapping[str, Any]
) -> Path:
    """Write a battle set in the committed format, with the parts of its pairs under every protocol.

    Parameters
    ----------
    folder : Path
        The folder of the set; its last part is the set's name.
    streams : mapping of str to DataFrame
        The fought matchups of "training", "test" and "gate".
    pairs : DataFrame
        species_a and species_b of every unordered pair that there is, fought here or not: the protocols draw from them.
    origin : mapping
        What the manifest says about where the battles come from.

    Returns
    -------
    Path
        The manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    protocols = pairs[PAIR].assign(**{name: splits.assign(pairs, name, families()) for name in splits.PROTOCOLS})
    tables = {f"{stream}.parquet": streams[stream][COLUMNS].astype(LABELS) for stream in STREAMS}
    tables[PROTOCOLS] = protocols
    files = {}
    for file, table in tables.items():
        text = table.columns.difference(list(LABELS))
        table.astype(dict.fromkeys(text, "category")).to_parquet(folder / file, index=False, compression="zstd")
        files[file] = {"rows": len(table), "sha256": sha256((folder / file).read_bytes()).hexdigest()}
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


def _digest(*parts: object) -> str:
    return sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]


def _check_engine(name: str) -> None:
    """Refuse what the engine did not fight."""
    if name in (*formula.SCENARIOS, OWN):
        decides = "files of one's own tell" if name == OWN else "a formula decides"
        raise DatasetError(f"dataset: expected battles that the engine fought, as in v3, got {name!r}, which {decides}")


def _files() -> list[str]:
    return [f"{stream}.parquet" for stream in STREAMS] + [PROTOCOLS]


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
    for file in _files():
        for key in ("rows", "sha256"):
            if key not in manifest.get("files", {}).get(file, {}):
                raise DatasetError(f"{name}/manifest.json: expected files.{file}.{key}, got nothing")
    return manifest


def _parquet(path: Path, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """Read one file of a set after its sha256 was checked, and count its rows."""
    where, expected = f"{path.parent.name}/{path.name}", manifest["files"][path.name]
    if not path.exists():
        raise DatasetError(f"{where}: the manifest names it, and it is missing")
    if (found := sha256(path.read_bytes()).hexdigest()) != expected["sha256"]:
        raise DatasetError(f"{where}: sha256 expected {expected['sha256'][:12]}…, got {found[:12]}…: "
                           "the file is not the one that the manifest describes")
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
    """Name what no row may be, with the rows that are."""
    species, moves = dex.species().index, [*dex.moves().index, RANDOM]
    return {
        "unknown species": ~(table["species_a"].isin(species) & table["species_b"].isin(species)),
        "unknown move": ~(table["move_a"].isin(moves) & table["move_b"].isin(moves)),
        "species_a not before species_b": table["species_a"] >= table["species_b"],
        "n_battles below 1": table["n_battles"] < 1,
        "wins_a outside 0 to n_battles": ~table["wins_a"].between(0, table["n_battles"]),
        "a matchup twice": table.duplicated(MATCHUP),
    }
