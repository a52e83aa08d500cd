"""What ``doctor``, ``runs`` and ``sync --close`` tell and do."""

import os
import subprocess
import sys
import time
from typing import Any

from pokebattle.tracking import processes


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
    told = verb(tracked, "doctor")
    assert told.returncode == 0, told.stdout
    assert f"{tracked.uri} answers" in told.stdout and "BAD" not in told.stdout


def test_doctor_names_what_is_wrong_and_how_to_mend_it(tracked: Any) -> None:
    off = verb(tracked, "doctor", POKEBATTLE_TRACKING="off")
    assert off.returncode == 1 and "unset POKEBATTLE_TRACKING" in off.stdout
    nobody = verb(tracked, "doctor", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert nobody.returncode == 1 and "http://127.0.0.1:9 does not answer" in nobody.stdout
    odd = verb(tracked, "doctor", MLFLOW_TRACKING_URI="127.0.0.1:5000")
    assert odd.returncode == 1 and "expected http://host:port" in odd.stdout and "Traceback" not in odd.stderr


def test_only_a_run_of_this_host_whose_kernel_is_gone_is_closed(tracked: Any) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gone = processes.identity(ended.pid)
    ended.communicate(b"\n")
    alive = processes.identity(os.getpid())
    ids = {name: open_run(tracked, name, kernel) for name, kernel in {
        "gone": gone, "alive": alive, "foreign": gone | {"host": "elsewhere.example"}}.items()}  # fmt: skip
    told = verb(tracked, "doctor")
    assert told.returncode == 1 and f"sync --close {ids['gone']}" in told.stdout
    assert ids["alive"] not in told.stdout
    (stale,) = [line for line in told.stdout.splitlines() if ids["foreign"] in line]
    assert "elsewhere.example gave no sign of life since" in stale
    said = {name: verb(tracked, "sync", "--close", run).stdout for name, run in ids.items()}
    assert "left alone" in said["alive"] and "left alone" in said["foreign"]
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
    done = subprocess.run(["bash", "-c", f"sleep 1; {command}"], cwd=tracked.folder, env=tracked.env,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert "Traceback" not in done.stderr


def test_what_waits_for_an_address_of_its_own_is_told_so(away: Any, make_notebook: Any, mlflow_server: str) -> None:
    assert away.papermill(away.write("pinned.ipynb", make_notebook("1"))).returncode == 0
    told = verb(away, "doctor", MLFLOW_TRACKING_URI=mlflow_server)
    assert told.returncode == 1
    assert "once a server answers at http://127.0.0.1:9: MLFLOW_TRACKING_URI named it" in told.stdout
