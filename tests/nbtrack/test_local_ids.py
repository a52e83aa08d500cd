"""Local ids: what they look like, and where a sender puts the server's in their place."""

import json
from pathlib import Path
from typing import Any

import pytest

from nbtrack.errors import ServerError
from nbtrack.local_ids import LOCAL, is_local_id, local_ids, new_local_id, new_local_version
from nbtrack.sender.sender import Sender
from nbtrack.tags import LOCAL_ID

RUN, ROOT, MODEL, PLACE, AWAY, UNKNOWN = (f"10ca1{digit * 27}" for digit in "123456")
VERSION, UNKNOWN_VERSION = "102011100000000001", "102011100000000002"
IDS = {
    RUN: 32 * "a",
    ROOT: f"mlflow-artifacts:/7/{32 * 'a'}/artifacts",
    f"m-{MODEL}": f"m-{32 * 'b'}",
    PLACE: "7",
    AWAY: "s3://bucket/runs/artifacts",
    VERSION: "3",
}


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    """A sender that knows the server's ids."""
    result = Sender(tmp_path, "http://127.0.0.1:9")
    result.progress.note(ids=IDS)
    return result


@pytest.mark.parametrize("name", ["one", "ein Ordner/ä", "", "one attempt 2"])
def test_ids_of_a_name_are_the_same_everywhere(name: str) -> None:
    run, root = local_ids(name)
    assert local_ids(name) == (run, root) and run != root
    assert is_local_id(run) and is_local_id(root)
    assert {run, root}.isdisjoint(local_ids(f"{name} "))


def test_ids_of_a_name_stay_the_same_in_later_releases() -> None:
    assert local_ids("study 3") == ("10ca15dadb2f7283318dc8f805b25797", "10ca1e030cd82ff91e6e12da38a329e7")


@pytest.mark.parametrize("new", [new_local_id, new_local_version])
def test_new_ids_are_local_and_differ(new: Any) -> None:
    ids = [new() for _ in range(100)]
    assert len(set(ids)) == 100 and all(map(is_local_id, ids))


def test_a_local_version_is_an_integer_of_the_database() -> None:
    assert int(new_local_version()) < 2**63


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RUN, True),
        (f"m-{MODEL}", True),
        (VERSION, True),
        (f"mlflow-artifacts:/{ROOT}", True),
        (32 * "a", False),
        (f"m-{32 * 'a'}", False),
        ("3", False),
        ("", False),
        (RUN[:-1], False),
        (f"{RUN}a", False),
        (RUN.upper(), False),
        (VERSION[:-1], False),
        (f"{VERSION}0", False),
        (f"{RUN}/model", False),
        (f"{PLACE}-root", False),
    ],
)
def test_which_texts_are_local_ids(text: str, expected: bool) -> None:
    assert is_local_id(text) is expected


API = "/api/2.0/mlflow"
ARTIFACTS = f"mlflow-artifacts:/7/{32 * 'a'}/artifacts"
PLACES: dict[str, tuple[Any, Any]] = {
    "a run": ({"run_id": RUN}, {"run_id": 32 * "a"}),
    "an experiment": ({"experiment_id": PLACE, "tags": []}, {"experiment_id": "7", "tags": []}),
    "experiments": ({"experiment_ids": [PLACE, "0"]}, {"experiment_ids": ["7", "0"]}),
    "a version": ({"name": "m", "version": VERSION}, {"name": "m", "version": "3"}),
    "a version in a text": ("version 102011100000000001 is better", "version 3 is better"),
    "a version with a letter before it": (f"v{VERSION}", "v3"),
    "a version between underscores": (f"m_{VERSION}_best", "m_3_best"),
    "a version at the beginning of a line": (f"versions:\n{VERSION}\n", "versions:\n3\n"),
    "a version after a tab": (f"m\t{VERSION}", "m\t3"),
    "a run at the beginning of a line": (f"runs:\n{RUN}\f{RUN}", f"runs:\n{32 * 'a'}\f{32 * 'a'}"),
    "a run in quotes": (f"„{RUN}“", f"„{32 * 'a'}“"),
    "a logged model": ({"model_id": f"m-{MODEL}"}, {"model_id": f"m-{32 * 'b'}"}),
    "a path": (f"{API}/logged-models/m-{MODEL}/tags", f"{API}/logged-models/m-{32 * 'b'}/tags"),
    "the address of a run's model": (f"runs:/{RUN}/model", f"runs:/{32 * 'a'}/model"),
    "the address of a logged model": (f"models:/m-{MODEL}", f"models:/m-{32 * 'b'}"),
    "the address of a version": (f"models:/battle winner/{VERSION}", "models:/battle winner/3"),
    "an artifact's address": (f"mlflow-artifacts:/{ROOT}/model", f"{ARTIFACTS}/model"),
    "an artifact's folder": (f"mlflow-artifacts:/{ROOT}", ARTIFACTS),
    "an artifact's path": (f"{ROOT}/model", f"7/{32 * 'a'}/artifacts/model"),
    "an artifact's address in a bucket": (f"mlflow-artifacts:/{AWAY}/model", "s3://bucket/runs/artifacts/model"),
    "an artifact's path in a bucket": (f"{AWAY}/model", "s3://bucket/runs/artifacts/model"),
    "an artifact's address in a text": (f"see mlflow-artifacts:/{ROOT}/a.png", f"see {ARTIFACTS}/a.png"),
    "a link": (f"http://h:1/#/experiments/{PLACE}/runs/{RUN}", f"http://h:1/#/experiments/7/runs/{32 * 'a'}"),
    "two runs": (f"{RUN},{RUN} {RUN}", f"{32 * 'a'},{32 * 'a'} {32 * 'a'}"),
    "a tag's value": ({"key": "mlflow.parentRunId", "value": RUN}, {"key": "mlflow.parentRunId", "value": 32 * "a"}),
    "JSON in a tag's value": (
        {"value": json.dumps([{"run_id": RUN, "path": f"mlflow-artifacts:/{ROOT}/x"}])},
        {"value": json.dumps([{"run_id": 32 * "a", "path": f"{ARTIFACTS}/x"}])},
    ),
    "a tag's name": ({"params": {f"best.{RUN}": "x"}}, {"params": {f"best.{32 * 'a'}": "x"}}),
    "values of all kinds": ([1, 1.5, None, True, {"a": RUN}], [1, 1.5, None, True, {"a": 32 * "a"}]),
    "no ids": ({"a": ["ä", "10ca1", "1020111"]}, {"a": ["ä", "10ca1", "1020111"]}),
    "the server's ids": ({"run_id": 32 * "a", "version": "3"}, {"run_id": 32 * "a", "version": "3"}),
    "a digest that contains such a beginning": (f"{5 * 'a'}{UNKNOWN}{27 * 'b'}", f"{5 * 'a'}{UNKNOWN}{27 * 'b'}"),
    "a longer number": ("1020111000000000010", "1020111000000000010"),
    "its own tag": (
        {"tags": [{"key": LOCAL_ID, "value": UNKNOWN}], "run_name": "r"},
        {"tags": [{"key": LOCAL_ID, "value": UNKNOWN}], "run_name": "r"},
    ),
}


@pytest.mark.parametrize(("value", "expected"), PLACES.values(), ids=PLACES)
def test_the_servers_ids_stand_where_local_ones_stood(sender: Sender, value: Any, expected: Any) -> None:
    before = json.dumps(value)
    assert sender.translate(value) == expected
    assert json.dumps(value) == before


NOT_CREATED = {
    "a run": ({"run_id": UNKNOWN}, UNKNOWN),
    "a logged model": (f"{API}/logged-models/m-{MODEL[:-1]}9", f"m-{MODEL[:-1]}9"),
    "a version": (f"models:/m/{UNKNOWN_VERSION}", UNKNOWN_VERSION),
    "an artifact's folder": (f"mlflow-artifacts:/{UNKNOWN}/model", UNKNOWN),
    "one of two": ({"run_id": RUN, "tags": [{"key": "k", "value": UNKNOWN}]}, UNKNOWN),
    "in another tag than its own": (
        {"tags": [{"key": LOCAL_ID, "value": f"{UNKNOWN[:-1]}9"}, {"key": "k", "value": UNKNOWN}]},
        UNKNOWN,
    ),
}


@pytest.mark.parametrize(("value", "named"), NOT_CREATED.values(), ids=NOT_CREATED)
def test_what_was_not_created_is_named(sender: Sender, value: Any, named: str) -> None:
    with pytest.raises(ServerError, match=f"NOT_CREATED: {named} could not be created") as raised:
        sender.translate(value)
    assert raised.value.permanent and not raised.value.denied


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"run {RUN}, run {UNKNOWN}", f"run {32 * 'a'}, run {UNKNOWN}"),
        (f"mlflow-artifacts:/{UNKNOWN}/x", f"mlflow-artifacts:/{UNKNOWN}/x"),
        (f"m-{MODEL} and {MODEL}", f"m-{32 * 'b'} and {MODEL}"),
        (f"{VERSION} {UNKNOWN_VERSION}", f"3 {UNKNOWN_VERSION}"),
        ("", ""),
    ],
)
def test_unknown_ids_stay_in_a_text(sender: Sender, text: str, expected: str) -> None:
    assert sender.translate_text(text) == expected


def test_messages_show_no_local_ids(sender: Sender) -> None:
    sender._write_aside(
        [json.dumps({"what": f"artifact of {UNKNOWN}", "error": f"{UNKNOWN_VERSION} is not there"}) + "\n"]
    )
    assert sender.describe_aside() == ["artifact of ? (? is not there)"]
    assert LOCAL.search(sender.aside()[0])
