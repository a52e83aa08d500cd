"""Whether an execution takes longer in an experiment with many runs than in one with few.

Each size has a server of its own, so the result covers both the size of the experiment and the size of the store. The
runs are copies of one real run, written directly into MLflow's tables.
"""

import contextlib
import sqlite3
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

from commands import TRAIN, execute, notebook, write
from comparison import Figure, quantity, ratio, rounds
from processes import kernel_below
from stage import Stage, stage

FEW, MANY = 100, 10_000
TABLES = {
    "runs": "run_uuid",
    "params": "run_uuid",
    "metrics": "run_uuid",
    "latest_metrics": "run_uuid",
    "tags": "run_uuid",
    "inputs": "destination_id",
}
FAMILY = 4  # every fourth run is a child of the one before it
APART = 60_000  # ms between the starts of two runs
EXPERIMENT = "battle_winner_sample"

Rows = dict[str, list[dict[str, Any]]]


def compare(pairs: int) -> list[Figure]:
    """Compare a tracked notebook of one cell after 10,000 runs with the same notebook after 100.

    Raises
    ------
    RuntimeError
        If the experiment does not have the expected number of runs afterwards.
    """
    with stage() as few, stage() as many:
        fill(few, FEW)
        fill(many, MANY)

        def idle() -> None:
            few.settle()
            many.settle()

        document = notebook("1 + 1", pokebattle={"experiment": EXPERIMENT, "run_name": "trivial"})
        paths = {setup: write(setup.folder, "trivial.ipynb", document) for setup in (few, many)}
        ways = {str(FEW): lambda: closing(few, paths[few]), str(MANY): lambda: closing(many, paths[many])}
        values = rounds(ways, pairs, idle)
        if (counted := count(many)) != MANY + pairs + 1:
            raise RuntimeError(f"expected {MANY + pairs + 1} runs in {EXPERIMENT}, got {counted}")
    few_values, many_values = (values[str(size)] for size in (FEW, MANY))
    return [
        ratio(f"10,000th run: {name}", unit, quantity(few_values, what), quantity(many_values, what), 1.2)
        for name, unit, what in (("kernel end to closed", "ms", "close"), ("wall time", "s", "wall"))
    ]


def closing(setup: Stage, path: Path) -> dict[str, float]:
    """Execute a tracked notebook; return its wall time (s) and the ms from its kernel's end until its run is closed."""
    before = setup.closed()
    ended: list[float] = []

    def watch(process: subprocess.Popen[bytes]) -> None:
        kernel_below(process.pid).wait()
        ended.append(time.time())

    wall = execute(path, setup.folder, setup.on, watch=watch)
    setup.settle()
    (folder,) = set(setup.closed()) - set(before)
    return {"wall": wall, "close": 1000 * ((folder / "run.json").stat().st_mtime - ended[0])}


def fill(setup: Stage, size: int) -> None:
    """Fill the experiment up to ``size`` runs: execute one notebook and copy its run.

    Raises
    ------
    RuntimeError
        If the experiment does not hold ``size`` runs afterwards.
    """
    execute(TRAIN, setup.folder, setup.on)
    setup.settle()
    with contextlib.closing(sqlite3.connect(setup.database(), timeout=60)) as database, database:
        rows = _rows(database)
        missing = size - count(setup)
        parent = rows["runs"][0]["run_uuid"]
        for number in range(missing):
            copy = _copy(rows, number, parent)
            for table, copies in copy.items():
                _insert(database, table, copies)
            if number % FAMILY != FAMILY - 1:
                parent = copy["runs"][0]["run_uuid"]
    if count(setup) != size:
        raise RuntimeError(f"expected {size} runs in {EXPERIMENT}, got {count(setup)}")


def count(setup: Stage) -> int:
    """Return the number of runs in the experiment."""
    query = "SELECT count(*) FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ?"
    with contextlib.closing(sqlite3.connect(setup.database(), timeout=60)) as database:
        return int(database.execute(query, (EXPERIMENT,)).fetchone()[0])


def _rows(database: sqlite3.Connection) -> Rows:
    """Return all rows of the store's top-level run, by table."""
    run_id, *_ = database.execute(
        "SELECT run_uuid FROM runs WHERE run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId')"
    ).fetchone()
    rows: Rows = {}
    for table, column in TABLES.items():
        cursor = database.execute(f"SELECT * FROM {table} WHERE {column} = ?", (run_id,))
        names = [name for name, *_ in cursor.description]
        rows[table] = [dict(zip(names, values, strict=True)) for values in cursor]
    return rows


def _copy(rows: Rows, number: int, parent: str) -> Rows:
    """Return the rows of a copy that started earlier; every fourth copy is a child run of ``parent``."""
    old, new = rows["runs"][0]["run_uuid"], uuid.uuid4().hex
    earlier = APART * (number + 1)
    copies: Rows = {}
    for table, originals in rows.items():
        copies[table] = [dict(row) for row in originals]
        for row in copies[table]:
            row[TABLES[table]] = new
            for moment in ("start_time", "end_time", "timestamp"):
                if row.get(moment) is not None:
                    row[moment] -= earlier
    (run,) = copies["runs"]
    run["artifact_uri"] = run["artifact_uri"].replace(old, new)
    for row in copies["inputs"]:
        row["input_uuid"] = uuid.uuid4().hex
    for row in copies["tags"]:
        if row["key"] == "pokebattle.execution":
            row["value"] = f"{row['value'][:-12]}{new[:12]}"
    for table in ("metrics", "latest_metrics"):
        for row in copies[table]:
            row["value"] *= 1 + number % 100 / 1000  # values differ between runs
    if number % FAMILY == FAMILY - 1:
        copies["tags"].append({"key": "mlflow.parentRunId", "value": parent, "run_uuid": new})
    return copies


def _insert(database: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        names = list(rows[0])
        columns = ", ".join(f'"{name}"' for name in names)
        places = ", ".join("?" for _ in names)
        database.executemany(
            f"INSERT INTO {table} ({columns}) VALUES ({places})", [tuple(row[name] for name in names) for row in rows]
        )
