"""Real kernels that start fast: forked from a process that has imported what every kernel would import.

A kernel of a sequence is ipykernel's own application with its own configuration, so the extension is loaded as
everywhere, and it ends as every kernel does. Only the seconds that importing MLflow takes are spent once.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from mlflow.utils import requirements_utils

HERE = Path(__file__).parent
IMPORTS = (
    "mlflow",
    "mlflow.sklearn",
    "mlflow.xgboost",
    "mlflow.pyfunc",
    "mlflow.artifacts",
    "sklearn.linear_model",
    "xgboost",
    "pandas",
    "numpy",
    "matplotlib.figure",
    "PIL.Image",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "ipykernel.kernelapp",
    "IPython.core.completer",
    "mlflow.store.artifact.mlflow_artifacts_repo",
    "mlflow.store.tracking.rest_store",
    "mlflow.store.model_registry.rest_store",
    "mlflow.data.pandas_dataset",
    "mlflow.tracking.client",
    "mlflow.models.model",
    "skops.io",
    "sqlalchemy",
    "requests",
    "debugpy.server.api",
    "mlflow.tracing.client",
    "psutil",
    "jedi",
    "git",
    "netrc",
    "mlflow.tracking.request_header.registry",
    "pandas.core.methods.to_dict",
    "pyarrow.pandas_compat",
    "matplotlib.backends.backend_agg",
    "PIL.PpmImagePlugin",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "alembic.command",
    "mlflow.sklearn.utils",
    "mlflow.xgboost._autolog",
    "mlflow.models.display_utils",
    "sklearn.utils._pprint",
    "pygments.formatters.html",
    "mlflow.lightgbm",
    "nbtrack.kernel.extension",
)
STARTED = 60.0  # seconds that a kernel may take to answer
PARTING = 5.0  # seconds that a kernel has to end
SILENT = 300.0  # seconds after which a cell hangs


class Nursery:
    """The process that kernels are forked from."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "nursery"
        self.log = folder / "nursery.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        hidden = ("MLFLOW_", "POKEBATTLE_", "PYTEST_", "JPY_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        env |= {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "kernels.py"), str(self.address)],
                env=env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 120
        while not self.address.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no kernels: {self.log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def launch(nursery: Path, **wanted: Any) -> int:
    """Ask for a kernel; return its process id."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(nursery))
        asked.sendall(json.dumps(wanted).encode() + b"\n")
        return int(asked.makefile().readline())


class Kernel:
    """One kernel and its client, which sends cells as JupyterLab does.

    Parameters
    ----------
    nursery : Path
        The address of the process that forks it.
    folder : Path
        Its working directory; paths of sockets are short, so should this one be.
    env : dict
        Its whole environment.
    """

    def __init__(self, nursery: Path, folder: Path, env: dict[str, str]) -> None:
        file = folder / "kernel.json"
        write_connection_file(str(file), transport="ipc", ip=str(folder / "s"))
        self.pid = launch(
            nursery,
            env=env,
            cwd=str(folder),
            connection=str(file),
            log=str(folder / "kernel.log"),
            program=str(folder / "ipykernel_launcher.py"),
        )
        self.ended = os.pidfd_open(self.pid)
        self.client = BlockingKernelClient(connection_file=str(file))
        self.client.load_connection_file()
        deadline = time.monotonic() + STARTED
        while not (folder / f"s-{self.client.control_port}").exists():
            if time.monotonic() > deadline or not self.alive():
                raise RuntimeError(f"no kernel: {(folder / 'kernel.log').read_text()}")
            time.sleep(0.005)
        self.client.start_channels(shell=True, iopub=False, stdin=False, hb=False, control=True)

    def alive(self) -> bool:
        """Return whether the process is alive."""
        return not select.select([self.ended], [], [], 0)[0]

    def run(self, source: str, cell_id: str) -> dict[str, Any]:
        """Execute one cell and return the reply."""
        content = {
            "code": source,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        message = self.client.session.msg("execute_request", content, metadata={"cellId": cell_id})
        self.client.shell_channel.send(message)
        deadline = time.monotonic() + SILENT
        while time.monotonic() < deadline:
            try:
                reply = self.client.get_shell_msg(timeout=1)
            except Exception:
                if not self.alive():
                    return {"status": "the kernel died"}
                continue
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return dict(reply["content"])
        return {"status": "hangs"}

    def stop(self) -> None:
        """End the kernel as JupyterLab does, which does not wait for long."""
        self.client.shutdown()
        if not select.select([self.ended], [], [], PARTING)[0]:  # it flushes a stream that is closed, for ten seconds
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.client.stop_channels()
        os.close(self.ended)


# -- the process that kernels are forked from ------------------------------------------------------


def main() -> None:
    """Fork a kernel for every request, until standard input closes."""
    address = Path(sys.argv[1])
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # ipykernel reads it when it is imported
    for name in IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    requirements_utils._init_packages_to_modules_map()  # else each kernel reads the files of all packages for its model
    gc.collect()
    gc.freeze()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{address}.new")
    listening.listen(64)
    Path(f"{address}.new").rename(address)
    for wanted in _requests(listening):
        with contextlib.suppress(Exception):
            os.chdir(wanted["cwd"])
        _be_kernel(wanted)
        _end()


def _end() -> None:
    """End as Python does, without taking apart what was imported, which would copy all of the parent's memory."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    os._exit(0)


def _requests(listening: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield a request in the child that was forked for it; the parent continues, and reaps."""
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [], 0.5)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if sys.stdin in ready:
            os._exit(0)
        if listening not in ready:
            continue
        asked, _ = listening.accept()
        wanted = json.loads(asked.makefile().readline())
        if pid := os.fork():
            asked.sendall(f"{pid}\n".encode())
            asked.close()
        else:
            asked.close()
            listening.close()
            yield wanted


def _be_kernel(wanted: dict[str, Any]) -> None:
    os.setsid()
    log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(wanted["env"], JPY_PARENT_PID=str(os.getppid()))
    sys.argv = [wanted["program"], "-f", wanted["connection"]]
    from ipykernel.kernelapp import IPKernelApp
    from mlflow.tracking import fluent

    atexit.unregister(fluent._safe_end_run)
    app = IPKernelApp.instance()
    app.initialize([*sys.argv[1:], "--HistoryManager.hist_file=:memory:"])
    if wanted["env"]["POKEBATTLE_TRACKING"] == "off":  # as when a cell imports mlflow: it ends runs before the streams
        atexit.register(fluent._safe_end_run)
    app.start()


if __name__ == "__main__":
    main()
