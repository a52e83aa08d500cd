"""What may have been carried out is sent again only where that is harmless or the server can show it."""

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from faults import FaultProxy

from nbtrack import spool
from nbtrack.executions import execution_folder
from nbtrack.files import read_json
from nbtrack.local_ids import new_local_id
from nbtrack.mlflow_rest import MlflowRest
from nbtrack.sender import sender as delivery
from nbtrack.sender.sender import Batch, Sender
from nbtrack.tags import LOCAL_ID
from pokebattle.paths import state_dir

API = "/api/2.0/mlflow/"
CLOCK = 60_000  # ms by which times differ: the date of an answer has whole seconds, and a busy server is late
SCORERS, JUDGE = "/api/3.0/mlflow/scorers/register", {"experiment_id": "0", "name": "judge"}


def _local(letter: str) -> str:
    """Return a local id."""
    return "10ca1" + letter * 27


@pytest.fixture
def rest(mlflow_server: str) -> MlflowRest:
    return MlflowRest(mlflow_server)


@pytest.fixture(scope="session")
def database(mlflow_server: str) -> Path:
    """The server's SQLite file, found before a test has a state of its own."""
    return state_dir() / "server" / "mlflow.db"


def age(database: Path, name: str) -> None:
    """Date back what is registered under a name, as if the server's clock had gone on by ``CLOCK`` since then."""
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table in ("registered_models", "model_versions"):
            sooner = ", ".join(f"{column} = {column} - {CLOCK}" for column in ("creation_time", "last_updated_time"))
            assert connection.execute(f"UPDATE {table} SET {sooner} WHERE name = ?", (name,)).rowcount > 0


@pytest.fixture
def name() -> str:
    """A name that is new on the server."""
    return f"repeats-{new_local_id()[5:15]}"


def call(path: str, body: dict[str, Any], method: str = "POST", **more: Any) -> dict[str, Any]:
    """Return the event of a request of mlflow's."""
    whole = path if path.startswith("/") else API + path
    return {"kind": "call", "method": method, "path": whole, "body": body, **more}


def deliver(execution: str, seconds: float = 30.0) -> str:
    """Deliver what waits until it is done, or until nothing changes any more; return what became of it."""
    deadline, took = time.monotonic() + seconds, ""
    while "status" not in read_json(execution_folder(execution) / "run.json") and time.monotonic() < deadline:
        took = spool.drain(retry_refused=True).get(execution_folder(execution), "")
    return took


def aside(execution: str) -> list[str]:
    return Sender(execution_folder(execution), "http://127.0.0.1:9").describe_aside()


def own_runs(client: mlflow.MlflowClient, experiment: str) -> list[Any]:
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


@pytest.mark.parametrize("mode", ["commit-then-503", "lose-answer", "answer-twice"])
def test_each_request_has_its_effect_once(tracked: Any, write: Any, name: str, mode: str) -> None:
    run, model, root = new_local_id(), new_local_id(), new_local_id()
    one, other = f"{name}-one", f"{name}-other"
    tagged = {"tags": [{"key": LOCAL_ID, "value": run}]}
    events = [
        call("experiments/create", {"name": one}, token=_local("e"), creates="experiment", root=root),
        call(
            "runs/create",
            {"experiment_id": _local("e"), "run_name": "child", "start_time": 5, **tagged},
            token=run,
            creates="run",
            root=new_local_id(),
        ),
        call("runs/log-metric", {"run_id": run, "key": "loss", "value": 1.5, "timestamp": 5, "step": 0}),
        call("runs/set-tag", {"run_id": run, "key": "gone", "value": "x"}),
        call("runs/delete-tag", {"run_id": run, "key": "gone"}),
        call("registered-models/create", {"name": one}, token=model, creates="registered", root=new_local_id()),
        call("registered-models/rename", {"name": one, "new_name": other}, token=new_local_id()),
        call(
            "registered-models/create", {"name": one}, token=new_local_id(), creates="registered", root=new_local_id()
        ),
        call("registered-models/delete", {"name": one}, "DELETE", token=new_local_id()),
        call(
            "model-versions/create",
            {"name": other, "source": "models:/x/1", "tags": [{"key": LOCAL_ID, "value": _local("f")}]},
            token=_local("f"),
            creates="version",
            root=new_local_id(),
        ),
        call("experiments/delete", {"experiment_id": _local("e")}, token=new_local_id()),
        call("experiments/restore", {"experiment_id": _local("e")}, token=new_local_id()),
    ]
    with FaultProxy(tracked.uri, seed=3) as proxy:
        write(name, *events, uri=proxy.uri)
        proxy.share, proxy.mode = 0.25, mode
        assert deliver(name) == "delivered"
        assert proxy.struck[mode] > 3
    refused = [line for line in aside(name) if "model-versions/create" not in line]  # its source is none
    assert refused == []
    client = tracked.client
    assert len(own_runs(client, name)) == 1 and own_runs(client, name)[0].info.status == "FINISHED"
    (child,) = own_runs(client, one)
    assert child.data.metrics == {"loss": 1.5} and "gone" not in child.data.tags
    names = {model.name for model in client.search_registered_models(f"name like '{name}%'")}
    assert names == {other}


def test_an_answer_that_was_noted_is_not_asked_for_again(tracked: Any, write: Any, name: str) -> None:
    """The sender was killed between the answer and the word that all is delivered."""
    token = new_local_id()
    write(name, call("registered-models/rename", {"name": f"{name}-a", "new_name": f"{name}-b"}, token=token))
    known = Sender(execution_folder(name), tracked.uri)
    known.progress.note(answers={token: {"status": 200, "body": {}}})
    assert deliver(name) == "delivered" and aside(name) == []


# -- what the kernel sent itself, without a local id -------------------------------------------------


@pytest.fixture
def doubtful(tracked: Any, write: Any, name: str) -> Any:
    """`doubtful(event, ...)` delivers an execution with these events, to whose requests no answer came."""

    def run(*events: dict[str, Any], began: float | None = None) -> str:
        since = {"began": int((began or time.time()) * 1000)}
        write(name, *({**event, "doubtful": True, **since} for event in events))
        return deliver(name)

    return run


def asked(path: str, creates: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    return call(path, body, token=_local("d"), creates=creates, root=_local("e"), **more)


@pytest.fixture
def place(tracked: Any, name: str) -> str:
    """An experiment's id."""
    return str(tracked.client.create_experiment(f"{name}-place"))


TAGS = [{"key": "colour", "value": "red"}]


@pytest.mark.parametrize("before", [0, 1])
def test_a_run_is_found_by_what_was_asked_for(
    tracked: Any, doubtful: Any, rest: MlflowRest, place: str, before: int
) -> None:
    body = {"experiment_id": place, "run_name": "mine", "start_time": 1234567, "user_id": "u", "tags": TAGS}
    rest.call("POST", "runs/create", **body | {"run_name": "another"})
    rest.call("POST", "runs/create", **body | {"tags": []})
    logged = rest.call("POST", "runs/create", **body)["run"]["info"]["run_id"]
    rest.log_batch(logged, params={"known": "here"})  # its writer knows its id
    ids = [rest.call("POST", "runs/create", **body)["run"]["info"]["run_id"] for _ in range(before)]
    began = time.time()
    metric = {"run_id": _local("d"), "key": "loss", "value": 2.0, "timestamp": 5, "step": 0}
    assert doubtful(asked("runs/create", "run", body), call("runs/log-metric", metric), began=began) == "delivered"
    runs = {run.info.run_id: run for run in tracked.client.search_runs([place])}
    assert len(runs) == 4
    (mine,) = [run for run in runs.values() if run.data.metrics]
    assert not ids or mine.info.run_id in ids
    assert (mine.info.run_name, mine.info.start_time) == ("mine", 1234567)
    assert LOCAL_ID not in mine.data.tags


def test_a_run_that_the_kernel_knows_is_not_taken_for_another(
    tracked: Any, doubtful: Any, rest: MlflowRest, place: str
) -> None:
    body = {"experiment_id": place, "run_name": "twin", "start_time": 77, "tags": []}
    known = rest.call("POST", "runs/create", **body)["run"]["info"]["run_id"]
    assert doubtful(asked("runs/create", "run", body, known=[known])) == "delivered"
    assert len(tracked.client.search_runs([place])) == 2


def test_a_run_that_comes_late_is_no_second_one(
    tracked: Any, write: Any, rest: MlflowRest, name: str, place: str
) -> None:
    """The server was slow to wake up: it created the run after it had been looked for."""
    body = {"experiment_id": place, "run_name": "late", "start_time": 99, "tags": []}
    event = asked("runs/create", "run", body) | {"doubtful": True, "began": int(time.time() * 1000)}
    metric = {"run_id": _local("d"), "key": "loss", "value": 2.0, "timestamp": 5, "step": 0}
    write(name, event, call("runs/log-metric", metric))
    with FaultProxy(tracked.uri) as proxy:
        proxy.paths, proxy.mode = "runs/update", "unavailable"
        one = spool.waiting()[0]
        one.start["uri"] = proxy.uri
        assert spool.deliver(one).startswith(("away", "held up"))
    rest.call("POST", "runs/create", **body)
    assert deliver(name) == "delivered"
    assert [run.data.metrics for run in tracked.client.search_runs([place])] == [{"loss": 2.0}]


@pytest.mark.parametrize("before", [0, 1])
def test_a_model_and_its_version_are_found_by_what_was_asked_for(
    tracked: Any, doubtful: Any, rest: MlflowRest, name: str, place: str, before: int
) -> None:
    run = rest.call("POST", "runs/create", experiment_id=place, start_time=1)["run"]["info"]["run_id"]
    body = {"experiment_id": place, "name": "model", "source_run_id": run, "params": [], "tags": TAGS}
    rest.call("POST", "logged-models", **body | {"tags": []})
    began = time.time()
    given = [rest.call("POST", "logged-models", **body)["model"]["info"] for _ in range(before)]
    finalize = {"model_id": "m-10ca1" + "d" * 27, "status": "LOGGED_MODEL_READY"}
    path = f"logged-models/{finalize['model_id']}"
    assert doubtful(asked("logged-models", "model", body), call(path, finalize, "PATCH"), began=began) == "delivered"
    (ready,) = [m for m in tracked.client.search_logged_models([place]) if str(m.status).endswith("READY")]
    assert len(tracked.client.search_logged_models([place])) == 2
    assert [ready.model_id] == [info["model_id"] for info in given] or not given


@pytest.mark.parametrize("before", [0, 1])
def test_a_version_is_found_by_what_was_asked_for(
    tracked: Any, doubtful: Any, rest: MlflowRest, database: Path, name: str, place: str, before: int
) -> None:
    run = rest.call("POST", "runs/create", experiment_id=place, start_time=1)["run"]["info"]
    rest.call("POST", "registered-models/create", name=name)
    body = {"name": name, "source": run["artifact_uri"] + "/model", "run_id": run["run_id"], "tags": []}
    rest.call("POST", "model-versions/create", **body)
    age(database, name)  # what is older than the request
    began = time.time()
    for _ in range(before):
        rest.call("POST", "model-versions/create", **body)
    described = {"name": name, "version": _local("d"), "description": "mine"}
    events = asked("model-versions/create", "version", body), call("model-versions/update", described, "PATCH")
    assert doubtful(*events, began=began) == "delivered"
    versions = tracked.client.search_model_versions(f"name='{name}'")
    assert {int(one.version): one.description for one in versions} == {1: "", 2: "mine"}


def test_what_was_created_under_a_name_is_there_once(tracked: Any, doubtful: Any, name: str) -> None:
    began = time.time()
    tracked.client.create_registered_model(f"{name}-model")
    tracked.client.create_experiment(f"{name}-there")
    events = [
        asked("registered-models/create", "registered", {"name": f"{name}-model"}),
        call(
            "experiments/create", {"name": f"{name}-there"}, token=_local("a"), creates="experiment", root=_local("b")
        ),
        call(
            "runs/create",
            {"experiment_id": _local("a"), "start_time": 3, "run_name": "in it", "tags": []},
            token=new_local_id(),
            creates="run",
            root=new_local_id(),
        ),
    ]
    assert doubtful(*events, began=began) == "delivered" and aside(name) == []
    assert [run.info.run_name for run in own_runs(tracked.client, f"{name}-there")] == ["in it"]


@pytest.fixture
def registered(tracked: Any, rest: MlflowRest, name: str, place: str) -> MlflowRest:
    """A registered model with two versions, the first in Production and called champion."""
    info = rest.call("POST", "runs/create", experiment_id=place, start_time=1)["run"]["info"]
    rest.call("POST", "registered-models/create", name=name)
    for _ in range(2):
        rest.call("POST", "model-versions/create", name=name, source=info["artifact_uri"] + "/m", run_id=info["run_id"])
    rest.call(
        "POST",
        "model-versions/transition-stage",
        name=name,
        version="1",
        stage="Production",
        archive_existing_versions=False,
    )
    rest.call("POST", "registered-models/alias", name=name, alias="champion", version="1")
    return rest


CHANGES = {
    "stage": (
        "POST",
        "model-versions/transition-stage",
        {"version": "2", "stage": "Production", "archive_existing_versions": True},
    ),
    "alias": ("POST", "registered-models/alias", {"alias": "champion", "version": "2"}),
    "alias away": ("DELETE", "registered-models/alias", {"alias": "champion"}),
    "version away": ("DELETE", "model-versions/delete", {"version": "2"}),
    "model away": ("DELETE", "registered-models/delete", {}),
    "renamed": ("POST", "registered-models/rename", {"new_name": "…-new"}),
    "described": ("PATCH", "registered-models/update", {"description": "good"}),
}


def state(rest: MlflowRest, name: str) -> Any:
    """Return what is registered under the names that a test uses."""
    registered = {}
    for one in (name, f"{name}-new"):
        models = rest.call("GET", "registered-models/search", filter=f"name='{one}'").get("registered_models", [])
        versions = rest.call("GET", "model-versions/search", filter=f"name='{one}'").get("model_versions", [])
        registered[one] = (
            [(m.get("description"), m.get("aliases")) for m in models],
            sorted((v["version"], v["current_stage"]) for v in versions),
        )
    return registered


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("before", [False, True])
def test_a_change_is_made_once(
    tracked: Any, doubtful: Any, registered: MlflowRest, database: Path, name: str, change: str, before: bool
) -> None:
    method, path, body = CHANGES[change]
    body = {"name": name, **body} | ({"new_name": f"{name}-new"} if "new_name" in body else {})
    age(database, name)
    began = time.time()
    if before:
        registered.call(method, path, **body)
    unchanged = state(registered, name)
    assert doubtful(call(path, body, method, token=new_local_id()), began=began) == "delivered"
    assert aside(name) == []
    after = state(registered, name)
    assert (after == unchanged) is before


def test_a_move_is_not_repeated_over_somebody_elses(
    tracked: Any, doubtful: Any, registered: MlflowRest, database: Path, name: str
) -> None:
    """It was carried out or not; since then, a user has moved the version elsewhere."""
    method, path, body = CHANGES["stage"]
    age(database, name)
    began = time.time()
    moved = {"name": name, "version": "2", "stage": "Staging", "archive_existing_versions": False}
    registered.call("POST", "model-versions/transition-stage", **moved)
    assert doubtful(call(path, {"name": name, **body}, method, token=new_local_id()), began=began) == "delivered"
    (line,) = aside(name)
    assert "UNCLEAR" in line and "was changed meanwhile" in line
    assert dict(state(registered, name)[name][1]) == {"1": "Production", "2": "Staging"}


def test_a_request_whose_effect_cannot_be_checked_is_not_repeated(tracked: Any, doubtful: Any, name: str) -> None:
    """Every registration of a scorer is a version of it."""
    assert doubtful(call(SCORERS, JUDGE, token=new_local_id())) == "delivered"
    (line,) = aside(name)
    assert "scorers/register may have been carried out" in line


def test_what_never_left_is_sent(write: Any, tracked: Any, name: str) -> None:
    """No server accepted the connection: that is no unclear end."""
    with FaultProxy(tracked.uri) as proxy:
        write(name, call(SCORERS, JUDGE, token=new_local_id()), uri=proxy.uri)
        proxy.paths, proxy.mode = "x", "refuse"
        assert "away" in spool.drain()[execution_folder(name)]
        proxy.mode = "pass"
        assert deliver(name) == "delivered"
        assert proxy.count("POST", SCORERS) == 1


def test_the_number_of_requests_for_one_bad_name_does_not_grow_with_its_points(
    tracked: Any, rest: MlflowRest, name: str, tmp_path: Any
) -> None:
    place = tracked.client.create_experiment(name)
    run = tracked.client.create_run(place).info.run_id
    points = [
        {"key": key, "value": float(n), "timestamp": n, "step": n}
        for n in range(300)
        for key in ("good", "b@d", "fine")
    ]
    with FaultProxy(tracked.uri) as proxy:
        sender = delivery.Sender(tmp_path, proxy.uri)
        sender.put(Batch(run, points, {"p": "1"}, {"t": "x"}))
        sender.flush()
        assert sum(proxy.requests.values()) < 25
    assert [line.partition(" of run")[0] for line in sender.describe_aside()] == ["b@d"]
    data = tracked.client.get_run(run).data
    assert data.metrics == {"good": 299.0, "fine": 299.0} and data.params == {"p": "1"} and data.tags["t"] == "x"
