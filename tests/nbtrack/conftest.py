"""A real MLflow server on a store of its own, and the ways a notebook is executed."""

import copy
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jupyter_client
import mlflow
import nbformat
import pytest
import uvicorn
from guard import guarded
from leftovers import leave
from mlflow.entities import Run
from waiting import wait_for

from nbtrack import server
from nbtrack.settings import server_record

BIN = Path(sys.executable).parent
WAIT = 60.0  # seconds for a run to be closed by its sender


def notebook(*sources: str, metadata: dict[str, Any] | None = None, parameters: str | None = None) -> Any:
    """Return a small notebook of code cells, the first tagged ``parameters`` when one is given."""
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources)]
    if parameters is not None:
        cells.insert(0, nbformat.v4.new_code_cell(parameters, id="params", metadata={"tags": ["parameters"]}))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=kernel | (metadata or {}))


class Tracked:
    """A folder with a state of its own whose executions go to the test server."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri, self.began = folder, uri, int(time.time() * 1000)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "POKEBATTLE_"))}
        self.env.pop("PYTEST_CURRENT_TEST", None)
        self.env |= {"MLFLOW_TRACKING_URI": uri, "POKEBATTLE_STATE": str(folder / "state"), "POKEBATTLE_LINGER": "0"}
        self.client = mlflow.MlflowClient(uri)

    def write(self, name: str, document: Any) -> Path:
        """Write a notebook whose name is unique on the server: without a template it names the experiment."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(document, path)
        return path

    def execute(self, *command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the folder."""
        words = [str(BIN / str(command[0])), *map(str, command[1:])]
        return subprocess.run(words, cwd=self.folder, env=self.env | env, capture_output=True, text=True, timeout=180)

    def papermill(self, path: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Type ``papermill path out.ipynb options``."""
        return self.execute("papermill", path.name, "out.ipynb", *options, **env)

    def runs(self, experiment: str, count: int = 1) -> list[Run]:
        """Return the experiment's closed runs, oldest first, waiting until there are ``count``.

        The server is that of all tests of this process: what began before this object did is another test's.
        """

        def begun() -> list[Run]:
            known = self.client.get_experiment_by_name(experiment)
            runs = self.client.search_runs([known.experiment_id], order_by=["start_time"]) if known else []
            return [run for run in runs if run.info.start_time >= self.began]

        def are_closed(runs: list[Run]) -> bool:
            return len(runs) >= count and not {run.info.status for run in runs} & {"RUNNING", "SCHEDULED"}

        return wait_for(begun, f"{experiment}: {count} closed runs", WAIT, until=are_closed)

    def run_of(self, name: str, document: Any) -> Run:
        """Execute a notebook by papermill, which must succeed; return the only run of its experiment."""
        path = self.write(name, document)
        done = self.papermill(path)
        assert done.returncode == 0, done.stderr
        (run,) = self.runs(path.stem)
        return run

    def download(self, **source: str) -> Path:
        """Download artifacts from the test server, leaving this process's mlflow as it was."""
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(self.uri)
        try:
            return Path(mlflow.artifacts.download_artifacts(**source, dst_path=str(self.folder / "got")))
        finally:
            mlflow.set_tracking_uri(before)
            os.environ.pop("MLFLOW_TRACKING_URI", None)

    def artifact(self, run: Run, path: str) -> Any:
        """Return a JSON artifact of a run."""
        return json.loads(self.download(run_id=run.info.run_id, artifact_path=path).read_text("utf-8"))

    def executions(self) -> list[Path]:
        """Return the folders that executions left in the state."""
        return sorted((self.folder / "state" / "executions").glob("*"))


class LabKernel:
    """A kernel as JupyterLab starts it: the session's name in the environment, cell ids in the requests."""

    def __init__(self, tracked: Any, path: Path | None) -> None:
        session = {"JPY_SESSION_NAME": str(path)} if path else {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.log = (tracked.folder / "kernel.log").open("w")  # a kernel that is restarted writes to it too
        self.manager, self.client = jupyter_client.manager.start_new_kernel(
            env=tracked.env | session, cwd=str(tracked.folder), stderr=self.log
        )

    def run(self, source: str, cell_id: str = "", subshell: str = "") -> None:
        """Execute one cell as Lab does, or a request of a subshell; again when it came too soon after one that failed.

        For a moment after an error a shell, or a subshell, drops what was queued behind it.
        """
        reply = self.wait(self.send(source, cell_id, subshell))
        if reply["content"]["status"] == "aborted":
            self.run(source, cell_id, subshell)

    def send(
        self, source: str, cell_id: str = "", subshell: str = "", store_history: bool = True, **metadata: Any
    ) -> str:
        """Send a request, of a cell or of a subshell, without waiting for it; return its id."""
        content = {
            "code": source,
            "silent": False,
            "store_history": store_history,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        metadata |= {"cellId": cell_id} if cell_id else {}
        message = self.client.session.msg("execute_request", content, metadata=metadata)
        message["header"] |= {"subshell_id": subshell} if subshell else {}
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def wait(self, *requests: str) -> dict[str, Any]:
        """Wait for the answers to some requests, which come in any order, and return that to the last request."""
        while not self.answers.keys() >= set(requests):
            reply = self.client.get_shell_msg(timeout=60)
            self.answers[reply["parent_header"].get("msg_id")] = dict(reply)
        return self.answers[requests[-1]]

    def subshell(self) -> str:
        """Open a subshell, as Lab's console beside a notebook does; return its id."""
        self.client.control_channel.send(self.client.session.msg("create_subshell_request", {}))
        return str(self.client.control_channel.get_msg(timeout=60)["content"]["subshell_id"])

    def beside(self) -> "LabKernel":
        """Return a second front end of the same kernel."""
        other = copy.copy(self)
        other.client = self.manager.blocking_client()
        other.client.start_channels()
        other.answers = {}
        return other

    def text_until(self, *awaited: str) -> dict[str, str]:
        """Return what is printed, by request, until all that is awaited has been."""
        shown: dict[str, str] = {}
        while any(text not in "".join(shown.values()) for text in awaited):
            message = self.client.get_iopub_msg(timeout=60)
            if message["msg_type"] == "stream":
                request = message["parent_header"]["msg_id"]
                shown[request] = shown.get(request, "") + message["content"]["text"]
        return shown

    def stop(self) -> None:
        """End the kernel at once, as a restart does."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.log.close()


@pytest.fixture
def lab_kernel() -> Callable[..., Any]:
    """The class of kernels as JupyterLab starts them."""
    return LabKernel


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real server that the tests own; the user's ``MLFLOW_TRACKING_URI`` plays no part."""
    patch = pytest.MonkeyPatch()
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    patch.setenv("POKEBATTLE_STATE", str(tmp_path_factory.mktemp("server")))
    patch.setattr(server, "DEFAULT_URI", "http://127.0.0.1:0")
    patch.setattr(server, "tracking_uri", lambda: "http://127.0.0.1:9")
    server.start(wait=False)
    with guarded(server_record()["pid"]):
        yield server.start()[0]
        server.stop()
    patch.undo()


@pytest.fixture
def closing() -> Iterator[uvicorn.Server]:
    """A server that knows one experiment and closes connections that idle for a second, MLflow's for five."""
    content = b'{"experiment": {"experiment_id": "1", "name": "idle"}}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    config = uvicorn.Config(app, port=0, timeout_keep_alive=1, lifespan="off", log_level="error")
    served = uvicorn.Server(config)
    thread = threading.Thread(target=served.run)
    thread.start()
    wait_for(lambda: served.started, "a server")
    yield served
    served.should_exit = True
    thread.join(20)


@pytest.fixture
def tracked(tmp_path: Path, mlflow_server: str) -> Tracked:
    """An empty folder whose executions are tracked on the test server."""
    return Tracked(tmp_path, mlflow_server)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Tracked:
    """The same for all tests of a file, which look at one execution from several sides."""
    return Tracked(tmp_path_factory.mktemp("shared"), mlflow_server)


@pytest.fixture
def away(tmp_path: Path) -> Tracked:
    """The same with a server that is not there."""
    return Tracked(tmp_path, "http://127.0.0.1:9")


@pytest.fixture
def make_notebook() -> Callable[..., Any]:
    """The function that builds small notebooks."""
    return notebook


@pytest.fixture
def write(tracked: Tracked, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`write("name", event, …, uri=…)` leaves an execution whose kernel has ended and which is not delivered."""
    monkeypatch.setenv("POKEBATTLE_STATE", tracked.env["POKEBATTLE_STATE"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked.uri)
    return leave
