"""Which writes cannot fail, and what a notebook's text says of its experiment: plain tables, no server."""

from typing import Any

import pytest

from nbtrack.cells import chosen_experiment
from nbtrack.kernel.nonblocking_writes import KnownRuns, Write

METRIC = {"run_id": "r", "key": "loss", "value": 0.5, "timestamp": 1, "step": 0}


def known(**params: str) -> KnownRuns:
    """Runs of which one, ``r``, is active and has these parameters, and another, ``other``, is only active."""
    runs = KnownRuns()
    runs.learn("r", params)
    runs.learn("other")
    return runs


@pytest.mark.parametrize("value", [0.5, 3, "NaN", "Infinity", "-Infinity"])
def test_a_metric_of_a_known_run_is_certain(value: Any) -> None:
    assert known().try_apply(Write("runs/log-metric", METRIC | {"value": value}))


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "unknown"},
        {"key": "a@b"},
        {"key": "k" * 251},
        {"key": ""},
        {"key": "../up"},
        {"key": "a//b"},
        {"value": True},
        {"value": "1.0"},
        {"value": None},
        {"step": 1 << 63},
        {"timestamp": "now"},
        {"timestamp": -1},
        {"model_id": "m-1"},
    ],
    ids=str,
)
def test_a_metric_that_the_server_may_refuse_is_not(change: dict[str, Any]) -> None:
    assert not known().try_apply(Write("runs/log-metric", METRIC | change))


@pytest.mark.parametrize(
    ("value", "certain"), [("v", True), ("v" * 9000, True), ("\0", False), ("\ud800", False), ("v" * 200_000, False)]
)
def test_a_tag_is_certain_unless_a_database_may_refuse_it(value: str, certain: bool) -> None:
    assert known().try_apply(Write("runs/set-tag", {"run_id": "r", "key": "k", "value": value})) is certain


def test_a_parameter_is_certain_until_it_contradicts() -> None:
    runs, parameter = known(there="1"), {"run_id": "r", "key": "p", "value": "1"}
    assert runs.try_apply(Write("runs/log-parameter", parameter)) and runs.try_apply(
        Write("runs/log-parameter", parameter)
    )
    assert not runs.try_apply(Write("runs/log-parameter", parameter | {"value": "2"}))
    assert not runs.try_apply(Write("runs/log-parameter", parameter | {"key": "there", "value": "2"}))
    assert not runs.try_apply(Write("runs/log-parameter", parameter | {"run_id": "other"}))


def test_a_batch_is_certain_as_a_whole_or_not_at_all() -> None:
    runs = known()
    pairs = [{"key": f"p{n}", "value": "1"} for n in range(100)]
    assert runs.try_apply(Write("runs/log-batch", {"run_id": "r", "metrics": [METRIC] * 900, "params": pairs}))
    assert not runs.try_apply(Write("runs/log-batch", {"run_id": "r", "metrics": [METRIC] * 901, "params": pairs}))
    assert not runs.try_apply(
        Write("runs/log-batch", {"run_id": "r", "params": [*pairs, {"key": "one", "value": "1"}]})
    )
    assert not runs.try_apply(Write("runs/log-batch", {"run_id": "r", "params": [pairs[0], pairs[0] | {"value": "2"}]}))


@pytest.mark.parametrize("name", ["runs/delete", "experiments/delete"])
def test_nothing_is_certain_of_a_run_that_was_deleted(name: str) -> None:
    runs = known()
    runs.sent(Write(name, {"run_id": "r"}))
    assert not runs.try_apply(Write("runs/log-metric", METRIC))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["import mlflow", "mlflow.set_experiment('a')"], "a"),
        (["exp = mlflow.set_experiment(experiment_name='a')"], "a"),
        (["NAME = 'a'", "%time\nmlflow.set_experiment(NAME)"], "a"),
        (["mlflow.set_experiment(version)"], "v3"),
        (["mlflow.set_experiment('a' + 'b')"], None),
        (["mlflow.log_metric('m', 1)", "mlflow.set_experiment('a')"], None),
        (["mlflow.create_external_model('m')\nmlflow.set_experiment('a')"], None),
        (["mlflow.sklearn.autolog()\nmlflow.set_experiment('a')"], "a"),
        (["mlflow.sklearn.log_model(model)\nmlflow.set_experiment('a')"], None),
        (["mlflow.autolog()\nmlflow.set_experiment('a')"], "a"),
        (["client = mlflow.MlflowClient()\nmlflow.set_experiment('a')"], "a"),
        (["client.get_experiment_by_name('a')\nmlflow.set_experiment('a')"], None),
        (["mlflow.get_experiment_by_name('a') or mlflow.create_experiment('a')\nmlflow.set_experiment('a')"], None),
        (["mlflow.set_experiment(experiment_id=mlflow.create_experiment('a'))\nmlflow.set_experiment('a')"], None),
        (["mlflow.search_experiments()\nmlflow.set_experiment('a')"], None),
        (["mlflow.set_tags({'t': 1})\nmlflow.set_experiment('a')"], None),
        (["mlflow.search_runs()\nmlflow.set_experiment('a')"], None),
        (["mlflow.set_tracking_uri('sqlite:///x.db')\nmlflow.set_experiment('a')"], None),
        (["# mlflow.set_experiment('a')", "other.set_experiment('a')"], None),
        (["def broken(:"], None),
    ],
)
def test_the_experiment_that_a_notebook_names_is_read_from_its_text(cells: list[str], expected: str | None) -> None:
    document = {"cells": [{"cell_type": "code", "source": source} for source in cells]}
    assert chosen_experiment(document, {"version": "v3"}) == expected
