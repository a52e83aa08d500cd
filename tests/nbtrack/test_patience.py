"""A server that is well and takes long for one answer is waited for; one that answers nothing is not."""

import time
from pathlib import Path
from typing import Any

import pytest
from faults import FaultProxy

from nbtrack.ids import LOCAL

BATCH = "/api/2.0/mlflow/runs/log-batch"
ASK = """
run_id = mlflow.active_run().info.run_id
try:
    said = mlflow.get_run(run_id).data.metrics['a']
except Exception as raised:
    said = raised
open('said', 'w').write(str(said))"""
START = "run = mlflow.start_run(nested=True)\nopen('said', 'w').write(run.info.run_id)"


@pytest.fixture
def proxy(mlflow_server: str) -> Any:
    with FaultProxy(mlflow_server) as proxy:
        yield proxy


@pytest.fixture
def started(proxy: FaultProxy, tracked: Any, lab_kernel: Any, make_notebook: Any) -> Any:
    """A kernel behind the proxy whose run is open."""
    behind = type(tracked)(tracked.folder, proxy.uri)
    path = behind.write("patience.ipynb", make_notebook("1"))
    kernel = lab_kernel(behind, path)
    kernel.run("import mlflow\nmlflow.log_metric('a', 1)\nmlflow.get_run(mlflow.active_run().info.run_id)", "cell-0")
    yield kernel
    kernel.stop()


def test_a_run_that_takes_long_to_create_has_the_id_of_the_server(
    proxy: FaultProxy, started: Any, tracked: Any
) -> None:
    proxy.paths, proxy.delay, proxy.mode = "runs/create", 5.0, "slow"
    started.run(START, "cell-1")
    proxy.mode = "pass"
    said = (Path(tracked.folder) / "said").read_text()
    assert not LOCAL.fullmatch(said)
    assert tracked.client.get_run(said).info.run_id == said


def test_a_server_that_pauses_is_waited_for(proxy: FaultProxy, started: Any, tracked: Any) -> None:
    proxy.delay, proxy.mode = 1.5, "slow"
    started.run(START, "cell-1")
    proxy.mode = "pass"
    assert not LOCAL.fullmatch((Path(tracked.folder) / "said").read_text())


def test_a_run_that_a_server_never_creates_has_a_local_id(proxy: FaultProxy, started: Any, tracked: Any) -> None:
    proxy.mode = "hang"
    started.run(START, "cell-1")
    assert LOCAL.fullmatch((Path(tracked.folder) / "said").read_text())


def test_a_server_that_is_back_is_asked_at_once(proxy: FaultProxy, started: Any, tracked: Any) -> None:
    proxy.mode = "unavailable"
    started.run("mlflow.log_metric('a', 2)", "cell-1")
    deadline, before = time.monotonic() + 60, proxy.count("POST", BATCH)
    while proxy.count("POST", BATCH) < before + 4 and time.monotonic() < deadline:  # each later after the one before
        time.sleep(0.02)
    proxy.mode = "pass"
    started.run(ASK, "cell-2")
    assert (Path(tracked.folder) / "said").read_text() == "2.0"


def test_a_server_far_away_is_asked_by_the_first_call(
    proxy: FaultProxy, tracked: Any, lab_kernel: Any, make_notebook: Any
) -> None:
    proxy.delay, proxy.mode = 0.4, "slow"
    behind = type(tracked)(tracked.folder, proxy.uri)
    kernel = lab_kernel(behind, behind.write("far.ipynb", make_notebook("1")))
    kernel.run(
        "import mlflow\ntry:\n    mlflow.start_run(run_id='0' * 32)\n"
        "except Exception as raised:\n    open('said', 'w').write(str(raised))",
        "cell-0",
    )
    kernel.stop()
    assert (Path(tracked.folder) / "said").read_text() == f"RESOURCE_DOES_NOT_EXIST: Run with id={'0' * 32} not found"
