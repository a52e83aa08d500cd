"""Upload artifacts to stores that the MLflow server does not proxy: a shared folder, or one with its own credentials.

What MLflow's own client needs for such a store (boto3 and the like) is in the kernel's environment, which the sender
does not load: it starts another process of that environment.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nbtrack import env_vars
from nbtrack.errors import ServerError

SECONDS = 120.0  # timeout for a request to an artifact store
REPOSITORY = (
    "import sys; from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository as at; "
    "store = at(sys.argv[1]); "
)
UPLOAD = REPOSITORY + "store.log_artifact(sys.argv[2], sys.argv[3] or None)"
LOOK = REPOSITORY + "store.list_artifacts()"


def is_served(artifact_uri: str) -> bool:
    """Return whether the server stores the artifacts itself.

    Parameters
    ----------
    artifact_uri : str
    """
    return artifact_uri.startswith("mlflow-artifacts:")


@functools.cache
def problem(artifact_uri: str) -> str:
    """Return why artifacts cannot be stored below ``artifact_uri`` from this machine; may take two minutes.

    Parameters
    ----------
    artifact_uri : str

    Returns
    -------
    str
        Empty if they can be stored.
    """
    if is_served(artifact_uri):
        return ""
    if (folder := _folder(artifact_uri)) is not None:
        return _locked(next(parent for parent in (folder, *folder.parents) if parent.exists()), artifact_uri)
    if reason := _with_mlflow(LOOK, artifact_uri):
        return f"{_cannot_store(artifact_uri)} ({reason})"
    return ""


def _cannot_store(artifact_uri: str) -> str:
    return f"clients have to store artifacts in {artifact_uri} themselves, and this machine cannot"


def _locked(folder: Path, artifact_uri: str) -> str:
    from tempfile import TemporaryDirectory  # seldom needed, and the sender should start fast

    try:
        with TemporaryDirectory(dir=folder):
            return ""
    except OSError as error:
        return f"{artifact_uri} is a folder that cannot be written here ({error.strerror})"


def upload(artifact_uri: str, path: str, chunks: Callable[[], Iterable[bytes]]) -> None:
    """Store an artifact without the server.

    Parameters
    ----------
    artifact_uri : str
        The folder's address.
    path : str
        The artifact's path below it.
    chunks : callable
        Returns the content in pieces.

    Raises
    ------
    ServerError
        If it cannot be stored.
    """
    from tempfile import TemporaryDirectory

    try:
        if (folder := _folder(artifact_uri)) is not None:
            _write(folder / path, chunks())
            return
        if why := problem(artifact_uri):  # cached, so not checked for every file
            raise ServerError(400, "NOT_PROXIED", why)
        with TemporaryDirectory() as place:
            file = Path(place) / Path(path).name
            _write(file, chunks())
            parent = str(Path(path).parent)
            reason = _with_mlflow(UPLOAD, artifact_uri, str(file), "" if parent == "." else parent)
    except OSError as error:
        raise ServerError(400, "NOT_WRITABLE", f"{path} cannot be written below {artifact_uri} ({error})") from error
    if reason:
        raise ServerError(400, "NOT_PROXIED", f"{_cannot_store(artifact_uri)} ({reason})")


def _folder(artifact_uri: str) -> Path | None:
    """Return the folder that an address names, None if it is not a folder's."""
    is_folder = artifact_uri.startswith(("file:", "/"))
    return Path(unquote(urlsplit(artifact_uri).path)) if is_folder else None


def _write(file: Path, pieces: Iterable[bytes]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as target:
        target.writelines(pieces)


def _with_mlflow(code: str, *words: str) -> str:
    """Run code with the environment's own mlflow; return why it failed, or an empty string."""
    command = [sys.executable, "-c", code, *words]
    env = {**os.environ, env_vars.TRACKING: "off"}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer in {SECONDS:.0f} s"
    lines = done.stderr.strip().splitlines()
    return (lines[-1] if lines else f"exit status {done.returncode}")[:300] if done.returncode else ""
