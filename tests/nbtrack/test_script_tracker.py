"""Scripts that log through MLflowTracker have runs that contain what notebooks' runs contain."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from sklearn.linear_model import LogisticRegression
from waiting import wait_for

from nbtrack import MLflowTracker, get_mlflow_tracker
from nbtrack.kernel.execution import FIRST
from pokebattle.game.matchups import MATCHUP
from pokebattle.model import CONFIG, BattleWinner

PASSWORD = "-".join(["correct", "horse", "7battery"])
HEAD = """
import os, sys, time
import mlflow
from mlflow import log_metric
from nbtrack import MLflowTracker, get_mlflow_tracker
from nbtrack.kernel.execution import FIRST
tracker = get_mlflow_tracker(experiment_name={experiment!r})
"""
EVERYTHING = """
import numpy as np, xgboost
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from pokebattle.datasets import load_battles
from pokebattle.model import BattleWinner
from pokebattle.params import load_params
X = np.random.default_rng(0).normal(size=(60, 3))
y = (X[:, 0] > 0).astype(int)
with tracker.start_run(run_name="everything") as run:
    tracker.log_params({"max_depth": 6, "api_password": os.environ["DB_PASSWORD"], "note": "rate 0.1"})
    tracker.log_metrics({"log_loss": 0.143})
    for step, value in enumerate([0.5, 0.3, 0.2]):
        tracker.log_metrics({"curve": value}, step=step)
    mlflow.set_tag("by", "mlflow itself")
    log_metric("imported_before", 1)
    tracker.log_model(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y), "pipeline")
    tracker.log_model(xgboost.XGBClassifier(n_estimators=3).fit(X, y), artifact_path="model", model_type="xgboost")
    tracker.log_model(xgboost.train({"seed": 1}, xgboost.DMatrix(X, label=y), 2), "booster")
    battles = load_battles("v3", "pair", 200, 5)
    params = load_params({"version": "sample", "n_estimators": 3})
    winner = BattleWinner.from_params(params)
    winner.fit(battles.training, battles.training["wins_a"], battles.training["n_battles"])
    tracker.log_model(winner, "winner", model_type="xgboost")
    with tracker.start_run("inner"):
        tracker.log_metrics({"inner": 1})
    tracker.log_metrics({"after": 2})
print(run.info.run_id)
"""


def write(tracked: Any, name: str, body: str) -> Path:
    """Write a script whose experiment has its name."""
    path: Path = tracked.folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD.format(experiment=name) + body, "utf-8")
    return path


def top(runs: list[Run]) -> list[Run]:
    """Return the runs without a parent."""
    return [run for run in runs if "mlflow.parentRunId" not in run.data.tags]


def children(runs: list[Run]) -> list[Run]:
    """Return the others."""
    return [run for run in runs if "mlflow.parentRunId" in run.data.tags]


@pytest.fixture(scope="module")
def everything(shared: Any) -> tuple[Any, Run, Run, str]:
    """A script that logs all there is, its run and that run's child, and what it printed."""
    path = write(shared, "everything", EVERYTHING)
    done = shared.execute("python", path, DB_PASSWORD=PASSWORD)
    assert done.returncode == 0, done.stderr
    runs = shared.runs("everything", 2)
    (run,), (child,) = top(runs), children(runs)
    assert f"/runs/{run.info.run_id}" in done.stderr
    return shared, run, child, done.stdout


def test_a_script_logs_what_it_says_and_the_run_ends_with_the_block(everything: Any) -> None:
    tracked, run, child, printed = everything
    assert run.info.run_name == "everything" and run.info.status == "FINISHED"
    assert {run.info.run_id, run.data.tags["pokebattle.local_id"]} & set(printed.split())  # by how busy the server is
    assert run.data.params["max_depth"] == "6" and run.data.params["note"] == "rate 0.1"
    assert run.data.metrics == {"log_loss": 0.143, "curve": 0.2, "imported_before": 1.0, "after": 2.0}
    curve = tracked.client.get_metric_history(run.info.run_id, "curve")
    assert [(point.step, point.value) for point in curve] == [(0, 0.5), (1, 0.3), (2, 0.2)]
    assert run.data.tags["by"] == "mlflow itself"
    assert run.data.tags["mlflow.source.type"] == "LOCAL"
    assert run.data.tags["mlflow.source.name"].endswith("everything.py")
    assert child.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert child.data.metrics == {"inner": 1.0} and child.info.status == "FINISHED"


def test_the_script_is_on_the_run_and_no_secret_is(everything: Any) -> None:
    tracked, run, _, _ = everything
    names = {file.path for file in tracked.client.list_artifacts(run.info.run_id)}
    assert "everything.py" in names and not [name for name in names if name.endswith(".ipynb") or "cells" in name]
    assert "tracker.log_params" in tracked.download(run_id=run.info.run_id, artifact_path="everything.py").read_text()
    assert run.data.params["api_password"] == "[masked]"
    left = [file for folder in tracked.executions() for file in folder.rglob("*") if file.is_file()]
    assert left and not [file for file in left if PASSWORD.encode() in file.read_bytes()]


def test_logged_models_load_and_hold_no_pickle(everything: Any) -> None:
    tracked, run, _, _ = everything
    X = np.random.default_rng(0).normal(size=(60, 3))
    folders = {
        model.name: tracked.download(artifact_uri=model.model_uri).rename(tracked.folder / model.name)
        for model in tracked.client.search_logged_models([run.info.experiment_id])
        if model.source_run_id == run.info.run_id
    }
    answers = {
        name: np.ravel(mlflow.pyfunc.load_model(str(folders[name])).predict(X))
        for name in ("pipeline", "model", "booster")
    }
    assert set(answers["pipeline"]) == set(answers["model"]) == {0, 1}
    assert 0 < answers["booster"].min() < answers["booster"].max() < 1
    assert set(folders) == {*answers, "winner"}
    matchup = pd.DataFrame([["abra", "zubat", "psychic", "airslash", "best_move"]], columns=MATCHUP)
    assert 0 < BattleWinner.load(next(folders["winner"].rglob(CONFIG)).parent).predict_proba(matchup)[0, 1] < 1
    loaded = mlflow.models.Model.load(str(folders["winner"]))
    assert loaded.signature.inputs.input_names() == MATCHUP and loaded.flavors["python_function"]["code"]
    for folder in folders.values():
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert not [file for file in files if file.suffix in {".pkl", ".pickle", ".joblib", ".cloudpickle"}]
        assert not [file for file in files if file.read_bytes()[:2] in {b"\x80\x04", b"\x80\x05"}]
        (needed,) = (file.read_text().split() for file in files if file.name == "requirements.txt")
        assert needed and all("==" in line for line in needed)


def test_errors_and_exits_are_distinguished_and_runs_follow_each_other(tracked: Any) -> None:
    body = """
def deep():
    raise ValueError("no battles left")
for name, ending in {"wrong": deep, "asked": sys.exit, "code": lambda: sys.exit(3), "fine": lambda: None}.items():
    try:
        with tracker.start_run(name):
            tracker.log_params({"name": name})
            if name == "wrong":
                with tracker.start_run("inner"):
                    ending()
            if name == "fine":
                if os.fork() == 0:
                    with tracker.start_run("forked"):
                        tracker.log_metrics({"forked": 1})
                    raise KeyboardInterrupt  # what a fork does is not the script's end
                os.wait()
            ending()
            tracker.log_metrics({"end": 1})
    except (ValueError, SystemExit):
        pass
tracker.log_params({"too": "late"})
"""
    done = tracked.execute("python", write(tracked, "endings", body))
    assert done.returncode == 1
    assert "RuntimeError: no run is active: log inside `with tracker.start_run" in done.stderr
    runs = {run.info.run_name: run for run in tracked.runs("endings", 6)}
    assert {name: run.info.status for name, run in runs.items()} == {
        "wrong": "FAILED",
        "inner": "FAILED",
        "asked": "FINISHED",
        "code": "FAILED",
        "fine": "FINISHED",
        "forked": "FINISHED",
    }
    assert {run.data.params.get("name", name) for name, run in runs.items()} == set(runs)
    assert {name: run.data.tags["mlflow.parentRunId"] for name, run in runs.items() if name in ("inner", "forked")} == {
        "inner": runs["wrong"].info.run_id,
        "forked": runs["fine"].info.run_id,
    }
    assert runs["forked"].data.metrics == {"forked": 1.0}
    for name in ("wrong", "inner"):
        tags = runs[name].data.tags
        assert tags["pokebattle.error"] == "ValueError: no battles left"
        assert 'raise ValueError("no battles left")' in tags["pokebattle.traceback"]
        assert "tracker.py" not in tags["pokebattle.traceback"]
    assert runs["code"].data.tags["pokebattle.error"] == "SystemExit: 3"
    files = {file.path for file in tracked.client.list_artifacts(runs["wrong"].info.run_id)}
    assert {"traceback.txt", "endings.py"} <= files
    assert runs["fine"].data.metrics == {"end": 1.0}


@pytest.mark.parametrize(
    ("sign", "cause"),
    [pytest.param("SIGKILL", "SIGKILL", marks=pytest.mark.long), ("SIGTERM", "SIGTERM"), ("SIGINT", "interrupted")],
)
def test_a_script_that_is_stopped_is_killed_and_says_by_what(tracked: Any, sign: str, cause: str) -> None:
    name = f"stopped_{sign.lower()}"
    path = write(tracked, name, "with tracker.start_run():\n    print('here', flush=True)\n    time.sleep(60)\n")
    script = subprocess.Popen(
        [sys.executable, path], cwd=tracked.folder, env=tracked.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert script.stdout is not None and script.stdout.readline() == b"here\n"
    script.send_signal(signal.Signals[sign])
    script.communicate(timeout=30)
    (run,) = tracked.runs(name)
    assert run.info.run_name == name  # the script's
    assert run.info.status == "KILLED"
    assert cause in run.data.tags["pokebattle.cause"]


def test_commit_dirty_flag_and_lock_are_on_the_run(tracked: Any) -> None:
    body = """
from pathlib import Path
with tracker.start_run("clean"):
    while not list(Path("state").glob("executions/*/run.json")):  # until it is opened
        time.sleep(0.01)
with open(__file__, "a") as file:
    file.write("# changed")
with tracker.start_run("changed"):
    pass
"""
    path = write(tracked, "committed_script", body)
    (tracked.folder / "requirements.lock").write_text("pins\n")
    (tracked.folder / ".gitignore").write_text("state\n")
    git = ["git", "-C", str(tracked.folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert tracked.execute("python", path).returncode == 0
    runs = {run.info.run_name: run.data.tags for run in tracked.runs("committed_script", 2)}
    assert {tags["mlflow.source.git.commit"] for tags in runs.values()} == {head}
    assert (runs["clean"]["pokebattle.git.dirty"], runs["changed"]["pokebattle.git.dirty"]) == ("false", "true")
    assert runs["clean"]["pokebattle.lock"].startswith("requirements.lock sha256:")


TIMED = """
import json
import numpy as np, xgboost
booster = xgboost.train({}, xgboost.DMatrix(np.eye(4), label=[0, 1, 0, 1]), 2)
took = {}
def timed(name, do, *args):
    began = time.perf_counter()
    do(*args)
    took.setdefault(name, []).append(time.perf_counter() - began)
for turn in range(3):
    context = tracker.start_run(f"alone {turn}")
    mlflow.active_run()  # what is imported is not the server's
    timed("start", context.__enter__)
    timed("params", tracker.log_params, {"depth": 3})
    for step in range(5):
        timed("metrics", tracker.log_metrics, {"curve": step}, step)
    timed("model", tracker.log_model, booster, "model")
    timed("end", context.__exit__, None, None, None)
print(json.dumps(took))
"""


def black_hole() -> tuple[str, socket.socket]:
    """Return the address of a server that takes connections and never answers."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(64)
    held: list[Any] = []

    def accept() -> None:
        while True:
            try:
                held.append(server.accept())
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}", server


@pytest.mark.parametrize("how", ["away", pytest.param("silent", marks=pytest.mark.long)])
def test_without_a_server_nothing_stalls_or_is_lost_and_sync_delivers_once(tracked: Any, how: str) -> None:
    name = f"alone_{how}"
    path = write(tracked, name, TIMED)
    uri, hole = black_hole() if how == "silent" else ("http://127.0.0.1:9", None)
    record = {"uri": uri, "pid": os.getpid(), "created": 0}  # as of a local server: what waits follows it
    (tracked.folder / "state").mkdir()
    (tracked.folder / "state" / "server.json").write_text(json.dumps(record))
    del tracked.env["MLFLOW_TRACKING_URI"]
    done = tracked.execute("python", path)
    assert done.returncode == 0, done.stderr
    took = json.loads(done.stdout)
    first = FIRST if how == "silent" else 0.0  # a server that may only be slow gives the run's id
    limits = {name: 0.5 + first * (name == "start") for name in took}
    assert {
        name: min(times) for name, times in took.items() if min(times) >= limits[name]
    } == {}  # others are busy, too
    said = [line for line in done.stderr.splitlines() if line.startswith("pokebattle: ")]
    if how == "away":
        assert said and all("the script continues" in line for line in said)
    if hole:
        hole.close()
    (tracked.folder / "state" / "server.json").write_text(json.dumps(record | {"uri": tracked.uri}))
    sync = ("python", "-m", "pokebattle", "sync")
    wait_for(lambda: tracked.execute(*sync), "sync to succeed", until=lambda synced: synced.returncode == 0)
    tracked.execute("python", "-m", "pokebattle", "sync")
    runs = tracked.runs(name, 3)
    assert {run.info.run_name for run in runs} == {"alone 0", "alone 1", "alone 2"} and len(runs) == 3
    for run in runs:
        assert (run.info.status, run.data.params) == ("FINISHED", {"depth": "3"})
        history = tracked.client.get_metric_history(run.info.run_id, "curve")
        assert [point.value for point in history] == [0, 1, 2, 3, 4]
    models = tracked.client.search_logged_models([runs[0].info.experiment_id])
    assert {model.source_run_id for model in models} == {run.info.run_id for run in runs} and len(models) == 3
    files = tracked.download(artifact_uri=models[0].model_uri).iterdir()
    assert {"MLmodel", "model.ubj"} <= {file.name for file in files}


def test_in_a_notebook_it_is_a_child_of_the_notebooks_run(tracked: Any, make_notebook: Any) -> None:
    cells = (
        "from nbtrack import MLflowTracker\ntracker = MLflowTracker(experiment_name='elsewhere')",
        "with tracker.start_run('part'):\n    tracker.log_metrics({'inner': 1})",
        "import mlflow\nmlflow.log_metric('outer', 2)",
    )
    path = tracked.write("holds.ipynb", make_notebook(*cells))
    done = tracked.papermill(path)
    assert done.returncode == 0, done.stderr
    runs = tracked.runs("holds", 2)
    (run,), (child,) = top(runs), children(runs)
    assert run.data.metrics["outer"] == 2 and "inner" not in run.data.metrics
    assert child.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert child.data.metrics == {"inner": 1.0}
    assert child.data.tags["pokebattle.experiment"] == "elsewhere"
    assert tracked.client.get_experiment_by_name("elsewhere") is None


@pytest.mark.long
def test_notebooks_that_a_script_executes_are_its_children(tracked: Any, make_notebook: Any) -> None:
    tracked.write("executed.ipynb", make_notebook("1 + 1"))
    body = """
import subprocess
with tracker.start_run("outer"):
    subprocess.run([sys.executable, "-m", "papermill", "executed.ipynb", "out.ipynb"], check=True)
"""
    done = tracked.execute("python", write(tracked, "executes", body))
    assert done.returncode == 0, done.stderr
    (outer,), (inner,) = tracked.runs("executes"), tracked.runs("executed")
    assert inner.data.tags["mlflow.parentRunId"] == outer.info.run_id


BOTH = """
with tracker.start_run("a run") as run:
    tracker.log_params({"depth": 3})
    tracker.log_metrics({"log_loss": 0.1})
print(run and run.info.run_id, sorted(os.listdir()))
"""


def test_off_logs_nothing(tracked: Any) -> None:
    off = tracked.execute("python", write(tracked, "off", BOTH), POKEBATTLE_TRACKING="off")
    assert (off.returncode, off.stdout) == (0, "None ['off.py']\n"), off.stderr


@pytest.mark.long
def test_what_goes_to_a_file_is_mlflows_own(tracked: Any) -> None:
    done = tracked.execute("python", write(tracked, "own", BOTH), MLFLOW_TRACKING_URI="sqlite:///own.db")
    assert done.returncode == 0, done.stderr
    assert "own.db" in done.stdout and not done.stdout.startswith("None")
    assert tracked.executions() == []
    assert tracked.client.get_experiment_by_name("own") is None


@pytest.mark.long
def test_a_state_folder_that_cannot_be_written_is_reported_and_the_script_continues(tracked: Any) -> None:
    (tracked.folder / "file").write_text("")
    path = write(tracked, "stateless", BOTH)
    done = tracked.execute("python", path, POKEBATTLE_STATE=str(tracked.folder / "file/no"))
    assert done.returncode == 0 and done.stdout.startswith("None")
    assert [line for line in done.stderr.splitlines() if "this run is not tracked" in line]


def test_what_cannot_be_logged_is_named(tmp_path: Path) -> None:
    tracker = MLflowTracker(experiment_name="named")
    assert get_mlflow_tracker("named") is get_mlflow_tracker("named")
    with pytest.raises(ValueError, match="experiment_name: expected a name, got ''"):
        MLflowTracker("")
    model = LogisticRegression().fit(np.eye(2), [0, 1])
    with pytest.raises(ValueError, match="model_type: expected one of xgboost, sklearn, got 'xgbost'; nearest is 'xgb"):
        tracker.log_model(model, "model", model_type="xgbost")
    with pytest.raises(ValueError, match=r"expected a fitted xgboost model, got sklearn\.\S*LogisticRegression"):
        tracker.log_model(model, "model", model_type="xgboost")
    with pytest.raises(ValueError, match=r"an XGBoost or a scikit-learn model, got builtins\.dict"):
        tracker.log_model({}, "model")


def test_kernels_and_senders_do_not_pay_for_it() -> None:
    code = (
        "import sys; before = set(sys.modules); import nbtrack as t; "
        "print({m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)); "
        "t.MLflowTracker('light'); print('mlflow' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["{'nbtrack'}", "False False"]
