"""What a reader makes of the events that cells seldom cause: data, trials, files, runs of one's own, moves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbtrack import tags, trials
from nbtrack.journal import NOT_ENDED
from nbtrack.local_ids import new_local_id
from nbtrack.secrets import Masker
from nbtrack.sender.journal_reader import JournalReader
from nbtrack.sender.queue_items import Batch, Call, Experiment, File, Removal
from nbtrack.sender.sender import Sender

RUN, ROOT, OTHER = (f"10ca1{digit * 27}" for digit in "123")
GIVEN = 32 * "a"
START = {
    "kind": "start",
    "time": 0,
    "execution": "one",
    "run": RUN,
    "root": ROOT,
    "experiment_token": OTHER,
    "notebook": "/home/u/old.ipynb",
    "executor": "papermill",
    "cwd": "/",
    "user": "somebody",
    "kernel": {"host": "h", "boot": "b", "pid": 1, "started": 1},
    "driver": None,
}
NAMES = {"kind": "names", "time": 1, "experiment": "e", "run_name": "r"}

Read = Callable[..., JournalReader]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """`read(event, …)` reads a journal to its end; what it queues stays in the queue."""
    monkeypatch.setattr(Sender, "flush", lambda self: None)
    (tmp_path / "code.json").write_text('{"commit": ""}')  # so that git is not asked

    def read(*events: dict[str, Any], executor: str = "papermill") -> JournalReader:
        delivery = Sender(tmp_path, "http://127.0.0.1:9")
        delivery.progress.note(ids={RUN: GIVEN})
        add(tmp_path, START | {"executor": executor}, *events)
        reader = JournalReader(tmp_path, delivery, Masker({}))
        reader.read()
        return reader

    return read


def add(folder: Path, *events: dict[str, Any]) -> None:
    with (folder / "journal.jsonl").open("a") as file:
        file.writelines(json.dumps({"time": 5000} | event) + "\n" for event in events)


def queued(reader: JournalReader) -> list[Any]:
    return [item.body if isinstance(item, Call) else item for item in reader.delivery.queue]


def dataset(part: str, **more: Any) -> dict[str, Any]:
    return {"kind": "dataset", "name": "battles", "digest": "d1", "part": part, "rows": 40, **more}


@pytest.mark.parametrize(
    ("part", "name", "context", "opened"),
    [
        ("train", "battles", "training", False),
        ("test", "battles-test", "test", True),
        ("dev", "battles-dev", "dev", True),
    ],
)
def test_a_part_of_a_data_set_is_an_input_and_of_a_held_out_one_the_time_is_noted(
    read: Read, part: str, name: str, context: str, opened: bool
) -> None:
    first, *rest = queued(read(dataset(part)))
    (given,) = first["datasets"]
    assert first["run_id"] == RUN and (given["dataset"]["name"], given["dataset"]["digest"]) == (name, "d1")
    assert given["tags"] == [{"key": tags.DATA_CONTEXT, "value": context}]
    noted = {"run_id": RUN, "key": f"pokebattle.opened.{part}", "value": "1970-01-01T00:00:05+00:00"}
    assert rest == ([noted] if opened else [])


@pytest.mark.parametrize("source", [None, "file.csv"])
def test_a_data_set_has_a_source_and_a_manifest(read: Read, source: str | None) -> None:
    reader = read(dataset("train", manifest={"name": "m"}, **({"source": source} if source else {})), dataset("train"))
    (given,) = queued(reader)[0]["datasets"]
    assert (source or "battles") in given["dataset"]["source"]
    assert reader.manifests == [{"name": "m"}]


TRIAL = {
    "kind": "trial",
    "study": "s",
    "number": 3,
    "name": "trial 3",
    "params": {"depth": "6"},
    "metrics": {"loss": 0.5, "gap": None},
    "curve": "valid",
    "steps": [[0, 0.7], [1, 0.5]],
    "began": 1000,
    "ended": 2000,
}


@pytest.mark.parametrize(("state", "status"), [("complete", "FINISHED"), ("pruned", "KILLED"), ("failed", "FAILED")])
@pytest.mark.parametrize("parent", [None, 32 * "b"])
def test_a_trial_is_a_child_run_that_others_may_have_created(
    read: Read, state: str, status: str, parent: str | None
) -> None:
    reader = read(TRIAL | {"state": state} | ({"parent": parent} if parent else {}))
    create, values, end = reader.delivery.queue
    token, root = trials.ids("s", 3)
    assert isinstance(create, Call) and (create.token, create.root, create.shared) == (token, root, True)
    assert (create.body["run_name"], create.body["start_time"]) == ("trial 3", 1000)
    named = {pair["key"]: pair["value"] for pair in create.body["tags"]}
    assert named[tags.PARENT_RUN] == (parent or RUN) and named[tags.TRIAL_STATE] == state
    assert named[tags.LOCAL_ID] == token
    assert isinstance(values, Batch) and values.params == {"depth": "6"}
    shown = [(point["key"], point["step"], point["value"]) for point in values.metrics]
    assert shown == [("loss", 0, 0.5), ("gap", 0, "NaN"), ("valid", 0, 0.7), ("valid", 1, 0.5)]
    assert isinstance(end, Call) and end.body == {"run_id": token, "status": status, "end_time": 2000}


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        (f"{ROOT}/model/MLmodel", ROOT, "model/MLmodel"),
        (f"{ROOT}/a.txt", ROOT, "a.txt"),
        (f"m-{OTHER}/a.txt", f"m-{OTHER}", "a.txt"),
        (f"7/{GIVEN}/artifacts/plots/a.png", f"7/{GIVEN}/artifacts/plots", "a.png"),
    ],
)
def test_an_artifact_belongs_to_a_folder(read: Read, tmp_path: Path, path: str, root: str, below: str) -> None:
    (item,) = queued(read({"kind": "artifact", "path": path, "file": "1-1"}))
    assert isinstance(item, File)
    assert (item.root, item.path, item.staged) == (root, below, tmp_path / "files" / "1-1")


def status(run: str, ended_as: str) -> dict[str, Any]:
    return {"kind": "run_status", "run": run, "status": ended_as}


@pytest.mark.parametrize(
    ("events", "ended_as", "children"),
    [
        ([status(RUN, "FAILED")], "FAILED", {}),
        ([status(GIVEN, "KILLED")], "KILLED", {}),
        ([status(RUN, "FINISHED"), status(RUN, "RUNNING")], "", {}),
        ([status(RUN, "FINISHED"), status(RUN, NOT_ENDED)], "", {}),
        ([status(OTHER, "RUNNING")], "", {OTHER: "RUNNING"}),
        ([status(OTHER, "RUNNING"), status(OTHER, "FINISHED")], "", {OTHER: "FINISHED"}),
        ([status(OTHER, NOT_ENDED), status(RUN, "FINISHED")], "FINISHED", {OTHER: NOT_ENDED}),
    ],
)
def test_cells_start_and_end_runs(read: Read, events: Any, ended_as: str, children: dict[str, str]) -> None:
    reader = read(*events)
    assert (reader.ended_as, reader.children) == (ended_as, children) and not reader.delivery.queue


def test_tags_are_the_runs_or_those_of_a_named_run(read: Read) -> None:
    reader = read(
        {"kind": "tags", "values": {"a": "1"}},
        {"kind": "tags", "values": {tags.DESCRIPTION: "of another"}, "run": OTHER},
        {"kind": "tags", "values": {tags.DESCRIPTION: "own"}},
    )
    assert queued(reader) == [Batch(RUN, tags={"a": "1"}), Batch(OTHER, tags={tags.DESCRIPTION: "of another"})]
    assert reader.description() == "own"


def test_a_notebook_that_is_renamed_is_called_so(read: Read) -> None:
    reader = read({"kind": "moved", "notebook": "/home/u/new.ipynb", "stem": "new"})
    assert queued(reader) == [Batch(RUN, tags={tags.SOURCE_NAME: "/home/u/new.ipynb"})]
    assert (reader.start["notebook"], reader.start["stem"]) == ("/home/u/new.ipynb", "new")


def begun(turn: int, count: int | None) -> dict[str, Any]:
    return {"kind": "cell_start", "cell": turn, "cell_id": None, "source": "1", "execution_count": count}


def done(turn: int, count: int | None) -> dict[str, Any]:
    return {"kind": "cell_end", "cell": turn, "seconds": 0.5, "ok": True, "execution_count": count, "error": None}


def counted(turn: int, count: int) -> dict[str, Any]:
    return {"kind": "cell_count", "cell": turn, "execution_count": count}


@pytest.mark.parametrize(
    ("events", "shown"),
    [
        ([begun(0, 1), counted(0, 2)], 2),
        ([begun(0, 1), done(0, 1), counted(0, 2)], 2),
        ([begun(0, 1), done(0, 3)], 3),
        ([begun(0, 1), counted(0, 2), done(0, None)], 2),
        ([counted(0, 4)], 4),
    ],
)
def test_a_cells_number_is_the_last_that_was_said(read: Read, events: Any, shown: int) -> None:
    assert [cell.count for cell in read(*events).cells] == [shown]


def test_how_long_a_cell_took_is_a_metric_at_its_number(read: Read) -> None:
    first, second = (point for item in queued(read(begun(0, 7), done(0, 7), done(1, None))) for point in item.metrics)
    assert (first["key"], first["value"], first["step"]) == ("cell/seconds", 0.5, 7)
    assert second["step"] == 1


def test_how_long_a_script_took_is_no_metric(read: Read) -> None:
    assert not read(begun(0, None), done(0, None), executor="script").delivery.queue


def test_files_of_a_kind_that_are_used_are_passed_on(read: Read) -> None:
    events = [{"kind": "files_used", "pattern": "/p/*.yaml", "used": [f"/p/{name}.yaml"]} for name in "aab"]
    assert read(*events).provenance.used == {"/p/*.yaml": {"/p/a.yaml", "/p/b.yaml"}}


@pytest.mark.parametrize(
    ("kind", "attribute"), [("shutdown", "shutdown"), ("driver_end", "driver_end"), ("kernel_end", "kernel_end")]
)
def test_how_it_ended_is_kept(read: Read, kind: str, attribute: str) -> None:
    event = {"kind": kind, "time": 9000, "cause": "c", "restart": True}
    reader = read(event)
    assert getattr(reader, attribute) == event and reader.last_time == 9000


def test_unknown_events_and_torn_lines_are_passed_over(read: Read, tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"kind": "cell_st\n[1]\n{"time": 3}\n')
    reader = read({"kind": "of a later release"}, status(OTHER, "RUNNING"))
    assert reader.children == {OTHER: "RUNNING"}


@pytest.mark.parametrize("opened", [False, True])
def test_another_experiment_lets_the_run_begin_again_there(read: Read, tmp_path: Path, opened: bool) -> None:
    reader = read(NAMES)
    place, run = reader.delivery.queue
    assert isinstance(place, Experiment) and place.name == "e" and isinstance(run, Call)
    reader.delivery.queue.clear()
    moved = reader.read_to
    reader.delivery.progress.note(offset=moved, **({"run": {"run_id": GIVEN}} if opened else {}))
    add(tmp_path, {"kind": "experiment", "experiment_id": "9", "name": "other"})
    reader.read()
    place, run, *removal = reader.delivery.queue
    assert isinstance(place, Experiment) and (place.name, place.given_id, place.vital) == ("other", "", True)
    assert isinstance(run, Call) and (run.creates, run.token, run.vital) == ("run", RUN, True)
    assert removal == ([Removal(GIVEN)] if opened else [])
    assert reader.names == ("other", "r")


def test_a_journal_that_is_read_again_queues_the_same(read: Read, tmp_path: Path) -> None:
    events = [NAMES, dataset("test"), TRIAL | {"state": "complete"}, status(OTHER, "FINISHED"), begun(0, 1), done(0, 1)]
    reader = read(*events)
    again = JournalReader(tmp_path, Sender(tmp_path, "http://127.0.0.1:9"), Masker({}))
    again.read()
    assert list(map(str, again.delivery.queue)) == list(map(str, reader.delivery.queue))
    assert len(reader.delivery.queue) >= 7


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("runs/log-metric", {"run_id": RUN, "key": "a", "value": 1.0, "timestamp": 1}, {"metrics": ["a"]}),
        ("runs/log-metric", {"run_uuid": RUN, "key": "a", "value": 1.0, "timestamp": 1}, {"metrics": ["a"]}),
        ("runs/log-parameter", {"run_id": RUN, "key": "a", "value": "1"}, {"params": ["a"]}),
        ("runs/set-tag", {"run_id": RUN, "key": "a", "value": "1"}, {"tags": ["a"]}),
        ("runs/set-tag", {"run_id": RUN, "key": "a"}, {"tags": ["a"]}),
        (
            "runs/log-batch",
            {"run_id": RUN, "params": [{"key": "p", "value": "1"}], "tags": [{"key": "t", "value": "1"}]},
            {"params": ["p"], "tags": ["t"]},
        ),
        ("runs/log-batch", {"run_id": RUN}, {}),
    ],
)
def test_what_a_cell_logs_is_batched(read: Read, path: str, body: dict[str, Any], expected: Any) -> None:
    event = {"kind": "call", "method": "POST", "path": f"/api/2.0/mlflow/{path}", "body": body}
    batched: dict[str, list[str]] = {}
    for item in queued(read(event)):
        assert isinstance(item, Batch) and item.run == RUN
        batched |= {"metrics": [point["key"] for point in item.metrics]} if item.metrics else {}
        batched |= {kind: list(values) for kind, values in (("params", item.params), ("tags", item.tags)) if values}
    assert batched == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (False, 5000, False, [])),
        ({"doubtful": True, "began": 4000, "known": [7, "x"]}, (True, 4000, True, ["7", "x"])),
        ({"doubtful": True}, (True, 5000 - 120_000, False, [])),
    ],
)
def test_when_a_request_may_have_been_sent(read: Read, fields: dict[str, Any], expected: Any) -> None:
    token = new_local_id()
    event = {"kind": "call", "method": "POST", "path": "/api/2.0/mlflow/runs/create", "body": {"run_name": "x"}}
    (call,) = read(event | {"token": token, "creates": "run", "root": ROOT} | fields).delivery.queue
    assert isinstance(call, Call) and (call.token, call.creates, call.root) == (token, "run", ROOT)
    assert (call.doubtful, call.asked, call.exact, call.known) == expected
