"""A server that is well and takes long for one answer is waited for; one that answers nothing is not."""

from pathlib import Path
from typing import Any

import pytest
from faults import FaultProxy
from waiting import wait_for

from nbtrack.local_ids import LOCAL

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
    before = proxy.count("POST", BATCH)
    wait_for(lambda: proxy.count("POST", BATCH) >= before + 4, "four attempts, each later after the one before")
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


QUESTIONS = """
import mlflow
for ask in (
    lambda: mlflow.get_experiment_by_name('Default'),
    lambda: mlflow.search_runs(experiment_ids=['0'], output_format='list'),
    lambda: mlflow.MlflowClient().get_run({run!r}),
):
    try:
        said = f'answered {{type(ask()).__name__}}'
    except Exception as raised:
        said = f'{{type(raised).__name__}}: {{raised}}'
    print(said, file=open('said', 'a'))"""

BACK = """
import time
for _ in range(600):  # a server that is away is looked for once a second
    try:
        mlflow.search_experiments()
        break
    except mlflow.MlflowException:
        time.sleep(0.1)"""


HANDLES = """
with open('said', 'w') as file:
    try:
        1 / 0
    except ZeroDivisionError:
        for call in (
            lambda: mlflow.log_text('x', 'note.txt'),
            lambda: mlflow.set_tag('failed', 'yes'),
            lambda: mlflow.start_run(nested=True),
        ):
            try:
                call()
                print('kept', file=file)
            except Exception as raised:
                print(raised, file=file)"""


@pytest.mark.parametrize("mode", ["lose-answer", "commit-then-503"])
def test_calls_in_an_except_block_are_kept_when_answers_are_lost(
    proxy: FaultProxy, started: Any, tracked: Any, mode: str
) -> None:
    proxy.paths, proxy.mode = "runs/get", mode
    started.run(HANDLES, "cell-1")
    proxy.mode = "pass"
    said = (Path(tracked.folder) / "said").read_text().splitlines()
    assert said == ["kept"] * 3
    started.stop()
    run = next(run for run in tracked.runs("patience", 2) if "failed" in run.data.tags)
    assert run.data.tags["failed"] == "yes" and run.info.status == "FINISHED"


@pytest.mark.parametrize("mode", ["refuse", "unavailable", pytest.param("hang", marks=pytest.mark.long)])
def test_a_question_to_a_server_that_is_away_says_so(
    proxy: FaultProxy, tracked: Any, lab_kernel: Any, make_notebook: Any, mode: str
) -> None:
    """Of a server that was never there, and of one that has gone; and it is answered in between."""
    foreign = tracked.client.create_run("0").info.run_id
    proxy.mode = mode
    behind = type(tracked)(tracked.folder, proxy.uri)
    kernel = lab_kernel(behind, behind.write("asks_in_vain.ipynb", make_notebook("1")))
    kernel.run(QUESTIONS.format(run=foreign), "cell-0")
    proxy.mode = "pass"
    kernel.run(BACK, "cell-1")
    kernel.run(QUESTIONS.format(run=foreign), "cell-2")
    proxy.mode = mode
    kernel.run(QUESTIONS.format(run=foreign), "cell-3")
    kernel.stop()
    said = (Path(tracked.folder) / "said").read_text().splitlines()
    assert said[3:6] == ["answered Experiment", "answered list", "answered Run"]
    away = [line.partition(" (")[0] for line in said[:3] + said[6:]]
    assert away == [f"MlflowException: {proxy.uri} cannot answer now"] * 6


SLOWLY = """
mlflow.end_run()
default = mlflow.get_experiment_by_name('Default').experiment_id
with mlflow.start_run(run_id={run!r}) as run:
    mlflow.log_metric('b', 2)
open('said', 'w').write(f'{{default}} {{run.info.run_id}} {{run.info.run_name}}')"""


def test_an_answer_that_takes_long_is_waited_for(proxy: FaultProxy, started: Any, tracked: Any) -> None:
    foreign = tracked.client.create_run("0", run_name="foreign").info.run_id
    before = len(tracked.client.search_runs(["0"])), len(tracked.client.search_experiments())
    proxy.paths, proxy.delay, proxy.mode = "/get", 5.0, "slow"
    started.run(SLOWLY.format(run=foreign), "cell-1")
    proxy.mode = "pass"
    assert (Path(tracked.folder) / "said").read_text() == f"0 {foreign} foreign"
    assert proxy.struck["slow"] >= 2
    started.run(ASK, "cell-2")  # whose answer comes after what was written before
    stored = tracked.client.get_run(foreign)
    assert (stored.data.metrics, stored.info.status) == ({"b": 2.0}, "FINISHED")
    assert (len(tracked.client.search_runs(["0"])), len(tracked.client.search_experiments())) == before


REFUSED = """
import time
from nbtrack.kernel.execution import current
mlflow.set_tag('phase', 'first')
while not (current().progress.refresh() and current().refused):
    time.sleep(0.05)"""


def test_a_write_that_is_accepted_again_comes_after_those_that_were_denied(
    proxy: FaultProxy, started: Any, tracked: Any
) -> None:
    proxy.mode = "denied"
    started.run(REFUSED, "cell-1")
    proxy.mode = "pass"
    started.run("mlflow.set_tag('phase', 'second')", "cell-2")
    started.stop()
    done = tracked.execute("python", "-m", "pokebattle", "sync")
    assert done.returncode == 0, done.stderr
    (run,) = [run for run in tracked.runs("patience") if "phase" in run.data.tags]
    assert run.data.tags["phase"] == "second"
