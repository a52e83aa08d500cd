"""A sender that dies is replaced while its kernel lives, and after it by the next process that looks."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from guard import guarded
from test_lab import free_port
from waiting import wait_for

from nbtrack.executions import execution_folder
from nbtrack.files import read_json
from nbtrack.journal import read_events
from nbtrack.sender import process


def senders(folder: Path) -> list[int]:
    done = subprocess.run(["pgrep", "-f", f"sender.*{folder}"], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


@pytest.fixture
def kernel(tracked: Any, lab_kernel: Any, make_notebook: Any, request: Any) -> Iterator[Any]:
    """A kernel of a notebook with the test's name; the environment of its state is the test's too."""
    started = lab_kernel(tracked, tracked.write(f"{request.node.name}.ipynb", make_notebook("1", "2")))
    with contextlib.ExitStack() as stack:
        stack.callback(started.stop)
        started.stack = stack
        yield started


def test_a_sender_is_replaced_while_its_kernel_idles(tracked: Any, kernel: Any, request: Any) -> None:
    kernel.run("import mlflow; mlflow.log_metric('loss', 1.0)", "cell-0")
    (folder,) = tracked.executions()
    before = wait_for(lambda: senders(folder), "a sender")
    os.kill(before[0], signal.SIGKILL)
    (after,) = wait_for(lambda: [pid for pid in senders(folder) if pid not in before], "another sender")
    kernel.stack.close()
    (run,) = tracked.runs(request.node.name)
    assert run.info.status == "FINISHED" and run.data.metrics["loss"] == 1.0
    assert after != before[0]


def test_what_looks_after_the_sender_is_no_thread_of_the_cells(tracked: Any, kernel: Any) -> None:
    kernel.run("import threading\nopen('threads', 'w').write(str([t.name for t in threading.enumerate()]))", "cell-0")
    assert "_replace" not in (tracked.folder / "threads").read_text()


def test_a_kernel_that_lives_on_is_not_taken_for_ended(tracked: Any, kernel: Any, request: Any) -> None:
    """Two of its threads found the sender gone, and each has started one: the first hears no bell any more."""
    kernel.run("from nbtrack.kernel.execution import current\ncurrent()._start_sender()", "cell-0")

    def delivered() -> list[str]:
        place = tracked.client.get_experiment_by_name(request.node.name)
        runs = tracked.client.search_runs([place.experiment_id]) if place else []
        return [metric for run in runs for metric in run.data.metrics]

    for metric in ("soon", "late"):  # what delivered the one has looked at its kernel when it delivers the other
        kernel.run(f"import mlflow; mlflow.log_metric('{metric}', 2.0)", "cell-1")
        wait_for(delivered, metric, until=lambda metrics, metric=metric: metric in metrics)
    (folder,) = tracked.executions()
    assert not [event for _, _, event in read_events(folder) if event["kind"] == "kernel_end"]
    kernel.stack.close()
    (run,) = tracked.runs(request.node.name)
    assert run.info.status == "FINISHED" and run.data.metrics["late"] == 2.0


def test_the_next_kernel_has_delivered_what_was_left(tracked: Any, kernel: Any, write: Any) -> None:
    write("20260101-left")
    kernel.run("1", "cell-0")
    wait_for(lambda: "status" in read_json(execution_folder("20260101-left") / "run.json"), "delivery")
    (run,) = tracked.client.search_runs([tracked.client.get_experiment_by_name("20260101-left").experiment_id])
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize("command", ["runs", "doctor"])
def test_whoever_asks_has_what_was_left_delivered(tracked: Any, write: Any, command: str) -> None:
    write(name := f"20260103-{command}")
    tracked.execute("python", "-m", "pokebattle", command)
    wait_for(lambda: "status" in read_json(execution_folder(name) / "run.json"), "delivery")
    assert tracked.runs(name)[0].info.status == "FINISHED"


def test_jupyters_server_has_delivered_what_was_left(tracked: Any, write: Any) -> None:
    write("20260102-left")
    home = {f"JUPYTER_{name}_DIR": str(tracked.folder / "jupyter" / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    command = [
        sys.executable,
        "-m",
        "jupyter_server",
        f"--ServerApp.port={free_port()}",
        "--allow-root",
        "--no-browser",
    ]
    with (tracked.folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=tracked.folder, env=tracked.env | home, stdout=log, stderr=log, start_new_session=True
        )
    with guarded(server.pid):
        wait_for(lambda: "status" in read_json(execution_folder("20260102-left") / "run.json"), "delivery")
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    assert tracked.runs("20260102-left")[0].info.status == "FINISHED"


def test_a_clock_that_jumps_does_not_end_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the clock and the pause that follows from it the machine may have slept."""
    listen, bell = os.pipe()
    os.write(bell, b"..")
    clock = iter([1.0, 1.0, 1.1, 5.0])
    settled, asked = mock.Mock(), mock.Mock()

    def select(reading: list[int], *_: Any) -> Any:
        assert _[-1] >= 0
        if asked.call_count == 2:
            os.close(bell)
        asked()
        return reading, [], []

    one, read = object.__new__(process.SenderProcess), os.read
    one.kernel_pid, one.writer = 0, settled
    monkeypatch.setattr(process.time, "monotonic", lambda: next(clock, 9.0))
    monkeypatch.setattr(process.select, "select", select)
    monkeypatch.setattr(process.os, "read", lambda fd, _: read(fd, 1))
    for name in ("_leave_with", "leave_terminal"):
        monkeypatch.setattr(process, name, lambda *_: None)
    monkeypatch.setattr(process.os, "nice", lambda _: None)
    for name in ("_note_end", "_attempt"):
        monkeypatch.setattr(one, name, lambda *_, **__: None, raising=False)
    monkeypatch.setattr(one, "_has_ended", lambda: True, raising=False)
    one.serve(listen)
    assert asked.call_count == 3
    os.close(listen)
