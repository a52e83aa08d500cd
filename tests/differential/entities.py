"""What a sequence left on the server, read from the server's own database and artifact folder.

Asking the API would cost hundreds of requests for a sequence, and would show what the API shows; rows show everything.
"""

import contextlib
import hashlib
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXT = {".txt", ".json", ".yaml", ".yml", ".csv", ".md", ".html", ""}
SIZE = re.compile(r"model_size_bytes: \d+\n")
LONG = 50_000  # bytes of a text beyond which only its digest is compared
FIRST_ID = 10_000_000  # of experiments, so that no other number is taken for one
SIDE_ID = 15_000_000  # of those in the other store that notebooks turn to
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Store:
    """A server's database and artifacts.

    Attributes
    ----------
    database : str
        A path of SQLite's, or the address of PostgreSQL's.
    artifacts : Path
    """

    database: str
    artifacts: Path

    def connect(self) -> Any:
        """Open a connection of Python's database API; a file is only read."""
        if not self.database.startswith("postgresql"):
            return sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=60)
        import psycopg2

        return psycopg2.connect(self.database.replace("postgresql+psycopg2", "postgresql"))

    @contextlib.contextmanager
    def asked(self) -> Iterator[Callable[..., Rows]]:
        """Give the function that asks: a statement in which ``?`` marks a value and ``??`` a list, and the values."""
        connection = self.connect()
        try:
            yield lambda statement, *values: self._rows(connection, statement, values)
        finally:
            connection.close()

    def _rows(self, connection: Any, statement: str, values: tuple[Any, ...]) -> Rows:
        flat: list[Any] = []
        for value in values:
            if isinstance(value, list | set | tuple):
                statement = statement.replace("??", ",".join("?" * len(value)) or "NULL", 1)
                flat += value
            else:
                flat.append(value)
        cursor = connection.cursor()
        if self.database.startswith("postgresql"):
            statement = statement.replace("?", "%s")
        cursor.execute(statement, flat)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def number_experiments(store: Store, first: int = FIRST_ID) -> None:
    """Let the ids of experiments begin so high that no other number in a text is taken for one."""
    if not store.database.startswith("postgresql"):
        with contextlib.closing(sqlite3.connect(store.database, timeout=60)) as connection, connection:
            connection.execute(
                "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) "
                f"VALUES ({first}, 'first', '', 'deleted')"
            )
        return
    with contextlib.closing(store.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_serial_sequence('experiments', 'experiment_id')")
        cursor.execute(f"ALTER SEQUENCE {cursor.fetchone()[0]} RESTART WITH {first}")


def read(store: Store, tag: str) -> dict[str, Any]:
    """Return everything whose name, or whose source, contains ``tag``."""
    with store.asked() as ask:
        for attempt in range(10):
            try:
                return _read(store, ask, f"%{tag}%")
            except sqlite3.OperationalError:  # locked by the server's writing
                if attempt == 9:
                    raise
                time.sleep(0.1)
    raise AssertionError


def _read(store: Store, ask: Callable[..., Rows], like: str) -> dict[str, Any]:
    experiments = ask("SELECT * FROM experiments WHERE name LIKE ?", like)
    ids = [row["experiment_id"] for row in experiments]
    runs = ask(
        "SELECT * FROM runs WHERE experiment_id IN (??) OR run_uuid IN "
        "(SELECT run_uuid FROM tags WHERE key = 'mlflow.source.name' AND value LIKE ?) ORDER BY start_time, run_uuid",
        ids,
        like,
    )
    uuids = [row["run_uuid"] for row in runs]
    models = ask(
        "SELECT * FROM logged_models WHERE experiment_id IN (??) OR source_run_id IN (??) OR model_id IN "
        "(SELECT model_id FROM logged_model_tags WHERE tag_key = 'mlflow.source.name' AND tag_value LIKE ?) "
        "ORDER BY creation_timestamp_ms, model_id",
        ids,
        uuids,
        like,
    )
    tags = ask("SELECT * FROM experiment_tags WHERE experiment_id IN (??)", ids)
    for row in experiments:
        row["tags"] = {tag["key"]: tag["value"] for tag in tags if tag["experiment_id"] == row["experiment_id"]}
        row["experiment_id"] = str(row["experiment_id"])
    return {
        "experiments": {row["name"]: row for row in experiments},
        "runs": _runs(store, ask, runs, uuids),
        "models": _models(store, ask, models),
        "registered": _registered(ask, like),
    }


def _runs(store: Store, ask: Callable[..., Rows], runs: Rows, uuids: list[str]) -> Rows:
    params = ask("SELECT * FROM params WHERE run_uuid IN (??)", uuids)
    tags = ask("SELECT * FROM tags WHERE run_uuid IN (??)", uuids)
    points = ask("SELECT * FROM metrics WHERE run_uuid IN (??) ORDER BY timestamp, step, value", uuids)
    latest = ask("SELECT * FROM latest_metrics WHERE run_uuid IN (??)", uuids)
    inputs = ask(
        "SELECT * FROM inputs LEFT JOIN datasets ON source_id = dataset_uuid WHERE inputs.destination_id IN (??) "
        "OR inputs.source_id IN (??)",
        uuids,
        uuids,
    )
    input_tags = ask("SELECT * FROM input_tags WHERE input_uuid IN (??)", [row["input_uuid"] for row in inputs])
    for row in inputs:
        row["tags"] = {tag["name"]: tag["value"] for tag in input_tags if tag["input_uuid"] == row["input_uuid"]}
    for row in runs:
        uuid = row["run_uuid"]
        row["experiment_id"] = str(row["experiment_id"])
        row["params"] = {one["key"]: one["value"] for one in params if one["run_uuid"] == uuid}
        row["tags"] = {one["key"]: one["value"] for one in tags if one["run_uuid"] == uuid}
        row["metrics"] = {}
        for one in (one for one in points if one["run_uuid"] == uuid):
            row["metrics"].setdefault(one["key"], []).append(_point(one))
        row["latest"] = {one["key"]: _point(one) for one in latest if one["run_uuid"] == uuid}
        row["links"] = sorted(
            (
                {
                    key: one[key]
                    for key in (
                        "source_type",
                        "destination_type",
                        "name",
                        "digest",
                        "dataset_source_type",
                        "dataset_source",
                        "dataset_schema",
                        "dataset_profile",
                        "step",
                        "tags",
                    )
                }
                for one in inputs
                if uuid in {one["source_id"], one["destination_id"]}
            ),
            key=str,
        )
        row["artifacts"] = _files(store, row["artifact_uri"])
    return runs


def _point(row: dict[str, Any]) -> list[Any]:
    return [row["step"], "NaN" if row["is_nan"] else repr(row["value"]), row["timestamp"]]


def _models(store: Store, ask: Callable[..., Rows], models: Rows) -> Rows:
    ids = [row["model_id"] for row in models]
    params = ask("SELECT * FROM logged_model_params WHERE model_id IN (??)", ids)
    tags = ask("SELECT * FROM logged_model_tags WHERE model_id IN (??)", ids)
    metrics = ask("SELECT * FROM logged_model_metrics WHERE model_id IN (??) ORDER BY metric_timestamp_ms", ids)
    for row in models:
        model_id = row["model_id"]
        row["experiment_id"] = str(row["experiment_id"])
        row["params"] = {one["param_key"]: one["param_value"] for one in params if one["model_id"] == model_id}
        row["tags"] = {one["tag_key"]: one["tag_value"] for one in tags if one["model_id"] == model_id}
        row["metrics"] = sorted(
            (
                [one["metric_name"], one["metric_step"], one["metric_value"], one["run_id"], one["dataset_name"]]
                for one in metrics
                if one["model_id"] == model_id
            ),
            key=str,
        )
        row["artifacts"] = _files(store, row["artifact_location"])
    return models


def _registered(ask: Callable[..., Rows], like: str) -> dict[str, Any]:
    models = {}
    for row in ask("SELECT * FROM registered_models WHERE name LIKE ?", like):
        name = row["name"]
        versions = ask("SELECT * FROM model_versions WHERE name = ?", name)
        version_tags = ask("SELECT * FROM model_version_tags WHERE name = ?", name)
        for version in versions:
            version["tags"] = {one["key"]: one["value"] for one in version_tags if one["version"] == version["version"]}
        models[name] = row | {
            "tags": {
                one["key"]: one["value"] for one in ask("SELECT * FROM registered_model_tags WHERE name = ?", name)
            },
            "aliases": {
                one["alias"]: one["version"]
                for one in ask("SELECT * FROM registered_model_aliases WHERE name = ?", name)
            },
            "versions": {str(version["version"]): version for version in versions},
        }
    return models


def _files(store: Store, uri: str | None) -> dict[str, Any]:
    """Return the artifacts below an address by path: texts as they are, others by digest."""
    scheme, _, path = (uri or "").partition(":")
    folder = store.artifacts / path.lstrip("/") if scheme == "mlflow-artifacts" else Path(path or scheme)
    if not uri or not folder.is_dir():
        return {}
    return {str(file.relative_to(folder)): _content(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def _content(file: Path) -> str:
    content = file.read_bytes()
    if len(content) < LONG and (file.suffix in TEXT or file.name in {"MLmodel"}):
        with contextlib.suppress(UnicodeDecodeError):
            text = content.decode()
            return SIZE.sub("", text) if file.with_name("python_model.pkl").exists() else text
    if file.name == "python_model.pkl":  # it contains a random number of the class and the id of the process
        return "a class"
    return f"{len(content)} bytes {hashlib.sha256(content).hexdigest()[:12]}"
