"""Build a battle set: choose its matchups, write the engine's results, and compare a rebuilt set with this one."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pokebattle.datasets import splits
from pokebattle.datasets.load import COLUMNS, LABELS, PAIR, PROTOCOLS, STREAMS, DatasetError, families
from pokebattle.game import matchups
from pokebattle.game.matchups import MATCHUP

# v3: how often the engine fights a matchup of each policy, and how many moves `given_move` draws for a side.
N_BATTLES = {
    "training": {"best_move": 20, "random_move": 10, "given_move": 5},
    "test": {"best_move": 400, "random_move": 100, "given_move": 100},
    "gate": {"best_move": 200, "random_move": 100, "given_move": 50},
}
N_GIVEN = {"training": 5, "test": 1, "gate": 1}


def to_fight(stream: str) -> pd.DataFrame:
    """Return the matchups that the engine fights for a stream of v3.

    Parameters
    ----------
    stream : {"training", "test", "gate"}

    Returns
    -------
    DataFrame
        The columns of `matchups.MATCHUP`, and n_battles. "training" contains all pairs; "test" and "gate" contain the
        pairs that belong to this part under at least one protocol.
    """
    pairs, kin = matchups.pairs(), families()
    part = splits.PARTS[STREAMS.index(stream)]
    fights = np.any([splits.assign(pairs, protocol, kin) == part for protocol in splits.PROTOCOLS], axis=0)
    wanted = pairs if part == "train" else pairs[fights]
    tables = [
        matchups.matchups(policy, N_GIVEN[stream]).merge(wanted, on=PAIR).assign(n_battles=n_battles)
        for policy, n_battles in N_BATTLES[stream].items()
    ]
    return pd.concat(tables, ignore_index=True)


def write_battles(
    folder: Path, streams: Mapping[str, pd.DataFrame], pairs: pd.DataFrame, origin: Mapping[str, Any]
) -> Path:
    """Write a battle set in the committed format, including the parts of its pairs under every protocol.

    Parameters
    ----------
    folder : Path
        Folder of the set. Its last component is the set's name.
    streams : mapping of str to DataFrame
        The fought matchups of "training", "test" and "gate".
    pairs : DataFrame
        Columns species_a and species_b: all unordered pairs, whether fought here or not. The protocols divide them.
    origin : mapping
        Entries for the manifest that describe where the battles come from.

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
    """Compare the wins of newly fought matchups with those of a battle set.

    Parameters
    ----------
    fought, committed : DataFrame
        The columns of `matchups.MATCHUP`, wins_a and n_battles; newly fought, and from the set.

    Returns
    -------
    DataFrame
        The matchups that both contain: the columns of `matchups.MATCHUP`, wins_a, n_battles, wins_committed and
        n_committed.

    Raises
    ------
    DatasetError
        If a matchup was fought as often as in the set but the wins differ: the engine or the seeds have changed.
    """
    known = committed.set_index(MATCHUP)[["wins_a", "n_battles"]]
    known.columns = pd.Index(["wins_committed", "n_committed"])
    both = fought[[*MATCHUP, "wins_a", "n_battles"]].join(known, on=MATCHUP, how="inner")
    differs = (both["n_battles"] == both["n_committed"]) & (both["wins_a"] != both["wins_committed"])
    if differs.any():
        row = both[differs].iloc[0]
        raise DatasetError(
            f"{differs.sum()} of {len(both)} matchups do not repeat the set's battles, e.g. "
            f"{row['species_a']} against {row['species_b']}: wins_a expected "
            f"{row['wins_committed']}, got {row['wins_a']}"
        )
    return both
