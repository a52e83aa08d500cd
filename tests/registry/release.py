"""Whole ways to Production, minutes of work: `make check-release`. What `make test` runs is in test_*.py."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from faults import FaultProxy

from nbtrack.mlflow_rest import tags_of
from pokebattle.registry import stages


@pytest.fixture(scope="module")
def proxy(mlflow_server: str) -> Iterator[FaultProxy]:
    """Is in front of the server, and refuses requests in the modes of a test."""
    with FaultProxy(mlflow_server) as running:
        yield running


@pytest.fixture(scope="session")
def trained(checkout: Any) -> str:
    """The id of a run of train.ipynb, which registered version 1 of `battle_winner`."""
    return checkout.train()


def version_of(rest: Any, name: str, run_id: str) -> int:
    return next(one.number for one in stages.read(rest, name).versions.values() if one.run_id == run_id)


def promote(checkout: Any, number: int, stage: str, *options: str, code: int = 0) -> str:
    done = checkout.verb("promote", str(number), "--to", stage, *options)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def measured(said: str, gate: str) -> str:
    """The line of a gate."""
    (line,) = [line for line in said.splitlines() if re.match(rf"[a-z ]{{12}} {gate}: ", line)]
    return line


def test_two_versions_go_to_production_and_one_comes_back(rest: Any, checkout: Any, trained: str) -> None:
    before = stages.read(rest, "battle_winner")
    said = promote(checkout, 1, "Staging", "--dry-run")
    assert said.endswith("battle_winner version 1: None → Staging (dry run: no stage was changed)\n")
    assert stages.read(rest, "battle_winner") == before
    promote(checkout, 1, "Staging")
    promote(checkout, 1, "Production")
    simulating = checkout.train("quick", features="simulation", max_matchups=400, max_depth=3)
    better = version_of(rest, "battle_winner", simulating)
    said = promote(checkout, better, "Staging", "--why", "it simulates")
    assert re.search(r"passed +not behind Production: \+0\.\d{4} \[.*\] nats ahead of version 1, 60 pairs", said)
    assert "version 1, which is in Production, is archived" in promote(checkout, better, "Production")
    worse = version_of(rest, "battle_winner", checkout.train("quick", n_estimators=1))
    said = promote(checkout, worse, "Staging", code=1)
    assert measured(said, "not behind Production").startswith("refused")
    assert f"nats ahead of version {better}" in said

    done = checkout.verb("rollback", "--why", "too slow")
    assert (done.returncode, done.stdout) == (
        0,
        f"battle_winner version 1: Archived → Production; version {better}, which is in Production, goes to the "
        "archive\n",
    )
    done = checkout.verb("history")
    assert done.returncode == 0 and "Production: version 1\nStaging: none\n" in done.stdout
    assert "too slow" in done.stdout and "it simulates" in done.stdout
    done = checkout.verb("rollback", "--why", "once more")
    assert (done.returncode, done.stderr) == (
        1,
        "Error: battle_winner version 1 is the first in Production: there is no version before\n",
    )


def test_versions_of_other_data_meet_on_battles_of_the_game(rest: Any, checkout: Any, trained: str) -> None:
    if stages.read(rest, "battle_winner").holder("Production") is None:
        for stage in ("Staging", "Production"):
            promote(checkout, 1, stage)
    run_id = checkout.train("quick", version="v1", max_matchups=2000, max_judging_pairs=0, n_estimators=60)
    said = promote(checkout, version_of(rest, "battle_winner", run_id), "Staging", code=1)
    for gate in ("no leak", "clean commit", "calibration", "mirrored", "executed again"):
        assert measured(said, gate).startswith("passed"), said
    line = measured(said, "not behind Production")
    assert line.startswith("refused") and re.search(r"-0\.\d{4} \[.*\] nats ahead of version 1, \d{3} pairs", line)
    assert line.count("low end at least -0.005") == 1


def test_battles_of_ones_own_are_judged_as_far_as_that_means_something(rest: Any, checkout: Any) -> None:
    chosen = {"version": "own", "max_matchups": 0, "max_judging_pairs": 0, "n_estimators": 300}
    for turn in (1, 2):
        number = version_of(rest, "own_battle_winner", checkout.train("quick", **chosen))
        for stage in ("Staging", "Production"):
            said = promote(checkout, number, stage, "--model-name", "own_battle_winner")
            compared = measured(said, "not behind Production")
            assert compared.startswith("no meaning" if turn == 1 else "passed"), said
    assert "[+0.0000, +0.0000] nats ahead of version 1" in compared
    page = stages.read(rest, "own_battle_winner").versions[2].description
    assert "the set's own battles" in page


def test_a_dirty_run_is_executed_again_with_its_patch_and_drift_is_named(
    rest: Any, checkout: Any, trained: str
) -> None:
    code, lock = checkout.folder / "pokebattle" / "baselines.py", checkout.folder / "requirements.lock"
    committed = code.read_text()
    code.write_text(committed.replace("np.full(len(matchups), 0.5)", "np.full(len(matchups), 0.4)"))
    (checkout.folder / "params" / "mine.yaml").write_text(
        (checkout.folder / "params" / "sample.yaml").read_text().replace("version: sample", "version: mine")
    )
    run_id = checkout.train(version="mine", register_model=False)
    run = rest.call("GET", "runs/get", run_id=run_id)["run"]
    assert tags_of(run)["pokebattle.git.dirty"] == "true"
    code.write_text(committed)
    (checkout.folder / "params" / "mine.yaml").unlink()
    locked = lock.read_text()
    lock.write_text(locked + "# another environment\n")
    try:
        done = checkout.verb("reproduce", run_id)
        assert checkout.git("status", "--porcelain") == " M requirements.lock\n"
    finally:
        lock.write_text(locked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"same: \d\d+ metrics compared\n", done.stdout)
    for drift in (
        "in no commit: params/mine.yaml",
        "params/mine.yaml was not in the commit: it was written from the run's",
        "lock: requirements.lock sha256:",
    ):
        assert f"drifted  {drift}" in done.stdout
    tags = tags_of(rest.call("GET", "runs/get", run_id=run_id)["run"])
    assert tags["pokebattle.reproduced"].startswith("same ") and "lock: " in tags["pokebattle.drift"]


def test_other_figures_and_packages_are_named(rest: Any, checkout: Any, trained: str) -> None:
    run = rest.call("GET", "runs/get", run_id=trained)["run"]
    log_loss = next(one["value"] for one in run["data"]["metrics"] if one["key"] == "log_loss")
    packages = f"{run['info']['artifact_uri']}".removeprefix("mlflow-artifacts:/") + "/packages.txt"
    path = f"/api/2.0/mlflow-artifacts/artifacts/{packages}"
    listed = rest.request("GET", path)
    logged = {"run_id": trained, "key": "log_loss", "step": 0}
    try:
        rest.call("POST", "runs/log-metric", **logged, value=log_loss + 1e-12, timestamp=2**42)
        rest.request("PUT", path, listed.replace(b"numpy==", b"numpy==0."))
        done = checkout.verb("reproduce", trained)
    finally:
        rest.request("PUT", path, listed)
        rest.call("POST", "runs/log-metric", **logged, value=log_loss, timestamp=2**43)
    assert done.returncode == 1
    assert f"differs  log_loss {log_loss + 1e-12} → {log_loss}\n" in done.stdout
    assert done.stdout.count("differs  ") == 1
    assert re.search(r"drifted  numpy: 0\.\S+ → \d\S+\n", done.stdout)


def test_a_missing_permission_is_reported_in_one_line_before_anything_is_measured(
    rest: Any, checkout: Any, trained: str, proxy: FaultProxy
) -> None:
    waiting = [one.number for one in stages.read(rest, "battle_winner").versions.values() if one.stage == "None"]
    proxy.paths, proxy.mode = "registered-models/alias", "denied"
    done = checkout.verb(
        "promote", str(waiting[0]), "--to", "Staging", MLFLOW_TRACKING_URI=proxy.uri, MLFLOW_TRACKING_USERNAME="ben"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: {proxy.uri} does not allow ben to access battle_winner (HTTP 403); changing stages needs the role "
        "promoter\n"
    )
    proxy.mode = "unauthorized"
    done = checkout.verb("promote", str(waiting[0]), "--to", "Staging", MLFLOW_TRACKING_URI=proxy.uri)
    assert done.stderr.endswith(
        "requires a name and a password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD\n"
    )
