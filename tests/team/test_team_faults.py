"""A team's server under load, and with parts of it ending in the middle: everything arrives, once."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import nbformat
import psutil
import pytest
from guard import guarded
from waiting import wait_for

from nbtrack.mlflow_rest import MlflowRest, ServerError
from nbtrack.team import local_services, postgres

pytestmark = pytest.mark.long
CELLS = 12
WORD = "not-told"  # the emulator accepts any


def steady(make_notebook, folder, name, pause=0.5):
    """A notebook that logs for a while: a parameter, a metric in each cell, an artifact."""
    cells = [f"import time\nimport mlflow\nmlflow.log_param('writer', '{name}')"]
    cells += [f"mlflow.log_metric('m', {number}.0, step={number})\ntime.sleep({pause})" for number in range(CELLS)]
    cells += [f"mlflow.log_text('of {name}', 'note.txt')"]
    file = folder / name / "steady.ipynb"
    file.parent.mkdir(parents=True)
    nbformat.write(make_notebook(*cells), file)
    return file


def whole(team, run, name):
    """Check that a run has everything that its notebook logged, once."""
    assert run["info"]["status"] == "FINISHED", run["info"]
    admin, run_id = team.account("ADMIN"), run["info"]["run_id"]
    points = admin.call("GET", "metrics/get-history", run_id=run_id, metric_key="m")["metrics"]
    assert [(point["step"], point["value"]) for point in points] == [(n, float(n)) for n in range(CELLS)]
    assert {"key": "writer", "value": name} in run["data"]["params"]
    files = {file["path"] for file in admin.call("GET", "artifacts/list", run_id=run_id)["files"]}
    assert {"note.txt", "steady.ipynb"} <= files


def finish(children, seconds=240):
    for child in children:
        said = child.communicate(timeout=seconds)[0]
        assert child.returncode == 0, said


class Stalls:
    """Writes runs all the time and keeps how long each of its calls took."""

    def __init__(self, server, experiment):
        self.server, self.experiment, self.took, self.failed, self.stop = server, experiment, [], 0, threading.Event()
        self.thread = threading.Thread(target=self._write)

    def _write(self):
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                self.server.call("POST", "runs/create", experiment_id=self.experiment, start_time=1)
            except (OSError, ServerError):
                self.failed += 1
                time.sleep(0.1)
            self.took.append(time.monotonic() - began)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join()


def points(team, experiment):
    """How many values of m the experiment's runs have together."""
    with contextlib.suppress(OSError, ServerError, AssertionError):
        admin = team.account("ADMIN")
        return sum(run["data"].get("metrics", [{"step": 0}])[0]["step"] for run in team._runs(admin, experiment))
    return 0


def written(team, name):
    """How many values of m are in the journals on a user's machine."""
    journals = (team.folder / f"of-{name}" / "executions").glob("*/journal.jsonl")
    return sum(journal.read_text().count('"key": "m"') for journal in journals)


def go_on(team, name, child, before):
    """Wait until a notebook has logged two values more than ``before``, or has ended."""
    wait_for(lambda: child.poll() is not None or written(team, name) >= before + 2, "two more values")


def test_eight_notebooks_at_once_give_eight_runs(make_team, make_notebook, tmp_path, record_property):
    team = make_team()
    people = [team.new_account(f"person{number}", "team") for number in range(8)]
    began = time.monotonic()
    children = [team.papermill(one, steady(make_notebook, tmp_path, one.name, 0.1)) for one in people]
    finish(children)
    runs = team.runs("steady", 8)
    record_property("seconds", round(time.monotonic() - began, 1))
    assert len(runs) == 8
    for run in runs:
        (name,) = [one["value"] for one in run["data"]["params"] if one["key"] == "writer"]
        whole(team, run, name)
    assert {one["value"] for run in runs for one in run["data"]["params"] if one["key"] == "writer"} == {
        one.name for one in people
    }


def test_the_database_is_restarted_in_the_middle(make_team, make_notebook, tmp_path, record_property):
    team = make_team()
    person = team.new_account("anna", "team")
    other = team.account("ADMIN").call("POST", "experiments/create", name="stalls")["experiment_id"]
    child = team.papermill(person, steady(make_notebook, tmp_path, "anna"))
    wait_for(lambda: points(team, "steady") >= 2, "two values", 120)
    folder = team.state / "shared/postgres"
    with Stalls(team.account("ADMIN"), other) as stalls:
        assert postgres.stop(folder)
        before = written(team, "anna")
        wait_for(lambda: local_services.health(team.uri) is not None, "a health that shows it")
        assert "database does not answer" in local_services.health(team.uri)
        said = team.type("shared", "status", status=1)
        assert "BAD  database   PostgreSQL does not run" in said and "database does not answer" in said
        go_on(team, "anna", child, before)
        team.type("shared", "start")
        team.guards.enter_context(guarded(team.database_pid()))
        wait_for(lambda: local_services.health(team.uri) is None, "a server that is well")
        calls = len(stalls.took)
        wait_for(lambda: len(stalls.took) > calls + 1, "a call of the bare writer from its begin to its end")
    record_property("longest stall of a bare writer", round(max(stalls.took), 2))
    assert max(stalls.took) < 30
    finish([child])
    (run,) = team.runs("steady", 1)
    whole(team, run, "anna")


def test_the_server_is_killed_in_the_middle(make_team, make_notebook, tmp_path):
    team = make_team()
    child = team.papermill(team.new_account("anna", "team"), steady(make_notebook, tmp_path, "anna"))
    wait_for(lambda: points(team, "steady") >= 2, "two values", 120)
    os.killpg(team.server_pid(), signal.SIGKILL)
    before = written(team, "anna")
    assert "it does not answer" in local_services.health(team.uri)
    said = team.type("shared", "status", status=1)
    assert "ok   database" in said and "BAD  server" in said and "BAD  health" in said
    go_on(team, "anna", child, before)
    team.start()
    finish([child])
    (run,) = team.runs("steady", 1)
    whole(team, run, "anna")


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_what_is_left_of_a_server_whose_first_process_was_killed_is_ended(make_team, verb):
    team = make_team()
    first = team.server_pid()
    left = psutil.Process(first).children(recursive=True)
    os.kill(first, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first)] if psutil.pid_exists(first) else [], timeout=10)
    assert any(process.is_running() for process in left)
    if verb == "stop":
        assert "leftover processes of the MLflow server" in team.type("shared", "stop")
    else:
        team.start()
        assert local_services.health(team.uri) is None and team.server_pid() != first
    psutil.wait_procs(left, timeout=10)  # ended ones stay until their parent of then has taken note
    assert not any(process.is_running() for process in left)


def test_another_server_on_the_port_is_not_taken_for_its_own(make_team):
    """It may bind the port after it was found free, half a minute before the own one would."""
    team = make_team()
    assert (
        local_services.health(team.uri) is None
        and local_services.health(team.uri, "boot") == "another server answers there"
    )
    record = team.state / "shared/server.json"
    other = json.loads(record.read_text()) | {"boot": "of a server that could not bind"}
    record.write_text(json.dumps(other))
    assert "BAD  health" in (said := team.type("shared", "status", status=1)) and "another server answers" in said


def test_without_accounts_everything_is_allowed_and_a_warning_says_so(make_team):
    team = make_team(MLFLOW_ENABLE_AUTH="false")
    assert MlflowRest(team.uri).call("POST", "experiments/search", max_results=1)["experiments"]
    assert "anyone who reaches the port has full access" in team.type("shared", "start")
    assert "ok   accounts   off (MLFLOW_ENABLE_AUTH)" in team.type("shared", "status")
    assert "has no accounts: MLFLOW_ENABLE_AUTH is off there" in team.type("accounts", status=1)


def test_data_survive_stop_and_start(make_team):
    team = make_team()
    login = team.new_account("anna", "team")
    run = write(team, login, b"kept")
    team.stop()
    assert "nothing to stop" in team.type("shared", "stop")
    assert "BAD" in team.type("shared", "status", status=1)
    team.start()
    assert read(team, login, run) == b"kept"
    assert "already" not in team.type("shared", "start")


def write(team, login, content):
    """Write a run with an artifact as a user; return it."""
    account = team.account(login)
    experiment = account.experiment("survives")["experiment_id"]
    run = account.call("POST", "runs/create", experiment_id=experiment, start_time=1)["run"]["info"]
    account.log_batch(run["run_id"], params={"depth": 3})
    account.upload(run["artifact_uri"], "a/b.txt", lambda: [content])
    return run


def read(team, login, run):
    """Read the run's artifact as a user."""
    account = team.account(login)
    stored = account.call("GET", "runs/get", run_id=run["run_id"])["run"]
    assert stored["data"]["params"] == [{"key": "depth", "value": "3"}]
    path = run["artifact_uri"].removeprefix("mlflow-artifacts:").strip("/")
    return account.request("GET", f"/api/2.0/mlflow-artifacts/artifacts/{path}/a/b.txt")


# Backup


def test_everything_is_destroyed_and_restored(make_team, tmp_path):
    team = make_team()
    login = team.new_account("anna", "team")
    run = write(team, login, b"kept")
    admin = team.account("ADMIN")
    admin.call("POST", "registered-models/create", name="battle_winner")
    source = {"source": f"{run['artifact_uri']}/model", "run_id": run["run_id"]}
    admin.call("POST", "model-versions/create", name="battle_winner", **source)
    admin.call(
        "POST",
        "model-versions/transition-stage",
        name="battle_winner",
        version="1",
        stage="Production",
        archive_existing_versions=True,
    )
    admin.call("POST", "registered-models/alias", name="battle_winner", version="1", alias="champion")
    known = admin.listed()
    file = tmp_path / "backup.tar"
    said = team.type("backup", "--to", str(file))  # while it serves
    assert "both databases and 1 artifacts" in said and file.stat().st_mode & 0o077 == 0
    later = write(team, login, b"after the backup")

    assert "the server runs" in team.type("restore", str(file), status=1)
    team.stop()
    said = team.type("restore", str(file), status=1)
    assert "the server has runs (2), which this replaces" in said and "--overwrite" in said

    shutil.rmtree(team.state)
    for damaged, expected in ((file.read_bytes()[:-20000], "damaged|incomplete"), (b"no backup", "is not a backup")):
        (tmp_path / "damaged.tar").write_bytes(damaged)
        said = team.type("restore", str(tmp_path / "damaged.tar"), status=1)
        assert any(word in said for word in expected.split("|")), said
    assert "No such file" in team.type("restore", "nowhere.tar", status=1)
    team.type("restore", str(file))
    team.start()
    admin = team.account("ADMIN")
    assert read(team, login, run) == b"kept"
    assert admin.listed() == known
    version = admin.call("GET", "registered-models/alias", name="battle_winner", alias="champion")["model_version"]
    assert (version["version"], version["current_stage"]) == ("1", "Production")
    with pytest.raises(ServerError):
        admin.call("GET", "runs/get", run_id=later["run_id"])
    write(team, login, b"and it goes on")
    team.stop()
    team.type("restore", str(file), "--overwrite")
    team.start()
    assert len(team._runs(admin, "survives")) == 1


def test_a_restore_that_fails_changes_nothing(make_team, tmp_path):
    team = make_team()
    login = team.new_account("anna", "team")
    team.type("backup", "--to", str(tmp_path / "before.tar"))
    run = write(team, login, b"kept")
    team.stop()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env=team.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:  # a program reads the database all the time, so it cannot be replaced
        assert holder.stdout.readline() == "connected\n"
        team.guards.enter_context(guarded(team.database_pid()))
        said = team.type("restore", str(tmp_path / "before.tar"), "--overwrite", status=1)
        assert "the databases were not replaced" in said
        holder.communicate("")
    team.start()
    assert read(team, login, run) == b"kept"


HOLD = """
import sys
from nbtrack.team import postgres, settings
known = settings.load()
user, word, name = (known[f"POSTGRES_{what}"] for what in ("USER", "PASSWORD", "DB"))
socket = postgres.start(settings.folder() / "postgres", user, word, name)
with postgres.cursor(host=socket, user=user, password=word, dbname=name):
    print("connected", flush=True)
    sys.stdin.read()
"""


def test_a_backup_goes_through_a_pipe(make_team):
    team = make_team()
    login = team.new_account("anna", "team")
    run = write(team, login, b"kept")
    command = [sys.executable, "-m", "pokebattle"]
    how = {"env": team.env, "cwd": team.root, "capture_output": True, "timeout": 120, "check": True}
    copy = subprocess.run([*command, "backup", "--to", "-"], **how).stdout
    team.stop()
    subprocess.run([*command, "restore", "-", "--overwrite"], input=copy, **how)
    team.start()
    assert read(team, login, run) == b"kept"


# S3


@pytest.fixture
def emulator(tmp_path):
    """Address of an emulator of S3 with a bucket: moto's server, which is no S3."""
    import boto3

    log = (tmp_path / "s3.log").open("wb")
    command = [sys.executable, "-u", "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"]
    child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    with guarded(child.pid):
        wait_for(lambda: b"Running on http" in (tmp_path / "s3.log").read_bytes(), "the emulator of S3")
        text = (tmp_path / "s3.log").read_text()
        uri = text.partition("Running on ")[2].split()[0]
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": WORD, "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=uri, **keys)
        client.create_bucket(Bucket="team")
        yield uri, client
        child.terminate()
        child.wait(20)


def test_artifacts_go_to_s3_by_a_setting_and_clients_need_no_key(make_team, make_notebook, tmp_path, emulator):
    uri, bucket = emulator
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": WORD, "AWS_DEFAULT_REGION": "us-east-1"}
    team = make_team(MLFLOW_DEFAULT_ARTIFACT_ROOT="s3://team/runs", MLFLOW_S3_ENDPOINT_URL=uri, **keys)
    login = team.new_account("anna", "team")
    run = write(team, login, b"kept")
    assert run["artifact_uri"].startswith("mlflow-artifacts:/")
    assert read(team, login, run) == b"kept"
    keys = [one["Key"] for one in bucket.list_objects_v2(Bucket="team")["Contents"]]
    assert len(keys) == 1 and keys[0].startswith("runs/") and keys[0].endswith(f"{run['run_id']}/artifacts/a/b.txt")
    no_keys = {name: "" for name in team.env if name.startswith(("AWS_", "MLFLOW_S3", "MLFLOW_DEFAULT"))}
    child = team.papermill(login, steady(make_notebook, tmp_path, "anna", 0.0), **no_keys)
    finish([child])
    (steady_run,) = team.runs("steady", 1)
    whole(team, steady_run, "anna")
    assert not list((team.state / "shared/artifacts").rglob("*.*"))
    said = team.type("backup", "--to", str(tmp_path / "b.tar"))
    assert "no artifacts: they are in s3://team/runs" in said
