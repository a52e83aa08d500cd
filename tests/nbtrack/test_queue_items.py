"""What is delivered: which batches become one, how a batch is divided, and which ids an answer gives."""

from typing import Any

import pytest

from nbtrack.mlflow_rest import BATCH
from nbtrack.sender.queue_items import (
    Batch,
    Call,
    Experiment,
    File,
    Item,
    Removal,
    carries_id,
    id_of,
    ids_of,
    registers,
)
from nbtrack.tags import LOCAL_ID


def point(key: str = "loss", step: int = 0) -> dict[str, Any]:
    return {"key": key, "value": 1.0, "timestamp": 5, "step": step}


FULL = BATCH["metrics"]
TAKES = {
    "points": (Batch("r", [point()]), Batch("r", [point()]), True),
    "nothing": (Batch("r"), Batch("r"), True),
    "another run's": (Batch("r"), Batch("s"), False),
    "a full batch": (Batch("r", [point()] * FULL), Batch("r", [point()]), False),
    "a full batch, no points": (Batch("r", [point()] * FULL), Batch("r", tags={"t": "x"}), False),
    "an almost full batch": (Batch("r", [point()] * (FULL - 1)), Batch("r", [point()] * FULL), True),
    "another parameter": (Batch("r", params={"a": "1"}), Batch("r", params={"b": "1"}), True),
    "the same value": (Batch("r", params={"a": "1"}), Batch("r", params={"a": "1"}), True),
    "another value": (Batch("r", params={"a": "1"}), Batch("r", params={"b": "1", "a": "2"}), False),
    "another value of a tag": (Batch("r", tags={"a": "1"}), Batch("r", tags={"a": "2"}), True),
    "a parameter of a tag's name": (Batch("r", tags={"a": "1"}), Batch("r", params={"a": "2"}), True),
}


@pytest.mark.parametrize(("batch", "other", "expected"), TAKES.values(), ids=TAKES)
def test_which_batches_become_one(batch: Batch, other: Batch, expected: bool) -> None:
    assert batch.takes(other) is expected


HALVES: dict[str, tuple[Batch, list[Batch]]] = {
    "nothing": (Batch("r"), []),
    "one point": (Batch("r", [point()]), []),
    "one parameter": (Batch("r", params={"a": "1"}), []),
    "one tag": (Batch("r", tags={"a": "1"}), []),
    "two metrics": (Batch("r", [point("a"), point("b")]), [Batch("r", [point("a")]), Batch("r", [point("b")])]),
    "metrics in turn": (
        Batch("r", [point("a", 0), point("b", 0), point("a", 1), point("b", 1)]),
        [Batch("r", [point("a", 0), point("a", 1)]), Batch("r", [point("b", 0), point("b", 1)])],
    ),
    "points of one metric: the first alone": (
        Batch("r", [point(step=step) for step in range(3)]),
        [Batch("r", [point(step=0)]), Batch("r", [point(step=1), point(step=2)])],
    ),
    "a parameter and a tag of one name": (
        Batch("r", params={"a": "1"}, tags={"a": "2"}),
        [Batch("r", params={"a": "1"}), Batch("r", tags={"a": "2"})],
    ),
    "three of three kinds": (
        Batch("r", [point()], {"a": "1"}, {"b": "2"}),
        [Batch("r", [point()]), Batch("r", params={"a": "1"}, tags={"b": "2"})],
    ),
}


@pytest.mark.parametrize(("batch", "halves"), HALVES.values(), ids=HALVES)
def test_how_a_batch_is_divided(batch: Batch, halves: list[Batch]) -> None:
    assert batch.halves() == halves


NAMES: dict[str, tuple[Item, str]] = {
    "a batch": (Batch("r", [point("b"), point("b")], {"c": "1"}, {"a": "2"}), "a, b, c of run r"),
    "a long batch": (Batch("r", params={"a" * 250: "1"}), f"{'a' * 200} of run r"),
    "a request": (Call("POST", "runs/delete", {"run_id": "r"}), 'POST runs/delete {"run_id": "r"}'),
    "an experiment": (Experiment("e", "t", "root"), "experiment e"),
    "a removal": (Removal("r"), "removal of run r"),
    "a file": (File("root", "a/b.txt", lambda: []), "artifact a/b.txt"),
}


@pytest.mark.parametrize(("item", "name"), NAMES.values(), ids=NAMES)
def test_how_an_item_is_called(item: Item, name: str) -> None:
    assert str(item) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/2.0/mlflow/runs/create", "runs/create"),
        ("/api/3.0/mlflow/logged-models/m-1", "logged-models/m-1"),
        ("runs/create", "runs/create"),
        ("/api/2.0/mlflow-artifacts/artifacts/a", "/api/2.0/mlflow-artifacts/artifacts/a"),
    ],
)
def test_a_request_is_named_below_the_api(path: str, name: str) -> None:
    assert Call("GET", path, {}).name == name


API = "/api/2.0/mlflow"
REGISTRY: dict[str, tuple[Item, bool]] = {
    "a model": (Call("POST", f"{API}/registered-models/create", {}), True),
    "a version": (Call("POST", f"{API}/model-versions/create", {}), True),
    "a run": (Call("POST", f"{API}/runs/create", {}), False),
    "a logged model": (Call("POST", f"{API}/logged-models/m-1/tags", {}), False),
    "a batch": (Batch("/registered-models/"), False),
    "a file": (File("root", "/model-versions/x", lambda: []), False),
}


@pytest.mark.parametrize(("item", "expected"), REGISTRY.values(), ids=REGISTRY)
def test_what_belongs_to_the_registry(item: Item, expected: bool) -> None:
    assert registers(item) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"tags": [{"key": "a", "value": "b"}, {"key": LOCAL_ID, "value": "t"}]}, True),
        ({"tags": [{"key": LOCAL_ID, "value": "other"}]}, False),
        ({"tags": []}, False),
        ({}, False),
    ],
)
def test_what_can_be_found_by_its_local_id(body: dict[str, Any], expected: bool) -> None:
    assert carries_id(Call("POST", "runs/create", {}, "t", "run"), body) is expected


RUN = {"run": {"info": {"run_id": "1", "artifact_uri": "mlflow-artifacts:/1"}}}
MODEL = {"model": {"info": {"model_id": "m-2", "artifact_uri": "mlflow-artifacts:/2"}}}
VERSION = {"model_version": {"name": "battle", "version": 3}}
EXPERIMENT = {"experiment": {"experiment_id": "4", "artifact_location": "mlflow-artifacts:/4"}}


def creates(what: str) -> Call:
    return Call("POST", "create", {"name": "battle"}, "t", what, "root")


@pytest.mark.parametrize(
    ("what", "answer", "ids"),
    [
        ("run", RUN, {"t": "1", "root": "mlflow-artifacts:/1"}),
        ("model", MODEL, {"m-t": "m-2", "root": "mlflow-artifacts:/2"}),
        ("version", VERSION, {"t": "3"}),
        ("experiment", EXPERIMENT, {"t": "4", "root": "mlflow-artifacts:/4"}),
        ("experiment", {"experiment": {"experiment_id": "4"}}, {"t": "4", "root": ""}),
        ("registered", {"registered_model": {"name": "battle"}}, {}),
        ("", RUN, {}),
    ],
)
def test_which_ids_an_answer_gives(what: str, answer: dict[str, Any], ids: dict[str, str]) -> None:
    assert ids_of(creates(what), answer) == ids


@pytest.mark.parametrize(
    ("what", "answer", "expected"),
    [
        ("run", RUN, "1"),
        ("run", MODEL, ""),
        ("model", MODEL, "m-2"),
        ("model", RUN, ""),
        ("version", VERSION, "3"),
        ("version", {"model_version": {"name": "another", "version": 3}}, ""),
        ("version", RUN, ""),
        ("version", {}, ""),
        ("run", {}, ""),
    ],
)
def test_the_id_of_what_a_request_has_created(what: str, answer: dict[str, Any], expected: str) -> None:
    assert id_of(creates(what), answer) == expected
