"""Executes sequences: each twice, in a plain and in a tracked kernel, on the same real server."""

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import entities
import mlflow
import nbformat
from compare import Side, Verdict, compare
from faults import FaultProxy, Server
from kernels import Kernel
from sequences import TAG, Sequence, write

HERE = Path(__file__).parent
SETTLED = 120.0  # seconds that the run of an execution may take to be closed
NOTEBOOK = "own-notebook"


@dataclass(frozen=True)
class Place:
    """A server as notebooks reach it.

    Attributes
    ----------
    name : str
    uri : str
        Where notebooks send their requests.
    store : entities.Store
    env : dict
        An account, where there are accounts.
    """

    name: str
    uri: str
    store: entities.Store
    env: dict[str, str] = field(default_factory=dict)

    def by(self, proxy: FaultProxy, delay: float) -> "Place":
        """Return the same server behind a proxy that keeps every request for so many seconds."""
        proxy.delay, proxy.mode = delay, "slow" if delay else "pass"
        return Place(f"{self.name}, {delay * 1000:.0f} ms", proxy.uri, self.store, self.env)


@contextlib.contextmanager
def on_sqlite(folder: Path) -> Iterator[Place]:
    """Give a server on SQLite."""
    with Server(folder / "sqlite") as server:
        store = entities.Store(str(server.database), server.folder / "artifacts")
        entities.number_experiments(store)
        yield Place("SQLite", server.uri, store)


@contextlib.contextmanager
def on_postgres(folder: Path) -> Iterator[Place]:
    """Give a team's server: PostgreSQL and accounts."""
    spec = importlib.util.spec_from_file_location("team", HERE.parent / "team" / "conftest.py")
    assert spec is not None and spec.loader is not None
    team = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(team)
    (folder / "team").mkdir()
    with team.served(folder / "team", HERE.parent.parent) as server:
        read = team.settings.read_env(server.env_file)
        uri = team.settings.database(read, str(server.state / "shared/postgres"))
        store = entities.Store(uri, server.state / "shared/artifacts")
        entities.number_experiments(store)
        login = server.login("TEAM")
        server.account("ADMIN").call(
            "POST",
            "/api/3.0/mlflow/users/permissions/grant",
            username=login.name,
            resource_type="experiment",
            resource_id="0",
            permission="MANAGE",
        )  # as of its own
        env = {"MLFLOW_TRACKING_USERNAME": login.name, "MLFLOW_TRACKING_PASSWORD": login.password}
        yield Place("PostgreSQL", server.uri, store, env)


class Machine:
    """Executes sequences in a folder of its own, one after the other.

    Parameters
    ----------
    folder : Path
        A short path, as it contains sockets.
    nursery : Path
        Where kernels are asked for.
    place : Place
    """

    def __init__(self, folder: Path, nursery: Path, place: Place) -> None:
        self.folder, self.nursery, self.place = folder, nursery, place
        self.seconds = {"plain": 0.0, "tracked": 0.0, "settling": 0.0}
        os.environ.update(place.env)
        self.client = mlflow.MlflowClient(place.uri)

    def run(self, sequence: Sequence, keep: bool = False) -> Verdict:
        """Execute a sequence plain and tracked and compare the two."""
        cells, calls = write(sequence)
        name = uuid.uuid4().hex[:8]
        sides = []
        for letter in ("p", "t"):
            folder = self.folder / f"{letter}x{name}x"
            sides.append(self._side(folder, sequence, cells, tracked=letter == "t"))
        verdict = compare(*sides, calls)
        if not keep:
            for side in sides:
                shutil.rmtree(self.folder / side.tag, ignore_errors=True)
        return verdict

    def _side(self, folder: Path, sequence: Sequence, cells: list[str], tracked: bool) -> Side:
        tag, began = folder.name, time.monotonic()
        folder.mkdir()
        cells = [source.replace(TAG, tag) for source in cells]
        self._furnish(folder, cells)
        kernel = Kernel(self.nursery, folder, self._env(folder, sequence, tracked))
        replies = []
        for number, source in enumerate(cells):
            reply = kernel.run(source, f"cell-{number}")
            replies.append([reply.get("status"), reply.get("ename"), reply.get("evalue")])
            if reply["status"] in {"hangs", "the kernel died"}:
                break
        kernel.stop()
        ends: dict[str, Any] = {"cells": replies}
        self.seconds["tracked" if tracked else "plain"] += time.monotonic() - began
        record, own = folder / "record.jsonl", ""
        if tracked:
            began = time.monotonic()
            settled, ends["settled"] = _settled(folder / "state", bool(cells))
            own = settled.get("run_id") or ""
            if "'FAILED'" in "".join(cells):  # the execution's run may end as the run that it replaces
                ends["settled"] = ends["settled"].replace("FAILED", "FINISHED")
            self.seconds["settling"] += time.monotonic() - began
        else:
            ends["settled"] = "FINISHED"
        left = {"server": entities.read(self.place.store, tag)}
        if (folder / "side.db").exists():
            left["side"] = entities.read(entities.Store(str(folder / "side.db"), folder), tag)
        lines = record.read_text().splitlines() if record.exists() else []
        return Side(
            [json.loads(line) for line in lines],
            left,
            tag,
            {NOTEBOOK: "Default"},
            own,
            self._stand_in() if tracked else "",
            ends,
        )

    def _furnish(self, folder: Path, cells: list[str]) -> None:
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(cells)]
        )
        nbformat.write(notebook, folder / f"{NOTEBOOK}.ipynb")
        (folder / "here.txt").write_text("here\n")
        (folder / "folder" / "below").mkdir(parents=True)
        (folder / "folder" / "one.txt").write_text("one\n")
        (folder / "folder" / "below" / "two.json").write_text('{"two": 2}\n')
        if any("side.db" in source for source in cells):
            shutil.copy(self._template(), folder / "side.db")

    def _template(self) -> Path:
        """Return an empty store on SQLite, which takes seconds to make, for all machines."""
        shared = self.nursery.parent / "side.db"
        with shared.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not shared.exists():
                draft = shared.with_suffix(".draft")
                mlflow.MlflowClient(f"sqlite:///{draft}").search_experiments()
                entities.number_experiments(entities.Store(str(draft), self.folder), entities.SIDE_ID)
                with contextlib.closing(sqlite3.connect(draft)) as connection, connection:
                    connection.execute("UPDATE experiments SET artifact_location = '/nowhere' WHERE experiment_id = 0")
                draft.rename(shared)
        return shared

    def _env(self, folder: Path, sequence: Sequence, tracked: bool) -> dict[str, str]:
        hidden = ("MLFLOW_", "POKEBATTLE_", "PYTEST_", "JPY_", "COV_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        env |= self.place.env | {
            "MLFLOW_TRACKING_URI": self.place.uri,
            "SERVER": self.place.uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "POKEBATTLE_TRACKING": "on" if tracked else "off",
            "POKEBATTLE_STATE": str(folder / "state"),
            "POKEBATTLE_LINGER": "0",
            "JPY_SESSION_NAME": str(folder / f"{NOTEBOOK}.ipynb"),
            "DIFFERENTIAL_RECORD": str(folder / "record.jsonl"),
            "PYTHONPATH": str(HERE),
            "OMP_NUM_THREADS": "1",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
            "HOME": str(self.folder),
            "MPLBACKEND": "agg",
            "IPYTHONDIR": str(self.folder / "ipython"),
            "TMPDIR": str(folder),
        }
        for name, value in sequence.env:
            env[name] = self._started_before(folder.name) if value == "RUN" else value.replace(TAG, folder.name)
            if name == "MLFLOW_EXPERIMENT_NAME":  # the notebook's run creates it on purpose, where it is missing
                self.client.create_experiment(env[name])
        return env

    def _started_before(self, tag: str) -> str:
        """Start a run, like a user who then executes a notebook in it; return its id."""
        name = f"exp-{tag}-a"
        experiment = self.client.create_experiment(name)
        return str(self.client.create_run(experiment, run_name="before").info.run_id)

    def _stand_in(self) -> str:
        with self.place.store.asked() as ask:
            rows = ask("SELECT experiment_id FROM experiments WHERE name = ?", NOTEBOOK)
        return str(rows[0]["experiment_id"]) if rows else ""


def _ending(record: dict[str, Any]) -> str:
    """Return the status that a run was closed with, also one that the sequence has deleted."""
    deleted = "was deleted" in record.get("refused", "")
    return str(record.get("status", "FINISHED" if deleted else ""))


def _settled(state: Path, expected: bool) -> tuple[dict[str, Any], str]:
    """Wait until every execution's run is closed; return what is known of the first, and how it ended."""
    deadline = time.monotonic() + SETTLED
    while True:
        records = []
        for folder in sorted(state.glob("executions/2*")):
            record: dict[str, Any] = {}
            with contextlib.suppress(OSError, ValueError):
                record = json.loads((folder / "run.json").read_text())
            records.append(record)
        if (records or not expected) and all(map(_ending, records)):
            return (records or [{}])[0], " ".join(map(_ending, records))
        if time.monotonic() > deadline or any(record.get("refused") for record in records):
            return (records or [{}])[0], f"not settled: {records}"
        time.sleep(0.02)
