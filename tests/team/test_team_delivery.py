"""What a team's server, PostgreSQL with accounts, denies or cannot store costs itself alone."""

import time
from typing import Any

import pytest
from leftovers import leave

from nbtrack import health, spool
from nbtrack.executions import execution_folder
from nbtrack.local_ids import new_local_id
from nbtrack.mlflow_rest import params_of, tags_of
from nbtrack.sender.sender import Sender

API = "/api/2.0/mlflow/"


@pytest.fixture
def name():
    return f"denied-{new_local_id()[5:15]}"


@pytest.fixture
def as_user(team, tmp_path, monkeypatch):
    """`as_user(login)` makes this process one of a user who is logged in, on a machine of their own."""

    def become(login):
        for key, value in team.tracked(login).items():
            if key.startswith(("MLFLOW_TRACKING", "POKEBATTLE")):
                monkeypatch.setenv(key, value)
        monkeypatch.setenv("POKEBATTLE_STATE", str(tmp_path / "state"))

    return become


def call(path: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "call", "method": "POST", "path": API + path, "body": body}


def delivered(team, name):
    """Deliver an execution; return its run."""
    assert spool.drain(retry_refused=True)[execution_folder(name)] == "delivered"
    (run,) = [run for run in team.runs(name, 1) if run["info"]["run_name"].startswith("denied")]
    return run


def test_a_run_that_is_missing_costs_what_was_said_of_it(team, as_user, name):
    """A server with accounts answers 403 then, as it does to a user who may not write at all."""
    as_user(team.login("TEAM"))
    run = new_local_id()
    now = int(time.time() * 1000)
    leave(
        name,
        call("runs/set-tag", {"run_id": "0" * 32, "key": "colour", "value": "red"}),
        call("runs/log-metric", {"run_id": run, "key": "loss", "value": 1.0, "timestamp": now, "step": 0}),
        run=run,
    )
    delivered_run = delivered(team, name)
    assert [point["value"] for point in delivered_run["data"]["metrics"] if point["key"] == "loss"] == [1.0]
    assert tags_of(delivered_run)["pokebattle.set_aside"].startswith("1: colour of run 000")
    (finding,) = health._set_aside()
    assert "HTTP 403" in finding.text and "sync --forget" in finding.fix


def test_what_postgresql_cannot_store_costs_itself_alone(team, as_user, name, monkeypatch):
    """It fails at a NUL with 500, and at names that are too long."""
    monkeypatch.setattr("nbtrack.sender.sender.PERSISTENCE", 0.0)
    as_user(team.login("TEAM"))
    run = new_local_id()
    params = [{"key": "before", "value": "1"}, {"key": "nul", "value": "a\0b"}, {"key": "behind", "value": "2"}]
    leave(
        name,
        call("runs/log-batch", {"run_id": run, "params": params}),
        call("registered-models/create", {"name": "m" * 300}) | {"token": new_local_id(), "creates": "registered"},
        {"kind": "params", "values": {"own": "a\0b"}},
        run=run,
        experiment=name,
        run_name=name + "\0" + "r" * 300,
        user="u" * 300,
    )
    delivered_run = delivered(team, name)
    assert {"before", "behind", "own"} <= params_of(delivered_run).keys() and "nul" not in params_of(delivered_run)
    assert len(delivered_run["info"]["run_name"]) == 250
    set_aside = tags_of(delivered_run)["pokebattle.set_aside"]
    assert set_aside.startswith("2: ") and "nul of run" in set_aside and "value too long" in set_aside
    assert delivered_run["info"]["status"] == "FINISHED"


def test_a_lost_role_is_reported_and_a_purged_run_is_something_else(team, as_user, name):
    login = team.new_account(f"{name}-user", "team")
    as_user(login)
    run, admin = new_local_id(), team.account("ADMIN")
    leave(name, call("runs/set-tag", {"run_id": run, "key": "colour", "value": "red"}), run=run)
    admin.give_role(login.name, "reader")
    assert spool.drain()[execution_folder(name)].startswith("refused: HTTP 403")
    (finding,) = health._waiting()
    assert "role team" in finding.fix
    admin.give_role(login.name, "team")
    delivered_run = delivered(team, name)

    again = f"{name}-again"
    leave(again, call("runs/set-tag", {"run_id": run, "key": "colour", "value": "red"}), run=run)
    progress = Sender(execution_folder(again), team.uri).progress
    (one,) = [one for one in spool.waiting() if one.folder.name == again]
    place = delivered_run["info"]["experiment_id"]
    ids = {run: "0" * 32, one.start["root"]: "x", one.start["experiment_token"]: place}
    progress.note(
        ids=ids,
        answers={run: {"status": 200, "body": {}}},
        run={"run_id": "0" * 32, "experiment_id": place, "artifact_uri": "x"},
    )
    assert spool.drain()[execution_folder(again)].startswith("refused: run 0000")
    (finding,) = health._waiting()
    assert "deleted for good" in finding.text and "role team" not in finding.fix
