"""Every ending is recorded as it was, and what waits is delivered once, with everything in it."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest
from faults import FaultProxy
from waiting import wait_for

from nbtrack import processes
from nbtrack.sender.executed_notebook import ExecutedCell
from nbtrack.sender.run_status import order

BIN = Path(sys.executable).parent
LOGS = (
    "import mlflow\nmlflow.log_param('depth', 3)",
    "for step in range(50):\n    mlflow.log_metric('loss', 1 / (step + 1), step=step)",
    "with mlflow.start_run(run_name='inner', nested=True):\n"
    "    mlflow.log_metric('inner', 2.0)\n    mlflow.log_text('kept', 'a/b.txt')",
)


def sync(tracked: Any) -> subprocess.CompletedProcess[str]:
    return tracked.execute("python", "-m", "pokebattle", "sync")


def begin(tracked: Any, path: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start papermill; wait until the notebook says that it has got to its long cell, and its run has been opened."""
    words = [str(BIN / "papermill"), path.name, "out.ipynb", *options]
    process = subprocess.Popen(words, cwd=tracked.folder, env=tracked.env, stderr=subprocess.DEVNULL)
    wait_for((tracked.folder / "reached").exists, "the long cell")
    folder = tracked.executions()[0]
    wait_for((folder / "run.json").exists, "a run that is open: who opens it watches papermill")
    return process


def senders(tracked: Any, execution: str = "") -> list[int]:
    """Return the processes that deliver what is in the folder's state, of all executions or of one."""
    place = str(tracked.folder / "state" / "executions" / execution)
    done = subprocess.run(["pgrep", "-f", place], capture_output=True, text=True, check=False)
    return [int(pid) for pid in done.stdout.split()]


def reports_signals() -> bool:
    """Return whether this system reports what ended a process that its parent has waited for: Linux does since 6.15."""
    ended = subprocess.Popen(["sleep", "60"])
    watch = processes.Watch(processes.record(ended.pid))
    ended.kill()
    ended.wait()
    return watch.cause()[1] == signal.SIGKILL


INTERRUPTED = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)"
LONG = "import pathlib, time\npathlib.Path('reached').touch()\ntime.sleep(60)"


@pytest.mark.parametrize(
    ("sign", "cause"),
    [
        (signal.SIGINT, "Ctrl-C"),
        (signal.SIGTERM, "papermill ended (SIGTERM"),
        (signal.SIGKILL, "papermill ended (SIGKILL"),
    ],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_a_papermill_that_is_ended_leaves_a_killed_run_with_its_cause(
    tracked: Any, make_notebook: Any, sign: signal.Signals, cause: str
) -> None:
    path = tracked.write(f"ended_{sign.name}.ipynb", make_notebook("x = 1", LONG))
    process = begin(tracked, path)
    process.send_signal(sign)
    process.wait(60)
    (run,) = tracked.runs(path.stem)
    assert run.info.status == "KILLED"
    assert run.data.tags["pokebattle.cause"].startswith(cause if reports_signals() else cause.partition("SIG")[0])


def test_a_cell_that_somebody_interrupts_is_not_taken_for_a_shutdown(tracked: Any, make_notebook: Any) -> None:
    assert tracked.papermill(tracked.write("sigint.ipynb", make_notebook("1", INTERRUPTED))).returncode == 1
    (run,) = tracked.runs("sigint")
    assert (run.info.status, run.data.tags["pokebattle.cause"]) == ("KILLED", "interrupted")


def test_a_kernel_that_dies_before_its_first_cell_is_a_run(tracked: Any, make_notebook: Any) -> None:
    folder = tracked.folder / "ipython" / "profile_default" / "startup"
    folder.mkdir(parents=True)
    (folder / "dies.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    path = tracked.write("unborn.ipynb", make_notebook("1"))
    assert tracked.papermill(path, IPYTHONDIR=str(tracked.folder / "ipython")).returncode != 0
    (run,) = tracked.runs("unborn")
    cause = "the kernel ended before its first cell"
    assert (run.info.status, run.data.tags["pokebattle.cause"]) == ("KILLED", cause)
    assert tracked.artifact(run, "unborn.ipynb")["cells"][0]["source"] == "1"


def test_a_kernel_that_dies_between_two_cells_is_killed(tracked: Any, make_notebook: Any) -> None:
    dies = "import os\nget_ipython().events.register('post_run_cell', lambda _: os.kill(os.getpid(), 9))"
    assert tracked.papermill(tracked.write("between.ipynb", make_notebook("1", dies, "2"))).returncode != 0
    (run,) = tracked.runs("between")
    assert (run.info.status, run.data.tags["pokebattle.cause"]) == ("KILLED", "SIGKILL, cause unknown")
    assert [cell["ok"] for cell in tracked.artifact(run, "cells.json")] == [True, True]


def test_a_kernel_restarted_in_a_cell_leaves_a_killed_run(tracked: Any, make_notebook: Any, lab_kernel: Any) -> None:
    kernel = lab_kernel(tracked, tracked.write("restarted.ipynb", make_notebook("x = 1", LONG)))
    kernel.run("x = 1", "cell-0")
    kernel.client.execute(LONG)
    wait_for((tracked.folder / "reached").exists, "the long cell")
    try:
        kernel.manager.restart_kernel()
        (run,) = tracked.runs("restarted")
    finally:
        kernel.stop()
    assert run.info.status == "KILLED"
    assert run.data.tags["pokebattle.cause"] == "the kernel was restarted in the middle of a cell"


def test_children_left_open_fail_with_their_notebook(tracked: Any, make_notebook: Any) -> None:
    opens = "import mlflow\nmlflow.start_run(run_name='child')\nmlflow.start_run(run_name='grandchild', nested=True);"
    path = tracked.write("leaves_open.ipynb", make_notebook(opens, "mlflow.log_metric('m', 1)", "1 / 0"))
    assert tracked.papermill(path).returncode == 1
    runs = {run.info.run_name: run for run in tracked.runs("leaves_open", count=3)}
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
        ("leaves_open", "child", "grandchild"), "FAILED"
    )
    assert runs["grandchild"].data.metrics == {"m": 1.0}


def test_a_mismatch_that_nbval_finds_fails_the_run(tracked: Any, make_notebook: Any) -> None:
    document = make_notebook("print('as stored')", "print('new')")
    for cell, text in zip(document.cells, ("as stored\n", "old\n"), strict=True):
        cell.execution_count = 1  # nbval compares only what was run before
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    tracked.write("compared_by_nbval.ipynb", document)
    done = tracked.execute(
        "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", "compared_by_nbval.ipynb"
    )
    assert done.returncode == 1
    runs = tracked.runs("notebook-tests")
    (run,) = [run for run in runs if run.info.run_name == "compared_by_nbval"]
    assert run.info.status == "FAILED"
    assert run.data.tags["pokebattle.failed_cell"] == "1"


def test_what_a_notebook_logged_without_a_server_is_there_once_afterwards(
    tracked: Any, make_notebook: Any, mlflow_server: str
) -> None:
    """The address is that of the test server in the end, and of nothing while the notebook runs."""
    path = tracked.write("late.ipynb", make_notebook(*LOGS))
    gone = tracked.env | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    tracked.env, reachable = gone, tracked.env
    assert tracked.papermill(path).returncode == 0
    doctor = tracked.execute("python", "-m", "pokebattle", "doctor")
    assert doctor.returncode == 1 and "late.ipynb" in doctor.stdout and "does not answer" in doctor.stdout
    assert sync(tracked).returncode == 1
    (folder,) = tracked.executions()
    journal = folder / "journal.jsonl"
    journal.write_text(journal.read_text().replace("http://127.0.0.1:9", mlflow_server))
    tracked.env = reachable
    first = subprocess.Popen([BIN / "python", "-m", "pokebattle", "sync"], env=reachable, stdout=subprocess.PIPE)
    second = sync(tracked)
    assert b"delivered" in first.communicate(timeout=60)[0] and second.returncode in {0, 1}
    assert "0 delivered" in sync(tracked).stdout
    runs = {run.info.run_name: run for run in tracked.runs("late", count=2)}
    assert len(runs) == 2
    outer, inner = runs["late"], runs["inner"]
    assert (outer.info.status, inner.info.status) == ("FINISHED", "FINISHED")
    assert outer.data.params["depth"] == "3"
    points = tracked.client.get_metric_history(outer.info.run_id, "loss")
    assert [(p.step, p.value) for p in points] == [(step, 1 / (step + 1)) for step in range(50)]
    assert inner.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert tracked.download(run_id=inner.info.run_id, artifact_path="a/b.txt").read_text() == "kept"
    assert {file.name for file in folder.iterdir()} == {"lock", "run.json"}


def test_a_sender_that_is_killed_is_started_again_and_nothing_is_lost(tracked: Any, make_notebook: Any) -> None:
    kill = (
        "import time, psutil\n"
        "def senders():\n"
        "    return [c for c in psutil.Process().children() if 'nbtrack.sender.process' in ' '.join(c.cmdline())]\n"
        "mine = senders()\nassert len(mine) == 1\nmine[0].kill(); mine[0].wait()\n"
        "while not senders():\n    mlflow.log_metric('alone', 1.0)\n    time.sleep(0.1)"
    )
    path = tracked.write("shot.ipynb", make_notebook(LOGS[0], LOGS[1], kill, "mlflow.log_metric('after', 1.0)", kill))
    assert tracked.papermill(path).returncode == 0
    assert sync(tracked).returncode == 0
    (run,) = tracked.runs("shot")
    assert run.info.status == "FINISHED"
    assert len(tracked.client.get_metric_history(run.info.run_id, "loss")) == 50
    assert run.data.metrics["after"] == 1.0


def test_what_the_server_never_takes_is_set_aside_and_blocks_nothing(
    tracked: Any, make_notebook: Any, mlflow_server: str
) -> None:
    cells = (
        "import mlflow\nmlflow.log_param('a', 1)\nmlflow.set_tag(251 * 't', 'v')",
        "mlflow.log_metric(251 * 'k', 1.0)",
        "mlflow.log_metric('behind', 3.0)",
    )
    with FaultProxy(mlflow_server) as proxy:
        proxy.mode = "refuse"
        path = tracked.write("clash.ipynb", make_notebook(*cells))
        assert tracked.papermill(path, MLFLOW_TRACKING_URI=proxy.uri).returncode == 0
        proxy.mode = "pass"
        assert sync(tracked).returncode == 0
    (run,) = tracked.runs("clash")
    assert (run.data.params["a"], run.data.metrics["behind"]) == ("1", 3.0)
    assert run.data.tags["pokebattle.set_aside"].startswith("2: ")
    doctor = tracked.execute("python", "-m", "pokebattle", "doctor")
    assert doctor.returncode == 1 and "set aside" in doctor.stdout
    (folder,) = tracked.executions()
    assert tracked.execute("python", "-m", "pokebattle", "sync", "--forget", folder.name).returncode == 0
    assert "set aside" not in tracked.execute("python", "-m", "pokebattle", "doctor").stdout


def test_who_may_not_register_still_logs(tracked: Any, make_notebook: Any, mlflow_server: str) -> None:
    tracked.client.create_registered_model("others")
    cells = (
        "import mlflow\nmlflow.MlflowClient().set_registered_model_tag('others', 'seen', 'yes')",
        "mlflow.log_metric('behind', 3.0)",
    )
    path = tracked.write("reader.ipynb", make_notebook(*cells))
    with FaultProxy(mlflow_server) as proxy:
        proxy.paths, proxy.mode = "/registered-models/set-tag", "denied"
        assert tracked.papermill(path, MLFLOW_TRACKING_URI=proxy.uri).returncode == 0
        (run,) = tracked.runs("reader")
        assert (run.info.status, run.data.metrics["behind"]) == ("FINISHED", 3.0)
        assert "HTTP 403 PERMISSION_DENIED" in run.data.tags["pokebattle.set_aside"]
        sync = ("python", "-m", "pokebattle", "sync")
        synced = tracked.execute(*sync)
        assert synced.returncode == 0 and ": set aside: HTTP 403" in synced.stdout
        assert "once you have permission" in tracked.execute("python", "-m", "pokebattle", "doctor").stdout
        proxy.mode = "pass"  # and now they may
        assert ": delivered as " in tracked.execute(*sync).stdout
    assert tracked.client.get_registered_model("others").tags == {"seen": "yes"}
    assert "pokebattle.set_aside" not in tracked.client.get_run(run.info.run_id).data.tags
    assert "set aside" not in tracked.execute("python", "-m", "pokebattle", "doctor").stdout


def test_a_version_that_a_notebook_is_still_registering_is_waited_for(
    tracked: Any, make_notebook: Any, mlflow_server: str
) -> None:
    cell = (
        "import mlflow\nclient, run = mlflow.MlflowClient(), mlflow.active_run() or mlflow.start_run()\n"
        "client.create_registered_model('coming')\n"
        "place = f'{run.info.artifact_uri}/model'\n"
        "client.create_model_version('coming', place, run.info.run_id, await_creation_for=None)"
    )
    promote = ("python", "-m", "pokebattle", "promote", "1", "--to", "Staging", "--model-name", "coming")
    with FaultProxy(mlflow_server) as proxy, ThreadPoolExecutor() as pool:
        tracked.env["MLFLOW_TRACKING_URI"] = proxy.uri
        assert "no registered model coming" in tracked.execute(*promote).stderr
        proxy.paths, proxy.mode = "/registered-models/create", "hang"
        done = tracked.papermill(tracked.write("coming.ipynb", make_notebook(cell)))
        assert done.returncode == 0, done.stderr
        assert "timed out" not in (tracked.executions()[0] / "run.json").read_text()  # its output ended before that
        before = proxy.count("GET", "/api/2.0/mlflow/registered-models/get")
        asked = pool.submit(tracked.execute, *promote)
        wait_for(lambda: proxy.count("GET", "/api/2.0/mlflow/registered-models/get") > before, "another look")
        proxy.mode = "pass"
        message = asked.result().stderr
        assert "version 1 cannot be judged" in message, message  # so it is there
        assert "has no version 9; its versions are 1" in tracked.execute(*promote[:4], "9", *promote[5:]).stderr


def test_a_deleted_experiment_refuses_the_execution_until_it_is_restored(tracked: Any, make_notebook: Any) -> None:
    experiment = tracked.client.create_experiment("deleted_one")
    tracked.client.delete_experiment(experiment)
    assert tracked.papermill(tracked.write("deleted_one.ipynb", make_notebook("1 + 1"))).returncode == 0
    assert tracked.papermill(tracked.write("behind_it.ipynb", make_notebook("1 + 1"))).returncode == 0
    assert tracked.runs("behind_it")[0].info.status == "FINISHED"
    assert "restore" in tracked.execute("python", "-m", "pokebattle", "doctor").stdout
    tracked.client.restore_experiment(experiment)
    assert sync(tracked).returncode == 0
    assert tracked.runs("deleted_one")[0].info.status == "FINISHED"


SESSION = {
    "params": "depth: int = 6",
    "fit": "from sklearn.linear_model import LogisticRegression as Model\nModel(C=depth).fit([[0.], [1.]], [0, 1]);",
    "judge": "from nbtrack.kernel.execution import current\n"
    "current().emit('metrics', values={'score': depth})\ncurrent().describe('result', f'score {depth}')",
    "broken": "1 / 0",
    "last": "1 + 1",
}


def test_all_cells_run_again_in_lab_are_a_second_attempt_which_the_run_shows(
    tracked: Any, make_notebook: Any, lab_kernel: Any
) -> None:
    kernel = lab_kernel(tracked, tracked.write("again.ipynb", make_notebook(parameters=SESSION["params"])))
    try:
        for depth in (6, 3):
            for name, source in SESSION.items():
                kernel.run(source.replace("6", str(depth)), name)

        def shown() -> dict[str, Any]:
            experiment = tracked.client.get_experiment_by_name("again")
            return {
                run.info.run_name: (run.data.tags.get("mlflow.note.content", ""), run.data.params)
                for run in (tracked.client.search_runs([experiment.experiment_id]) if experiment else [])
            }

        live = wait_for(shown, "score 3", until=lambda runs: "score 3" in runs.get("again", ("", {}))[0])
    finally:
        kernel.stop()
    page, params = live["again"]
    assert params == {} and "depth `3`" in page and "attempt 2" in page and "ZeroDivisionError" in page
    assert live["attempt 2"][1] == {"depth": "3", "LogisticRegression.C": "3"} | live["attempt 2"][1]
    runs = {run.info.run_name: run for run in tracked.runs("again", count=3)}
    values = {
        name: (run.data.params["LogisticRegression.C"], run.data.params["depth"], run.data.metrics["score"])
        for name, run in runs.items()
    }
    assert values == {"again": ("3", "3", 3.0), "attempt 1": ("6", "6", 6.0), "attempt 2": ("3", "3", 3.0)}
    seconds = {name: run.data.metrics["fit/LogisticRegression/seconds"] for name, run in runs.items()}
    assert seconds["again"] == seconds["attempt 2"] != seconds["attempt 1"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    tags = runs["again"].data.tags
    assert tags["mlflow.note.content"].startswith("score 3\n\n**Cell [9] failed:** `ZeroDivisionError: ")
    assert tags["pokebattle.error"].startswith("ZeroDivisionError") and "1 / 0" in tags["pokebattle.traceback"]
    assert tags["pokebattle.order"] == "out of order, edited"


DRAWS = "from base64 import b64encode\ndisplay({{'image/png': b64encode(b'{}').decode()}}, raw=True)"


def test_the_pictures_of_a_run_are_those_of_the_last_fit(tracked: Any, make_notebook: Any, lab_kernel: Any) -> None:
    kernel = lab_kernel(tracked, tracked.write("pictures.ipynb", make_notebook("1")))
    try:
        for depth in (6, 3):
            kernel.run(DRAWS.format("above"), "above")
            kernel.run(f"depth = {depth}\n" + SESSION["fit"] + "\n" + DRAWS.format(f"fit with {depth}"), "fit")
            if depth == 6:
                kernel.run(DRAWS.format("below 6"), "below")
    finally:
        kernel.stop()
    figures = {run.info.run_name: _figures(tracked, run) for run in tracked.runs("pictures", count=3)}
    assert figures == {
        "pictures": {"cell_04.png": "above", "cell_05.png": "fit with 3"},
        "attempt 1": {"cell_03.png": "below 6"},
        "attempt 2": {},
    }


def _figures(tracked: Any, run: Any) -> dict[str, str]:
    """Return a run's figures, which are texts here."""
    names = [file.path for file in tracked.client.list_artifacts(run.info.run_id, "figures")]
    files = [tracked.download(run_id=run.info.run_id, artifact_path=name) for name in names]
    return {file.name: file.read_text() for file in files}


def test_a_notebook_that_executes_notebooks_is_their_parent(tracked: Any, make_notebook: Any) -> None:
    tracked.write("inner_one.ipynb", make_notebook("1 + 1"))
    outer = "import papermill\npapermill.execute_notebook('inner_one.ipynb', 'inner_out.ipynb', progress_bar=False);"
    assert tracked.papermill(tracked.write("outer_one.ipynb", make_notebook(outer))).returncode == 0
    (parent,), (child,) = tracked.runs("outer_one"), tracked.runs("inner_one")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_notebook_is_not_delivered_before_the_run_of_the_one_that_executes_it(
    tracked: Any, make_notebook: Any, mlflow_server: str
) -> None:
    """The server is back, but the sender that would open the parent's run is stopped."""
    tracked.write("early_inner.ipynb", make_notebook("1 + 1"))
    outer = "import papermill\npapermill.execute_notebook('early_inner.ipynb', 'in.ipynb', progress_bar=False);"
    path = tracked.write("late_outer.ipynb", make_notebook(outer, LONG))
    with FaultProxy(mlflow_server) as proxy:
        proxy.mode = "refuse"
        tracked.env["MLFLOW_TRACKING_URI"] = proxy.uri
        process = begin(tracked, path)
        wait_for(lambda: len(senders(tracked)) <= 1, "the child's sender to try and leave")
        (sender,) = senders(tracked, tracked.executions()[0].name)
        os.kill(sender, signal.SIGSTOP)
        proxy.mode = "pass"
        output, early = sync(tracked).stdout, tracked.client.get_experiment_by_name("early_inner")
        os.kill(sender, signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        process.wait(60)
        assert "not open yet" in output and early is None
        (parent,) = tracked.runs("late_outer")
        sync(tracked)
        (child,) = tracked.runs("early_inner")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_untracked_cells_and_notebooks_leave_no_trace(tracked: Any, make_notebook: Any) -> None:
    hidden = "# no-track\ndef hidden_function():\n    raise ValueError('shown')\nprint('hidden' + '_output')"
    value, name = "hunter2" * 2, "DB_PASSWORD"
    path = tracked.write("private.ipynb", make_notebook(hidden, f"print('{name}={value}')", "hidden_function()"))
    assert tracked.papermill(path).returncode == 1
    (run,) = tracked.runs("private")
    stored = "".join(run.data.tags.values())
    for item in tracked.client.list_artifacts(run.info.run_id):
        stored += tracked.download(run_id=run.info.run_id, artifact_path=item.path).read_text()
    assert "hidden_output" not in stored and "raise ValueError" not in stored
    assert value not in stored
    assert "shown" in stored
    off = make_notebook("1", metadata={"pokebattle": {"track": False}})
    assert tracked.papermill(tracked.write("never.ipynb", off)).returncode == 0
    assert tracked.client.get_experiment_by_name("never") is None
    assert len(tracked.executions()) == 1


def test_a_full_spool_drops_outputs_counts_them_and_reports_the_end(tracked: Any, make_notebook: Any) -> None:
    cells = (
        "print('x' * 3_000_000)",
        "import mlflow\nmlflow.log_metric('small', 1.0)\nmlflow.log_text('y' * 2_000_000, 'big.txt')",
    )
    done = tracked.papermill(tracked.write("full.ipynb", make_notebook(*cells)), POKEBATTLE_SPOOL_MB="0.1")
    assert done.returncode == 0
    (run,) = tracked.runs("full")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["small"] == 1.0
    count, size = (int(word) for word in run.data.tags["pokebattle.dropped"].split() if word.isdigit())
    assert count == 2 and size > 5_000_000
    assert "big.txt" not in {item.path for item in tracked.client.list_artifacts(run.info.run_id)}


def test_what_a_full_disk_took_is_delivered_once_and_the_rest_is_counted(tracked: Any, make_notebook: Any) -> None:
    """A limit on the size of files replaces a full disk: the kernel's writes fail in the middle of a line."""
    full = (
        "import pathlib, resource\n"
        "(journal,) = pathlib.Path('state/executions').glob('*/journal.jsonl')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 3000, resource.RLIM_INFINITY))"
    )
    empty = "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"
    cells = (
        "import mlflow\nmlflow.log_metric('before', 1.0)",
        full,
        "for step in range(100):\n    mlflow.log_metric('loss', step, step=step)",
        empty,
        "mlflow.log_metric('after', 1.0)",
    )
    path = tracked.write("disk.ipynb", make_notebook(*cells))
    assert tracked.papermill(path, IPYTHONDIR=str(tracked.folder / "ipython")).returncode == 0
    (run,) = tracked.runs("disk")
    assert run.info.status == "FINISHED"
    assert (run.data.metrics["before"], run.data.metrics["after"]) == (1.0, 1.0)
    steps = [point.step for point in tracked.client.get_metric_history(run.info.run_id, "loss")]
    assert steps == list(range(len(steps))) and 0 < len(steps) < 100
    dropped = int(run.data.tags["pokebattle.dropped"].split()[0])
    assert dropped > 100 - len(steps)  # the begin and the end of cells too
    assert [cell["ok"] for cell in tracked.artifact(run, "cells.json")] == [True, True, False, True, True]


@pytest.mark.parametrize(("last", "status"), [("1 + 1", "FINISHED"), ("raise LookupError('unseen')", "FAILED")])
def test_a_disk_that_stays_full_leaves_the_true_end(tracked: Any, make_notebook: Any, last: str, status: str) -> None:
    full = (
        "import pathlib, resource\n"
        "(journal,) = pathlib.Path('state/executions').glob('*/journal.jsonl')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (max(1000, journal.stat().st_size), resource.RLIM_INFINITY))"
    )
    path = tracked.write(f"brim{status}.ipynb", make_notebook(full, "2 + 2", last))
    done = tracked.papermill(path, IPYTHONDIR=str(tracked.folder / "ipython"))
    assert done.returncode == (status == "FAILED")
    (run,) = tracked.runs(path.stem)
    assert (run.info.status, run.data.tags["pokebattle.order"]) == (status, "top to bottom")
    assert [cell["ok"] for cell in tracked.artifact(run, "cells.json")][-1] is (status == "FINISHED")


def test_an_execution_whose_processes_all_died_is_closed_by_the_next_one(tracked: Any, make_notebook: Any) -> None:
    path = tracked.write("stranded.ipynb", make_notebook("x = 1", LONG))
    process = begin(tracked, path)
    pids = senders(tracked)
    kernels = [int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids]
    for pid in [*pids, *kernels]:
        os.kill(pid, signal.SIGKILL)
    process.wait(60)
    assert tracked.papermill(tracked.write("next_one.ipynb", make_notebook("1 + 1"))).returncode == 0
    (run,) = tracked.runs("stranded")
    assert run.info.status == "KILLED"
    assert "found later" in run.data.tags["pokebattle.cause"]


def cell(name: str, turn: int) -> ExecutedCell:
    """A cell named by a letter, of which another case is another text."""
    return ExecutedCell({"source": name, "cell_id": name.lower(), "time": turn})


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        ("abc", "top to bottom"),
        ("ab", "in order, not to the end"),
        ("acb", "out of order"),
        ("abbc", "out of order"),
        ("aBc", "top to bottom, edited"),
        ("aB", "in order, not to the end, edited"),
        ("abBc", "out of order, edited"),
        ("aBbc", "out of order"),
        ("abxc", "top to bottom, edited"),
        ("axbx", "out of order, edited"),
    ],
)
@pytest.mark.parametrize("with_ids", [True, False])
def test_the_order_distinguishes_edited_from_out_of_order(ran: str, expected: str, with_ids: bool) -> None:
    saved = [{"cell_type": "code", "source": name} | ({"id": name} if with_ids else {}) for name in "abc"]
    executed = [cell(name, turn) for turn, name in enumerate(ran)]
    if not with_ids:
        for one in executed:
            one.id = None
        if set("Bx") & set(ran):  # of another text it is not known which cell it is
            return
    assert order(executed, saved) == expected


def test_every_output_of_a_cell_that_is_run_again_is_kept(tracked: Any, make_notebook: Any, lab_kernel: Any) -> None:
    kernel = lab_kernel(tracked, tracked.write("repeated.ipynb", make_notebook("print(1)", "x = 0")))
    try:
        kernel.run("print('first', 1)", "cell-0")
        kernel.run("# no-track\nprint('hid' + 'den')", "cell-1")
        kernel.run("print('password: ' + 'hunter22', 2)", "cell-0")
    finally:
        kernel.stop()
    (run,) = tracked.runs("repeated")
    every = tracked.artifact(run, "repeated_in_order.ipynb")
    nbformat.validate(nbformat.from_dict(every))
    shown = [[output["text"] for output in cell["outputs"]] for cell in every["cells"]]
    assert shown == [["first 1\n"], [], ["password: [masked] 2\n"]]
    assert [cell["source"] for cell in every["cells"]][:2] == ["print('first', 1)", "# no-track"]
    assert all(cell["metadata"]["seconds"] >= 0 for cell in every["cells"])
    last = tracked.artifact(run, "repeated.ipynb")["cells"]
    assert [len(cell["outputs"]) for cell in last] == [1, 0] and last[0]["outputs"][0]["text"].endswith(" 2\n")


def test_what_a_refused_server_missed_arrives_by_itself_when_it_is_back(
    tracked: Any, make_notebook: Any, mlflow_server: str
) -> None:
    """`sync` is not called; and a notebook that was executed by another is its child although neither had a run."""
    tracked.write("missed_inner.ipynb", make_notebook("1 + 1"))
    outer = "import papermill\npapermill.execute_notebook('missed_inner.ipynb', 'in.ipynb', progress_bar=False);"
    path = tracked.write("missed_outer.ipynb", make_notebook(outer))
    with FaultProxy(mlflow_server) as proxy:
        proxy.mode = "refuse"
        done = tracked.papermill(path, MLFLOW_TRACKING_URI=proxy.uri, POKEBATTLE_LINGER="60")
        assert done.returncode == 0
        for stem in ("missed_outer", "missed_inner"):
            assert tracked.client.get_experiment_by_name(stem) is None
        proxy.mode = "pass"
        (parent,), (child,) = tracked.runs("missed_outer"), tracked.runs("missed_inner")
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_loss_of_power_leaves_a_killed_run_with_all_that_was_written(
    tracked: Any, make_notebook: Any, lab_kernel: Any, mlflow_server: str
) -> None:
    """The disk has the journal up to the middle of a line, and the machine comes up under another boot id."""
    with FaultProxy(mlflow_server) as proxy:
        proxy.mode = "refuse"
        tracked.env["MLFLOW_TRACKING_URI"] = proxy.uri
        kernel = lab_kernel(tracked, tracked.write("power.ipynb", make_notebook("1")))
        try:
            kernel.run("import mlflow\nfor step in range(20):\n    mlflow.log_metric('loss', step / 4, step=step)", "a")
            kernel.client.execute(LONG)
            wait_for((tracked.folder / "reached").exists, "the long cell")
            (sender,) = senders(tracked)
            os.kill(sender, signal.SIGKILL)
        finally:
            kernel.stop()
        (folder,) = tracked.executions()
        journal = folder / "journal.jsonl"
        lines = journal.read_text().splitlines(keepends=True)
        boot = json.loads(lines[0])["kernel"]["boot"]
        cut = next(n for n, line in enumerate(lines) if '"loss"' in line and '"step": 15' in line)
        lines[0] = lines[0].replace(boot, boot[::-1])
        journal.write_text("".join(lines[:cut]) + lines[cut][: len(lines[cut]) // 2])
        proxy.mode = "pass"
        assert "1 delivered" in sync(tracked).stdout
    (run,) = tracked.runs("power")
    assert run.info.status == "KILLED"
    assert run.data.tags["pokebattle.cause"] == "the machine was restarted, found later"
    points = tracked.client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(step, step / 4) for step in range(15)]


def test_two_kernels_that_begin_an_experiment_at_once_share_it(
    tracked: Any, make_notebook: Any, mlflow_server: str
) -> None:
    """Both have seen that there is none before either creates it."""
    metadata = {"pokebattle": {"experiment": "begun_by_two"}}
    paths = [tracked.write(f"begins_{n}.ipynb", make_notebook("1 + 1", metadata=metadata)) for n in range(2)]
    with FaultProxy(mlflow_server) as proxy:
        proxy.paths, proxy.delay, proxy.mode = "experiments/create", 60.0, "slow"
        env = tracked.env | {"MLFLOW_TRACKING_URI": proxy.uri}
        both = [
            subprocess.Popen(
                [BIN / "papermill", path.name, f"out-{path.name}"],
                cwd=tracked.folder,
                env=env,
                stderr=subprocess.DEVNULL,
            )
            for path in paths
        ]
        wait_for(lambda: proxy.struck["slow"] >= 2, "two who begin it")
        assert proxy.struck["slow"] == 2
        proxy.mode = "pass"
        assert [process.wait(60) for process in both] == [0, 0]
        runs = tracked.runs("begun_by_two", count=2)
    assert sorted(run.info.run_name for run in runs) == ["begins_0", "begins_1"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert [one.name for one in tracked.client.search_experiments(filter_string="name LIKE 'begun_by%'")] == [
        "begun_by_two"
    ]
