"""Read and write the artifacts of a run through its server."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from nbtrack.mlflow_rest import MlflowRest


def read(rest: MlflowRest, run: dict[str, Any], path: str) -> bytes:
    """Return the content of an artifact of a run.

    Parameters
    ----------
    rest : MlflowRest
    run : dict
        The run, as in the answer of MLflow's REST API.
    path : str
        Path of the artifact within the run.

    Raises
    ------
    FileNotFoundError
        If the run has no such artifact.
    OSError
        If it cannot be downloaded.
    """
    store = store_at(rest, run["info"]["artifact_uri"])
    if path not in {entry.path for entry in store.list_artifacts(path.rpartition("/")[0] or None)}:
        raise FileNotFoundError(f"run {run['info']['run_id']} has no {path}")
    with tempfile.TemporaryDirectory() as scratch:
        return download(store, path, Path(scratch)).read_bytes()


def store_at(rest: MlflowRest, uri: str) -> Any:
    """Return MLflow's artifact repository for a folder of artifacts.

    Parameters
    ----------
    rest : MlflowRest
    uri : str
        The artifact URI of a run or of a logged model.

    Returns
    -------
    mlflow.store.artifact.artifact_repo.ArtifactRepository
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri, tracking_uri=rest.uri, registry_uri=rest.uri)


def download(store: Any, path: str, folder: Path) -> Path:
    """Download one artifact and return its path.

    Parameters
    ----------
    store : ArtifactRepository
        From `store_at`.
    path : str
        Path of the artifact in the repository.
    folder : Path
        Target folder.

    Raises
    ------
    OSError
        If the artifact cannot be downloaded.
    """
    from mlflow.exceptions import MlflowException

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # MLflow's progress bars
            return Path(store.download_artifacts(path, dst_path=str(folder)))
    except MlflowException as error:
        raise OSError(f"{path}: {' '.join(str(error).split())}") from error


def read_json(rest: MlflowRest, run: dict[str, Any], path: str) -> Any:
    """Return the content of a JSON artifact of a run.

    Parameters
    ----------
    rest, run, path
        As in `read`.

    Raises
    ------
    FileNotFoundError, OSError
        As in `read`.
    ValueError
        If the artifact is not valid JSON.
    """
    return json.loads(read(rest, run, path))


def write_json(rest: MlflowRest, run: dict[str, Any], path: str, content: Any) -> None:
    """Write a JSON artifact to a run.

    Parameters
    ----------
    rest, run, path
        As in `read`.
    content : object
        A value that JSON can represent.

    Raises
    ------
    OSError, ServerError
        As in `MlflowRest.upload`.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False).encode()
    rest.upload(run["info"]["artifact_uri"], path, lambda: [text])
