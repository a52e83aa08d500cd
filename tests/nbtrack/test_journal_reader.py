"""What a run's front shows after cells have run again: a journal goes in, what the server would get comes out."""

import json
from pathlib import Path
from typing import Any

import pytest

from nbtrack.local_ids import local_ids
from nbtrack.secrets import Masker
from nbtrack.sender.journal_reader import HANDLERS, JournalReader
from nbtrack.sender.run_status import verdict
from nbtrack.sender.sender import Batch, Call, Sender
from nbtrack.tags import DESCRIPTION

RUN = "10ca1" + 27 * "0"
START = {
    "kind": "start",
    "time": 0,
    "execution": "one",
    "run": RUN,
    "root": RUN,
    "experiment_token": RUN,
    "notebook": "",
    "cwd": "/",
    "user": "somebody",
    "prefix": None,
    "kernel": {"host": "h", "boot": "b", "pid": 1, "started": 1},
}


class Replay:
    """Passes events to a reader one by one and keeps what the server would have in the end."""

    def __init__(self, folder: Path, executor: str = "jupyterlab", sources: tuple[str, ...] = ()) -> None:
        cells = [{"cell_type": "code", "id": f"s{n}", "source": source} for n, source in enumerate(sources)]
        (folder / "notebook.json").write_text(json.dumps({"cells": cells}))
        self.reader = JournalReader(folder, Sender(folder, "http://127.0.0.1:9"), Masker({}))
        self.clock = self.turn = 0
        self.params: dict[str, dict[str, str]] = {}
        self.metrics: dict[str, dict[str, float]] = {}
        self.tags: dict[str, str] = {}
        self.refused: list[str] = []
        self.names: dict[str, str] = {RUN: "own"}
        self.record(**START | {"executor": executor})
        self.record("names", experiment="e", run_name="r")

    def record(self, kind: str, **fields: Any) -> "Replay":
        """Pass one event; it names the cell that it comes from, the last one that began."""
        self.clock += 1
        event = {"kind": kind, "time": self.clock, **fields}
        self.reader.last_time = self.clock
        self.reader._event_cell = event.get("cell")
        HANDLERS[kind](self.reader, event)
        return self

    def cell(self, name: str, *events: tuple[str, dict[str, Any]], ok: bool = True) -> "Replay":
        """Run a cell that emits events."""
        self.record("cell_start", cell=self.turn, cell_id=name, source=name)
        for kind, fields in events:
            self.record(kind, **fields)
        self.record(
            "cell_end",
            cell=self.turn,
            seconds=0.0,
            ok=ok,
            execution_count=self.turn + 1,
            error=None if ok else "ValueError",
        )
        self.turn += 1
        return self

    def arrive(self, settled: bool = True) -> "Replay":
        """Let what is queued arrive at a server that keeps the first value of a parameter, as MLflow does."""
        self.reader._describe()
        if settled:
            self.reader.flush_deferred()
        for item in self.reader.delivery.queue:
            if isinstance(item, Call) and item.creates == "run":
                self.names.setdefault(item.token, item.body["run_name"])
            if not isinstance(item, Batch):
                continue
            name = self.names[item.run]
            kept = self.params.setdefault(name, {})
            for key, value in item.params.items():
                if kept.setdefault(key, value) != value:
                    self.refused.append(key)
            self.metrics.setdefault(name, {}).update({p["key"]: p["value"] for p in item.metrics})
            self.tags |= item.tags if name == "own" else {}
        self.reader.delivery.queue.clear()
        self.metrics = {
            name: {key: value for key, value in points.items() if key != "cell/seconds"}
            for name, points in self.metrics.items()
        }
        return self


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    """A session in JupyterLab whose cells emit the events of a test."""
    return Replay(tmp_path)


def params(**values: Any) -> tuple[str, dict[str, Any]]:
    return "params", {"values": values}


def metrics(**values: float) -> tuple[str, dict[str, Any]]:
    return "metrics", {"values": values}


def fit(model: str = "xgboost", rounds: int = 2, **given: Any) -> tuple[str, dict[str, Any]]:
    history = {"loss": [1 / (given.get("max_depth", 1) + n) for n in range(rounds)]}
    return "fit", {"model": model, "params": given, "shape": [4, 2], "seconds": 0.5, "history": history}


def log(**body: Any) -> tuple[str, dict[str, Any]]:
    path = "/api/2.0/mlflow/runs/log-batch"
    return "call", {"method": "POST", "path": path, "body": {"run_id": RUN, **body}}


def logged(**given: Any) -> tuple[str, dict[str, Any]]:
    return log(params=[{"key": key, "value": str(value)} for key, value in given.items()])


def all_cells(replay: Replay, depth: int, loss: float) -> None:
    replay.cell("params", params(version="v3", max_depth=depth))
    replay.cell("data")
    replay.cell("fit", fit(max_depth=depth, rounds=10 - depth))
    replay.cell("judge", metrics(log_loss=loss))


def test_all_cells_again_show_the_parameters_and_metrics_of_the_last_time(replay: Replay) -> None:
    all_cells(replay, 6, 0.6)
    all_cells(replay, 3, 0.3)
    replay.arrive()
    assert replay.params["own"] == {"version": "v3", "max_depth": "3", "xgboost.max_depth": "3"}
    assert replay.params["attempt 1"] == {"version": "v3", "max_depth": "6", "xgboost.max_depth": "6"}
    assert replay.params["attempt 2"] == replay.params["own"]
    assert (replay.metrics["own"]["log_loss"], replay.metrics["attempt 1"]["log_loss"]) == (0.3, 0.6)
    assert replay.metrics["own"] == replay.metrics["attempt 2"]
    assert replay.reader.given_params == {"version": "v3", "max_depth": 3} and replay.reader.headline == {
        "log_loss": 0.3
    }
    assert replay.refused == []


def test_fewer_rounds_than_before_leave_no_curve_of_before(replay: Replay) -> None:
    replay.cell("fit", fit(max_depth=6, rounds=50)).cell("fit", fit(max_depth=3, rounds=5))
    replay.reader.flush_deferred()
    points = [
        point
        for item in replay.reader.delivery.queue
        if isinstance(item, Batch) and item.run == RUN
        for point in item.metrics
        if point["key"] == "fit/xgboost/loss"
    ]
    assert [point["step"] for point in points] == list(range(5))


ONCE = {"version": "v3", "xgboost.max_depth": "6", "Logistic.C": "6", "log_loss": 0.6}


@pytest.mark.parametrize(
    ("again", "shown"),
    [
        ("fit", {"version": "v3", "xgboost.max_depth": "3"}),
        ("data fit", {"version": "v3", "xgboost.max_depth": "3"}),
        ("fit judge", {"version": "v3", "xgboost.max_depth": "3", "log_loss": 0.3}),
        ("base", {"version": "v3", "xgboost.max_depth": "6", "Logistic.C": "3"}),
        ("judge", ONCE | {"log_loss": 0.3}),
        ("params data", ONCE),
    ],
)
def test_what_ran_below_a_cell_that_fits_again_is_no_longer_on_the_front(
    replay: Replay, again: str, shown: dict[str, Any]
) -> None:
    def run(name: str, depth: int) -> None:
        recorded = {
            "params": [params(version="v3")],
            "data": [],
            "fit": [fit(max_depth=depth)],
            "base": [fit("Logistic", C=depth)],
            "judge": [metrics(log_loss=depth / 10)],
        }
        replay.cell(name, *recorded[name])

    for name in ("params", "data", "fit", "base", "judge"):
        run(name, 6)
    for name in again.split():
        run(name, 3)
    replay.arrive()
    published = {key: value for key, value in replay.metrics["own"].items() if not key.startswith("fit/")}
    assert replay.params["own"] | published == shown
    assert ("attempt 1" in replay.params) == ("fit" in again or "base" in again)


def test_an_inserted_cell_is_placed_below_the_one_that_ran_before_it(replay: Replay) -> None:
    replay.cell("data").cell("fit", fit(max_depth=6)).cell("judge", metrics(loss=6))
    replay.cell("data").cell("new", params(seed=7)).cell("fit", fit(max_depth=3)).arrive()
    assert replay.params["own"] == {"seed": "7", "xgboost.max_depth": "3"}
    assert "loss" not in replay.metrics["own"]


def test_parameters_given_again_begin_no_attempt(replay: Replay) -> None:
    replay.cell("params", params(depth=6)).cell("params", params(depth=6)).cell("params", params(depth=6, more=1))
    assert replay.arrive().params == {"own": {"depth": "6", "more": "1"}}


def test_a_cell_that_reads_parameters_and_fits_keeps_them_in_the_next_attempt(replay: Replay) -> None:
    replay.cell("all", params(depth=6), fit(max_depth=6)).cell("all", params(depth=6), fit(max_depth=6, eta=1)).arrive()
    assert replay.params["own"] == {"depth": "6", "xgboost.max_depth": "6", "xgboost.eta": "1"}


def test_a_fit_that_failed_the_first_time_is_no_second_attempt(replay: Replay) -> None:
    replay.cell("fit", params(depth=6), ok=False).cell("fit", params(depth=6), fit(max_depth=6)).arrive()
    assert list(replay.params) == ["own"]


def test_before_the_end_the_front_has_no_parameter_that_could_change_and_the_page_shows_them(replay: Replay) -> None:
    all_cells(replay, 6, 0.6)
    replay.arrive(settled=False)
    assert replay.params["own"] == {} and "log_loss" not in replay.metrics["own"]
    assert "max_depth `6`" in replay.tags[DESCRIPTION] and "| [3] | xgboost |" in replay.tags[DESCRIPTION]
    all_cells(replay, 3, 0.3)
    replay.arrive(settled=False)
    assert "max_depth `3`" in replay.tags[DESCRIPTION] and "max_depth `6`" not in replay.tags[DESCRIPTION]
    assert replay.params["attempt 2"]["max_depth"] == "3" and replay.metrics["attempt 2"]["log_loss"] == 0.3


def test_what_a_cell_logs_itself_is_there_at_once_and_nothing_automatic_replaces_it(replay: Replay) -> None:
    replay.cell("params", params(max_depth=6, version="v3")).cell("own", logged(max_depth=8))
    replay.cell("fit", fit(max_depth=3)).arrive(settled=False)
    assert replay.params["own"] == {"max_depth": "8"}
    replay.arrive()
    assert replay.params["own"] == {"max_depth": "8", "version": "v3", "xgboost.max_depth": "3"}
    assert replay.refused == []


def test_what_a_cell_logs_itself_is_on_the_attempt_too(replay: Replay) -> None:
    by_cell = log(
        metrics=[{"key": "auc", "value": 0.9, "timestamp": 1, "step": 0}], params=[{"key": "by", "value": "me"}]
    )
    replay.cell("fit", fit(max_depth=6)).cell("own", by_cell).cell("fit", fit(max_depth=3)).cell(
        "own", by_cell
    ).arrive()
    for name in ("attempt 1", "attempt 2"):
        assert (replay.params[name]["by"], replay.metrics[name]["auc"]) == ("me", 0.9)


@pytest.mark.parametrize(("sources", "at_once"), [(("fit()",), True), (("import mlflow", "fit()"), False)])
def test_in_one_go_parameters_are_there_at_once_unless_a_cell_could_log_another_value(
    tmp_path: Path, sources: tuple[str, ...], at_once: bool
) -> None:
    replay = Replay(tmp_path, "papermill", sources)
    replay.record("params", values={"version": "v3"})
    replay.cell("", params(depth=6)).cell("", fit(max_depth=6)).arrive(settled=False)
    assert bool(replay.params["own"]) == at_once and "fit/xgboost/loss" in replay.metrics["own"]
    replay.arrive()
    assert replay.params["own"] == {"version": "v3", "depth": "6", "xgboost.max_depth": "6"}


def test_cells_of_equal_text_that_run_in_one_go_are_no_attempts(tmp_path: Path) -> None:
    replay = Replay(tmp_path, "papermill", ("fit", "fit"))
    replay.cell("", fit(max_depth=6)).cell("", fit(max_depth=6)).arrive()
    assert list(replay.params) == ["own"] and "xgboost_2.max_depth" in replay.params["own"]


def test_the_page_shows_all_fits_where_they_differ(tmp_path: Path) -> None:
    replay = Replay(tmp_path, "papermill")
    replay.cell("", fit(max_depth=6, eta=0.1)).cell("", *(fit(max_depth=3 + n, eta=0.1) for n in range(11)))
    page = replay.reader.description()
    assert "| cell | fit | data | seconds | max_depth | loss |" in page
    assert sum(line.startswith("| [") for line in page.splitlines()) == 12
    same = Replay(tmp_path, "papermill").cell("", fit(max_depth=6)).cell("", fit(max_depth=6))
    assert same.reader.description() == ""


def test_a_cell_that_failed_is_on_the_page_until_it_succeeds(replay: Replay) -> None:
    replay.cell("a", ok=False).cell("b").arrive(settled=False)
    assert replay.tags[DESCRIPTION] == "**Cell [1] failed:** `ValueError`"
    replay.cell("a").arrive(settled=False)
    assert replay.tags[DESCRIPTION] == ""


@pytest.mark.parametrize(
    ("ended", "line"),
    [
        (("KILLED", None, "Ctrl-C"), "**KILLED:** `Ctrl-C`"),
        (("FINISHED", None, ""), ""),
        (("FAILED", None, "ParameterError: unknown\nnearest is ..."), "**FAILED:** `ParameterError: unknown`"),
    ],
)
def test_the_page_says_why_a_run_ended_where_no_cell_failed(replay: Replay, ended: Any, line: str) -> None:
    assert replay.reader.description(*ended) == line


def test_the_page_says_what_differed_where_the_cell_shows_no_error(replay: Replay) -> None:
    replay.cell("a")
    page = replay.reader.description("FAILED", replay.reader.cells[0], "the output differs")
    assert page == "**Cell [1] failed:** `the output differs`"


def test_a_description_of_the_cells_own_is_left_alone(replay: Replay) -> None:
    replay.cell("own", log(tags=[{"key": DESCRIPTION, "value": "mine"}])).cell("fit", fit(max_depth=6)).cell(
        "b", ok=False
    )
    assert replay.arrive().tags[DESCRIPTION] == "mine"
    assert replay.reader.description().startswith("mine\n\n**Cell [3] failed:**")


def test_the_page_says_what_the_notebook_said_of_the_last_attempt(replay: Replay) -> None:
    def says(text: str) -> tuple[str, dict[str, Any]]:
        return "tags", {"values": {DESCRIPTION: text}}

    replay.cell("fit", fit(max_depth=6)).cell("judge", says("six")).cell("fit", fit(max_depth=3)).arrive(settled=False)
    assert "six" not in replay.tags[DESCRIPTION]
    replay.cell("judge", says("three")).arrive(settled=False)
    assert replay.tags[DESCRIPTION].startswith("three")


def test_attempts_are_the_same_runs_whenever_the_journal_is_read(replay: Replay) -> None:
    replay.cell("fit", fit(max_depth=6)).cell("fit", fit(max_depth=3)).arrive()
    assert {local_ids(f"one attempt {n}")[0] for n in (1, 2)} == set(replay.names) - {RUN}
    assert replay.reader.children[local_ids("one attempt 1")[0]] == "FINISHED"


@pytest.mark.parametrize(
    ("cells", "failed"),
    [
        ([("a", True), ("b", False), ("c", True)], "b"),
        ([("b", False), ("b", True), ("c", True)], None),
        ([("a", False), ("b", False), ("a", True), ("c", True)], "b"),
        ([("a", True), ("b", False)], "b"),
    ],
)
def test_a_cell_that_failed_last_is_named_although_others_succeeded_after_it(
    replay: Replay, cells: list[tuple[str, bool]], failed: str | None
) -> None:
    for name, ok in cells:
        replay.cell(name, ok=ok)
    ending = verdict(replay.reader)
    assert (ending.failed.source if ending.failed else None) == failed
    assert ending.status == ("FINISHED" if cells[-1][1] else "FAILED")


def test_an_error_that_is_meant_and_an_orderly_exit_are_no_failures(replay: Replay) -> None:
    leaves = {"ename": "SystemExit", "evalue": "0", "traceback": []}
    replay.record("cell_start", cell=0, cell_id="a", source="a", may_fail=True)
    replay.record("cell_end", cell=0, seconds=0.0, ok=False, execution_count=1, error="ValueError")
    replay.record("cell_start", cell=1, cell_id="b", source="exit(0)")
    replay.record("output", cell=1, output="error", content=leaves)
    replay.record("cell_end", cell=1, seconds=0.0, ok=False, execution_count=2, error="SystemExit")
    assert replay.reader.failures() == [] and replay.reader.description() == ""
