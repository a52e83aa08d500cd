"""`python -m pokebattle train` is papermill on train.ipynb, with or without a run."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

QUICK = ["-p", "n_estimators", "5", "-p", "n_bootstrap", "20", "-p", "max_matchups", "400"]
TRAIN = ["python", "-m", "pokebattle", "train", "--model-type", "xgboost", "--version", "sample"]


@pytest.mark.long
def test_tracked_it_shows_the_result_and_the_run(tracked: Any) -> None:
    done = tracked.execute(*TRAIN, "--mlflow-tracking", *QUICK, "-p", "max_depth", "3", POKEBATTLE_TRACKING="off")
    assert done.returncode == 0, done.stderr
    (run,) = [run for run in tracked.runs("battle_winner_sample") if run.data.params["max_depth"] == "3"]
    assert (run.info.run_name, run.info.status) == ("training_sample", "FINISHED")
    assert run.data.tags["pokebattle.executor"] == "papermill"
    assert f"{run.info.experiment_id}/runs/{run.info.run_id}" in done.stdout.splitlines()[-1]
    assert "Bayes limit" in done.stdout and (tracked.folder / "out.ipynb").is_file()


@pytest.mark.long
def test_untracked_the_model_is_saved_and_no_server_is_asked(away: Any, root: Path) -> None:
    done = away.execute(*TRAIN, *QUICK, "-p", "model_name", "scripted_winner", "--output", "own.ipynb")
    assert done.returncode == 0, done.stderr
    assert "pokebattle: " not in done.stderr  # no server was looked for
    assert "Bayes limit" in done.stdout and "this execution was not tracked" in done.stdout
    assert away.executions() == [] and (away.folder / "own.ipynb").is_file()
    saved = root / "build" / "models" / "scripted_winner_sample"
    assert {file.name for file in saved.iterdir()} == {"booster.ubj", "features.json"}
    shutil.rmtree(saved)


def test_what_is_refused_ends_as_papermill_does(away: Any) -> None:
    refused = away.execute(*TRAIN, "-p", "max_dept", "3")
    (said,) = [line for line in refused.stderr.splitlines() if line.startswith("Error:")]
    assert refused.returncode == 1 and "max_depth" in said and not (away.folder / "out.ipynb").exists()
    other = away.execute("python", "-m", "pokebattle", "train", "--model-type", "xgbost")
    assert other.returncode == 2 and "xgboost" in other.stderr


def test_ctrl_c_ends_it_and_its_run(tracked: Any) -> None:
    words = [sys.executable, "-m", *TRAIN[2:], "--mlflow-tracking", *QUICK, "-p", "min_child_weight", "7"]
    train = subprocess.Popen(
        words,
        cwd=tracked.folder,
        env=tracked.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: list((tracked.folder / "state").glob("executions/*/run.json")), "a run that is open")
    os.killpg(train.pid, signal.SIGINT)  # as a terminal does
    _, said = train.communicate(timeout=60)
    assert train.returncode == 1 and "Aborted!" in said
    (run,) = [run for run in tracked.runs("battle_winner_sample") if run.data.params.get("min_child_weight") == "7"]
    assert (run.info.status, run.data.tags["pokebattle.cause"]) == ("KILLED", "Ctrl-C")
