"""Files on a run, read and written through the server that holds them."""

from __future__ import annotations

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
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store = get_artifact_repository(run["info"]["artifact_uri"], tracking_uri=rest.uri, registry_uri=rest.uri)
    folder = path.rpartition("/")[0]
    if path not in {entry.path for entry in store.list_artifacts(folder or None)}:
        raise FileNotFoundError(f"run {run['info']['run_id']} has no {path}")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return Path(store.download_artifacts(path, dst_path=scratch)).read_bytes()
        except MlflowException as error:
            raise OSError(f"{path} of run {run['info']['run_id']}: {error}") from error


def read_json(rest: MlflowRest, run: dict[str, Any], path: str) -> Any:
    """Return what a JSON file of a run holds; raises as `read` does, and ValueError."""
    return json.loads(read(rest, run, path))


def write_json(rest: MlflowRest, run: dict[str, Any], path: str, content: Any) -> None:
    """Write a JSON file to a run; raises as `MlflowRest.upload` does."""
    text = json.dumps(content, indent=1, ensure_ascii=False).encode()
    rest.upload(run["info"]["artifact_uri"], path, lambda: [text])
