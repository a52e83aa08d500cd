"""What the server does not take costs itself alone, and points keep the order in which they were logged."""

import json
import time
from typing import Any

import nbformat
import pytest
from faults import FaultProxy

from nbtrack import health, spool
from nbtrack.executions import execution_folder
from nbtrack.files import read_json
from nbtrack.local_ids import new_local_id
from nbtrack.mlflow_rest import as_json, storable, storable_key
from nbtrack.sender.sender import Batch, File, Sender

API = "/api/2.0/mlflow/"


@pytest.fixture
def name() -> str:
    """A name that is new on the server."""
    return f"delivery-{new_local_id()[5:15]}"


def metric(key: str, value: Any, run: str, step: int = 0, **more: Any) -> dict[str, Any]:
    now = int(time.time() * 1000)
    body = {"run_id": run, "key": key, "value": value, "timestamp": now, "step": step} | more
    return {"kind": "call", "method": "POST", "path": f"{API}runs/log-metric", "body": body}


def delivered(tracked: Any, name: str) -> Any:
    """Deliver what waits; return the run of the only execution."""
    assert spool.drain()[execution_folder(name)] == "delivered"
    (run,) = tracked.runs(name)
    return run


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (
            {"a": float("nan"), "b": [float("inf"), -float("inf"), 1.5]},
            {"a": "NaN", "b": ["Infinity", "-Infinity", 1.5]},
        ),
        ({"half": "a\ud800b", "whole": "naïve \U0001f600"}, {"half": "a?b", "whole": "naïve \U0001f600"}),
        ({"\udfff": 1}, {"?": 1}),
    ],
)
def test_a_request_is_json_that_is_read_to_its_end(value: Any, sent: Any) -> None:
    assert json.loads(as_json(value), parse_constant=lambda word: pytest.fail(word)) == sent


def test_names_and_texts_fit_every_database() -> None:
    assert storable_key("fit/XGB/ndcg@10 (best)") == "fit/XGB/ndcg_at_10 _best_"
    assert len(storable_key("k" * 300)) == 250
    assert storable("a\0b\ud800", 3) == "a�b"


@pytest.mark.parametrize("kind", ["step 0", "no two alike", "equal values"])
def test_the_last_point_of_a_millisecond_is_shown(tracked: Any, write: Any, name: str, kind: str) -> None:
    """As where every call is awaited, so that no two points have one time."""
    run = new_local_id()
    values = {"step 0": [3.0, 9.0, 1.0], "no two alike": [9.0, 5.0, 1.0], "equal values": [2.0, 2.0, 2.0]}[kind]
    write(name, *(metric("loss", value, run, step=7) for value in values), run=run)
    stored = delivered(tracked, name)
    assert stored.data.metrics["loss"] == values[-1]
    history = tracked.client.get_metric_history(stored.info.run_id, "loss")
    assert [point.value for point in sorted(history, key=lambda point: point.timestamp)] == values
    assert history[-1].timestamp - history[0].timestamp < 1000


def test_times_that_the_user_gave_stay(tracked: Any, write: Any, name: str) -> None:
    run = new_local_id()
    write(name, *(metric("loss", value, run, timestamp=5) for value in (9.0, 1.0)), run=run)
    stored = delivered(tracked, name)
    assert {point.timestamp for point in tracked.client.get_metric_history(stored.info.run_id, "loss")} == {5}


def test_a_point_of_a_clock_that_was_set_back_stays_behind(tracked: Any, write: Any, name: str) -> None:
    run, now = new_local_id(), int(time.time() * 1000)
    points = [(1.0, now), (2.0, now - 400), (3.0, now - 400)]
    write(name, *(metric("loss", value, run, timestamp=at) for value, at in points), run=run)
    stored = delivered(tracked, name)
    history = tracked.client.get_metric_history(stored.info.run_id, "loss")
    assert sorted(point.timestamp for point in history) == [now - 400, now - 399, now]


def test_what_the_server_cannot_take_costs_itself_alone(tracked: Any, write: Any, name: str) -> None:
    run, missing = new_local_id(), "0" * 32
    tag = {
        "kind": "call",
        "method": "POST",
        "path": f"{API}runs/set-tag",
        "body": {"run_id": missing, "key": "colour", "value": "red"},
    }
    bad = [
        metric("map@50", 1.0, run),
        metric("k" * 251, 1.0, run),
        metric("lost", 1.0, missing),
        tag,
        metric("nul\0", 1.0, run),
        metric("odd", float("nan"), run),
        metric("half", 1.0, run),
    ]
    good = [metric(f"good{n}", float(n), run) for n in range(len(bad))]
    write(
        name,
        *(event for pair in zip(bad, good, strict=True) for event in pair),
        run=run,
        run_name="r" * 300 + "\0",
        user="u\ud800" * 200,
    )
    stored = delivered(tracked, name)
    assert {f"good{n}" for n in range(len(bad))} | {"odd", "half"} <= set(stored.data.metrics)
    assert len(stored.info.run_name) == 250 and stored.info.status == "FINISHED"
    set_aside = stored.data.tags["pokebattle.set_aside"]
    assert set_aside.startswith("5: ") and "map@50" in set_aside and missing in set_aside
    (finding,) = health._set_aside()
    assert "map@50" in finding.text and "{" not in finding.text


def test_a_batch_that_fails_inside_the_server_costs_itself_alone(tracked: Any, write: Any, name: str) -> None:
    """And is tried again: it may pass."""
    run = new_local_id()
    write(name, metric("before", 1.0, run), uri="http://127.0.0.1:9", run=run)
    sender = Sender(execution_folder(name), tracked.uri)
    place = tracked.client.create_experiment(name)
    given = tracked.client.create_run(place).info.run_id
    sender.own_run = run
    sender.progress.note(ids={run: given})
    with FaultProxy(tracked.uri) as proxy:
        sender.rest.uri = proxy.uri
        proxy.answer_500 = b'"poison"'
        points = [{"key": key, "value": 1.0, "timestamp": 5, "step": 0} for key in ("a", "poison", "b")]
        sender.put(Batch(run, points, {"p": "1"}, {"poison": "x", "t": "y"}))
        sender.put(File(new_local_id(), "no/where.txt", lambda: [b"x"]))
        sender.flush()
        data = tracked.client.get_run(given).data
        assert set(data.metrics) == {"a", "b"} and data.params == {"p": "1"} and data.tags["t"] == "y"
        assert len(sender.describe_aside()) == 3
        sender.put(Batch(run, tags={"poison": "newer"}))
        proxy.answer_500 = b""
        sender.flush()
        sender.retry_aside()
    data = tracked.client.get_run(given).data
    assert data.metrics["poison"] == 1.0 and data.tags["poison"] == "newer"
    assert [line.partition(" (")[0] for line in sender.describe_aside()] == ["artifact no/where.txt"]


@pytest.mark.parametrize("purged", [False, True])
def test_a_run_that_was_deleted_is_called_so(
    tracked: Any, write: Any, name: str, monkeypatch: pytest.MonkeyPatch, purged: bool
) -> None:
    run = new_local_id()
    write(name, metric("loss", 1.0, run), run=run)
    with FaultProxy(tracked.uri) as proxy:
        one = next(one for one in spool.waiting() if one.folder.name == name)
        one.start["uri"] = proxy.uri
        proxy.paths, proxy.mode = "log-batch", "unavailable"
        assert spool.deliver(one).startswith("held up")
    place = tracked.client.get_experiment_by_name(name).experiment_id
    (given,) = (stored.info.run_id for stored in tracked.client.search_runs([place]))
    if purged:
        progress = Sender(execution_folder(name), tracked.uri).progress
        progress.note(ids={run: "0" * 32})  # as if its run had been taken away by `mlflow gc`
    else:
        tracked.client.delete_run(given)
    assert spool.drain()[execution_folder(name)].startswith("refused: run")
    (finding,) = [one for one in health._waiting() if one.subject == "refused"]
    if purged:
        assert "deleted for good" in finding.text and f"sync --forget {name}" in finding.fix
        tracked.client.delete_run(given)  # on this server it is there, and open
        return
    assert f"run {given} was deleted: `mlflow runs restore --run-id {given}`" in finding.text
    tracked.client.restore_run(given)
    assert spool.drain(retry_refused=True)[execution_folder(name)] == "delivered"
    assert delivered_metrics(tracked, given) == {"loss": 1.0}
    assert read_json(execution_folder(name) / "run.json")["status"] == "FINISHED"


def delivered_metrics(tracked: Any, run_id: str) -> dict[str, float]:
    return dict(tracked.client.get_run(run_id).data.metrics)


HALVES = """
for function, given in (
    (mlflow.log_param, ('half', 'a\\ud800b')),
    (mlflow.set_tag, ('half', 'a\\ud800b')),
    (mlflow.log_text, ('a\\ud800b', 'half.txt')),
):
    try:
        function(*given)
    except UnicodeEncodeError as raised:  # mlflow's own, before it sends anything
        print(raised.reason)
mlflow.log_param('whole', 'b')
mlflow.set_tag('whole', 'b')
mlflow.log_text('b', 'whole.txt')"""


@pytest.mark.parametrize("mode", ["pass", "refuse"])
def test_half_a_character_costs_itself_alone(tracked: Any, make_notebook: Any, mode: str) -> None:
    """What a cell logs is refused by mlflow; what tracking notes by itself is stored with a mark in its place."""
    name = f"half_{mode}"
    cells = ("import mlflow\nmlflow.log_metric('before', 1)", HALVES, "mlflow.log_metric('after', 2)")
    path = tracked.write(f"{name}.ipynb", make_notebook(*cells, parameters="given = 'a\\ud800b'"))
    with FaultProxy(tracked.uri) as proxy:
        proxy.mode = mode
        tracked.env["MLFLOW_TRACKING_URI"] = proxy.uri
        done = tracked.papermill(path)
        assert done.returncode == 0, done.stderr
        proxy.mode = "pass"
        tracked.execute("python", "-m", "pokebattle", "sync")
        (run,) = tracked.runs(name)
    outputs = nbformat.read(tracked.folder / "out.ipynb", 4).cells[2].outputs
    assert "".join(output.text for output in outputs) == "surrogates not allowed\n" * 3
    assert (run.info.status, run.data.params) == ("FINISHED", {"whole": "b", "given": "a?b"})
    assert run.data.tags["whole"] == "b" and "pokebattle.set_aside" not in run.data.tags
    assert {"before": 1.0, "after": 2.0}.items() <= run.data.metrics.items()
    files = {file.path for file in tracked.client.list_artifacts(run.info.run_id)}
    assert {"whole.txt", f"{name}.ipynb", "cells.json", "parameters.json"} <= files


HURRIED = """\
from nbtrack import sender_start
main = "from nbtrack.sender import process, sender; sender.PERSISTENCE = 0.0; process.main()"
sender_start.SENDER = sender_start.SENDER.partition("from ")[0] + main
"""  # what the kernel runs when it starts: its sender does not wait a minute for a server that fails at one item


def test_a_batch_at_which_the_server_fails_is_named(tracked: Any, make_notebook: Any) -> None:
    cells = (
        "import mlflow\nmlflow.log_metrics({'a': 1.0, 'poison': 1.0, 'b': 2.0})\nmlflow.log_param('p', 1)",
        "mlflow.log_metric('after', 3.0)",
    )
    startup = tracked.folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "hurried.py").write_text(HURRIED)
    with FaultProxy(tracked.uri) as proxy:
        proxy.answer_500 = b'"poison"'
        tracked.env["MLFLOW_TRACKING_URI"] = proxy.uri
        path = tracked.write("poisoned.ipynb", make_notebook(*cells))
        done = tracked.papermill(path, IPYTHONDIR=str(tracked.folder / "ipython"))
        assert done.returncode == 0, done.stderr
        (run,) = tracked.runs("poisoned")
        doctor = tracked.execute("python", "-m", "pokebattle", "doctor")
    assert (run.info.status, run.data.params) == ("FINISHED", {"p": "1"})
    assert {key: run.data.metrics.get(key) for key in ("a", "b", "after", "poison")} == {
        "a": 1.0,
        "b": 2.0,
        "after": 3.0,
        "poison": None,
    }
    set_aside = run.data.tags["pokebattle.set_aside"]
    assert set_aside.startswith(f"1: poison of run {run.info.run_id} (HTTP 500"), set_aside
    (line,) = [line for line in doctor.stdout.splitlines() if "set aside" in line]
    assert doctor.returncode == 1 and "poison" in line and "HTTP 500" in line
