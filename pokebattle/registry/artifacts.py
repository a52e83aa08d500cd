"""Files on a run, read and written through the server that holds them."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from pokebattle.tracking.shipping.rest import MlflowRest


def read(rest: MlflowRest, run: dict[str, Any], path: str) -> bytes:
    """Return a file of a run.

    Raises
    ------
    FileNotFoundError
        If the run has no such file.
    """
    store = store_at(rest, run["info"]["artifact_uri"])
    if path not in {entry.path for entry in store.list_artifacts(path.rpartition("/")[0] or None)}:
        raise FileNotFoundError(f"run {run['info']['run_id']} has no {path}")
    with tempfile.TemporaryDirectory() as scratch:
        return download(store, path, Path(scratch)).read_bytes()


def store_at(rest: MlflowRest, uri: str) -> Any:
    """Return MLflow's view on a folder of files."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri, tracking_uri=rest.uri, registry_uri=rest.uri)


def download(store: Any, path: str, folder: Path) -> Path:
    """Download one file; raises OSError when it cannot be had."""
    from mlflow.exceptions import MlflowException

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # MLflow's progress bars
            return Path(store.download_artifacts(path, dst_path=str(folder)))
    except MlflowException as error:
        raise OSError(f"{path}: {' '.join(str(error).split())}") from error


def read_json(rest: MlflowRest, run: dict[str, Any], path: str) -> Any:
    """Return what a JSON file of a run holds; raises as `read` does, and ValueError."""
    return json.loads(read(rest, run, path))


def write_json(rest: MlflowRest, run: dict[str, Any], path: str, content: Any) -> None:
    """Write a JSON file to a run; raises as `MlflowRest.upload` does."""
    text = json.dumps(content, indent=1, ensure_ascii=False).encode()
    rest.upload(run["info"]["artifact_uri"], path, lambda: [text])
