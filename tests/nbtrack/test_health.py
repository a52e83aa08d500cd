"""What ``doctor``, ``runs`` and ``sync --close`` print and do."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from faults import FaultProxy
from waiting import wait_for

from nbtrack import processes


def verb(tracked: Any, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return tracked.execute("python", "-m", "pokebattle", *words, **env)


def open_run(tracked: Any, name: str, kernel: dict[str, Any]) -> str:
    """Open a run as an execution of that kernel does, and leave it."""
    experiment = tracked.client.get_experiment_by_name("abandoned")
    place = experiment.experiment_id if experiment else tracked.client.create_experiment("abandoned")
    tags = {f"pokebattle.{key}": str(value) for key, value in kernel.items()} | {"pokebattle.execution": name}
    hour_ago = int(time.time() * 1000) - 3_600_000
    return str(tracked.client.create_run(place, hour_ago, tags, name).info.run_id)


def test_doctor_is_content_with_what_works(tracked: Any) -> None:
    doctor = verb(tracked, "doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert f"{tracked.uri} answers" in doctor.stdout and "BAD" not in doctor.stdout


def test_doctor_names_what_is_wrong_and_how_to_mend_it(tracked: Any) -> None:
    off = verb(tracked, "doctor", POKEBATTLE_TRACKING="off")
    assert off.returncode == 1 and "unset POKEBATTLE_TRACKING" in off.stdout
    no_server = verb(tracked, "doctor", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert no_server.returncode == 1 and "http://127.0.0.1:9 does not answer" in no_server.stdout
    odd = verb(tracked, "doctor", MLFLOW_TRACKING_URI="127.0.0.1:5000")
    assert odd.returncode == 1 and "expected http://host:port" in odd.stdout and "Traceback" not in odd.stderr


def test_doctor_names_settings_that_are_none_and_a_state_that_cannot_be_written(tracked: Any) -> None:
    said = verb(tracked, "doctor", POKEBATTLE_TRACKING="maybe", POKEBATTLE_SPOOL_MB="-1", POKEBATTLE_LINGER="long")
    for line in (
        "POKEBATTLE_TRACKING: expected on or off, got 'maybe'",
        "POKEBATTLE_SPOOL_MB: expected a number from 0, got '-1'; using 4096",
        "POKEBATTLE_LINGER: expected a number from 0, got 'long'",
    ):
        assert f"BAD  setting    {line}" in said.stdout
    (tracked.folder / "file").write_text("")
    for place in ("/proc/nobody", str(tracked.folder / "file" / "below")):
        said = verb(tracked, "doctor", POKEBATTLE_STATE=place)
        assert (
            said.returncode == 1
            and f"BAD  spool      {place}/executions: " in said.stdout
            and "is not writable" in said.stdout
        )


def test_runs_takes_a_count(tracked: Any) -> None:
    said = verb(tracked, "runs", "-n", "-3")
    assert said.returncode == 2 and "Invalid value for '-n': -3 is not in the range x>=0" in said.stderr


def test_only_a_run_of_this_host_whose_kernel_is_gone_is_closed(tracked: Any) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gone = processes.identity(ended.pid)
    ended.communicate(b"\n")
    alive = processes.identity(os.getpid())
    ids = {
        name: open_run(tracked, name, kernel)
        for name, kernel in {"gone": gone, "alive": alive, "foreign": gone | {"host": "elsewhere.example"}}.items()
    }
    doctor = verb(tracked, "doctor")
    assert doctor.returncode == 1 and f"sync --close {ids['gone']}" in doctor.stdout
    assert ids["alive"] not in doctor.stdout
    (stale,) = [line for line in doctor.stdout.splitlines() if ids["foreign"] in line]
    assert "elsewhere.example has sent no heartbeat since" in stale
    said = {name: verb(tracked, "sync", "--close", run).stdout for name, run in ids.items()}
    assert "was not closed: its kernel is alive" in said["alive"]
    assert "was not closed: only elsewhere.example can tell" in said["foreign"]
    unknown = verb(tracked, "sync", "--close", "0" * 32)
    assert unknown.returncode == 1 and unknown.stderr.startswith("Error: run 000") and unknown.stderr.count("\n") == 1
    status = {name: tracked.client.get_run(run).info.status for name, run in ids.items()}
    assert status == {"gone": "KILLED", "alive": "RUNNING", "foreign": "RUNNING"}
    for name in ("alive", "foreign"):
        tracked.client.set_terminated(ids[name], "KILLED")


def test_runs_lists_what_was_executed(tracked: Any, make_notebook: Any) -> None:
    assert "no execution yet" in verb(tracked, "runs").stdout
    cells = ("import mlflow\nmlflow.log_metric('log_loss', 0.25)",)
    path = tracked.write("listed.ipynb", make_notebook(*cells, parameters="version = 'v9'"))
    assert tracked.papermill(path).returncode == 0
    (run,) = tracked.runs("listed")
    row = verb(tracked, "runs").stdout.splitlines()[1]
    for expected in ("FINISHED", "listed.ipynb", "v9", "log_loss 0.25", run.info.run_id):
        assert expected in row
    command = f"{sys.executable} -m pokebattle runs | head -c 1"  # the reader goes away before anything is written
    done = subprocess.run(
        ["bash", "-c", f"sleep 1; {command}"],
        cwd=tracked.folder,
        env=tracked.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr


LOOKS = """
import subprocess, sys, time
row, deadline = "", time.monotonic() + 30
while "v9" not in row and time.monotonic() < deadline:
    row = subprocess.run([sys.executable, "-m", "pokebattle", "runs"], capture_output=True, text=True).stdout
print(row)
"""


def test_runs_shows_the_version_of_what_is_running(tracked: Any, make_notebook: Any) -> None:
    path = tracked.write("looks.ipynb", make_notebook(LOOKS, parameters="version = 'v9'"))
    assert tracked.papermill(path).returncode == 0
    (row,) = [
        line
        for line in (tracked.folder / "out.ipynb").read_text().splitlines()
        if "looks.ipynb" in line and "RUNNING" in line
    ]
    assert "v9" in row and tracked.runs("looks")[0].info.run_id in row


def test_doctor_names_the_address_that_an_execution_waits_for(
    away: Any, make_notebook: Any, mlflow_server: str
) -> None:
    assert away.papermill(away.write("pinned.ipynb", make_notebook("1"))).returncode == 0
    doctor = verb(away, "doctor", MLFLOW_TRACKING_URI=mlflow_server)
    assert doctor.returncode == 1
    assert "once a server answers at http://127.0.0.1:9: MLFLOW_TRACKING_URI named it" in doctor.stdout


def test_an_unknown_account_is_reported_and_blocks_no_other(
    tracked: Any, make_notebook: Any, mlflow_server: str
) -> None:
    with FaultProxy(mlflow_server) as proxy:
        tracked.env["MLFLOW_TRACKING_URI"] = proxy.uri
        proxy.mode = "unauthorized"
        assert tracked.papermill(tracked.write("unknown_user.ipynb", make_notebook("1 + 1"))).returncode == 0
        doctor = verb(tracked, "doctor")
        assert doctor.returncode == 1 and "MLFLOW_TRACKING_PASSWORD" in doctor.stdout
        proxy.mode = "pass"  # the credentials have been mended; what was refused waits for `sync`
        doctor = verb(tracked, "doctor")
        (line,) = [line for line in doctor.stdout.splitlines() if line.startswith("BAD")]
        assert doctor.returncode == 1
        assert line.startswith("BAD  refused") and "unknown_user.ipynb" in line and "HTTP 401" in line
        assert tracked.papermill(tracked.write("known_user.ipynb", make_notebook("1 + 1"))).returncode == 0
        assert tracked.runs("known_user")[0].info.status == "FINISHED"
        assert tracked.client.get_experiment_by_name("unknown_user") is None


BEATING = """\
from nbtrack import sender_start
main = "from nbtrack.sender import process; process.HEARTBEAT = 0.5; process.main()"
sender_start.SENDER = sender_start.SENDER.partition("from ")[0] + main
"""  # what every kernel runs when it starts: its sender gives signs of life more often


def test_a_live_run_gives_signs_of_life_and_is_closed_by_nobody_else(
    tracked: Any, make_notebook: Any, lab_kernel: Any
) -> None:
    """Its sender is killed, then a user calls `sync`; there is a folder of another host that shares the disk."""
    startup = tracked.folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "beating.py").write_text(BEATING)
    tracked.env["IPYTHONDIR"] = str(tracked.folder / "ipython")
    kernel = lab_kernel(tracked, tracked.write("alive.ipynb", make_notebook("x = 1", "x += 1")))
    try:
        kernel.run("x = 1", "cell-0")
        heartbeats: set[int] = set()

        def signs() -> list[int]:
            if experiment := tracked.client.get_experiment_by_name("alive"):
                for run in tracked.client.search_runs([experiment.experiment_id]):
                    heartbeats.add(int(run.data.tags.get("pokebattle.seen", 0)))
            return sorted(heartbeats - {0})

        latest = wait_for(signs, "two signs of life", until=lambda signs: len(signs) >= 2)[-1]
        assert abs(latest / 1000 - time.time()) < 30

        (folder,) = tracked.executions()
        foreign = folder.with_name("20260101-000000-elsewhere")
        foreign.mkdir()
        start, *rest = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
        event = json.loads(start)
        event |= {"execution": foreign.name, "kernel": event["kernel"] | {"host": "elsewhere.example"}}
        (foreign / "journal.jsonl").write_text("".join([json.dumps(event) + "\n", *rest]))
        before = {file.name: file.read_bytes() for file in foreign.iterdir()}

        listed = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True, check=True)
        os.kill(int(listed.stdout), signal.SIGKILL)
        synced = verb(tracked, "sync")
        assert (synced.returncode, synced.stdout) == (0, "0 delivered, 0 still wait, 1 running\n")
        assert {file.name: file.read_bytes() for file in foreign.iterdir()} == before
        assert "elsewhere.example has to deliver it" in verb(tracked, "doctor").stdout
        (run,) = tracked.client.search_runs([tracked.client.get_experiment_by_name("alive").experiment_id])
        assert run.info.status == "RUNNING"
        kernel.run("x += 1", "cell-1")
        kernel.run("x = 1", "cell-0")
    finally:
        kernel.stop()
    (run,) = tracked.runs("alive")
    assert run.info.status == "FINISHED"
    assert run.data.tags["pokebattle.order"] == "out of order"
    cells = tracked.artifact(run, "cells.json")
    assert [cell["id"] for cell in cells] == ["cell-0", "cell-1", "cell-0"]
