"""Reads a journal event by event, and decides what of it is sent to the server."""

import contextlib
import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from nbtrack import events, tags, trials
from nbtrack.cells import NO_TRACK, Places, cell_source
from nbtrack.executions import execution_folder
from nbtrack.files import NOT_FINITE, read_json
from nbtrack.journal import NOT_ENDED, Progress, read_events
from nbtrack.local_ids import LOCAL, local_ids
from nbtrack.mlflow_rest import LENGTH, LIMIT, dataset_input, file_chunks, pairs, storable, storable_key
from nbtrack.notebook_context import INTERACTIVE
from nbtrack.secrets import Masker
from nbtrack.sender.cell_results import NO_CELL, Attempts, CellResults
from nbtrack.sender.description import page
from nbtrack.sender.executed_notebook import ExecutedCell
from nbtrack.sender.queue_items import Batch, Call, Experiment, File, Removal
from nbtrack.sender.run_provenance import Provenance
from nbtrack.sender.sender import Sender

NAMED_FITS = 10  # fits per model class that get keys of their own; ``fits.json`` has all
SCRIPT = "script"  # the executor of what `MLflowTracker` opens
UNSEEN = "# not recorded: there was no space left"
COPIED_POINTS = 10_000  # metric points of a cell that are kept for the run of an attempt
NOW = 1000  # ms: a point whose time is this close to its event's got it from mlflow's clock
LONGEST_WAIT = 120_000  # ms that a kernel may have waited for an answer before it records a request


class JournalReader:
    """Reads one execution's journal and queues what the server should receive.

    Reading it again from the beginning gives the same queue: this is how an interrupted delivery continues.

    Parameters
    ----------
    folder : Path
        The execution's folder.
    delivery : Sender
        Receives the queued items.
    masker : Masker
        Masks secrets.
    """

    def __init__(self, folder: Path, delivery: Sender, masker: Masker) -> None:
        self.folder, self.delivery, self.masker = folder, delivery, masker
        self.start: dict[str, Any] = {}
        self.names: tuple[str, str] | None = None
        self.cells: list[ExecutedCell] = []
        self.manifests: list[dict[str, Any]] = []
        self.fits: list[dict[str, Any]] = []
        self.cut: dict[str, int] = {}  # values longer than MLflow's limit -> characters
        self.mismatches: list[events.Mismatch] = []
        self.shutdown: Mapping[str, Any] = {}
        self.driver_end: Mapping[str, Any] | None = None
        self.kernel_end: Mapping[str, Any] | None = None
        self.children: dict[str, str] = {}  # runs that cells opened -> status
        self.ended_as = ""  # status with which a cell has ended the execution's own run
        self.last_time = 0
        self.read_to = 0
        self._provisional: dict[str, Any] = {}
        self.attempts = Attempts()
        self._attempt_run = ""  # run of the current attempt, from the second on
        self._on_attempt: dict[str, str] = {}  # that run's parameters
        self._on_run: dict[str, str] = {}  # parameters of the execution's run
        self._own_text: str | None = None  # the description that a cell has set itself
        self._failures: dict[str | int, ExecutedCell] = {}  # cells whose last execution failed
        self._dirty = False
        self._page_sent = ""
        self._page_stale = False
        self._event_at = self._now = 0
        self._moments: dict[tuple[str, str], tuple[int, int, int]] = {}  # run, key -> last step, its time, time sent
        self._event_cell: int | None = None
        self._moved_to: Mapping[str, Any] | None = next(
            (e for _, _, e in read_events(folder) if e["kind"] == "experiment"), None
        )
        self._begin_again = False

    @property
    def run(self) -> str:
        """The local id of the execution's run."""
        return str(self.start["run"])

    @property
    def is_script(self) -> bool:
        """Whether a script's block was executed, as one cell, instead of a notebook."""
        return bool(self.start.get("executor") == SCRIPT)

    @property
    def by_hand(self) -> bool:
        """Whether the executor is interactive: cells may run in any order and repeatedly."""
        return self.start.get("executor") in INTERACTIVE

    @functools.cached_property
    def keeps_params(self) -> bool:
        """Whether parameters are written only when the run ends, as MLflow's parameters cannot be changed.

        In interactive executors, the run shows the parameters of the last attempt; and a cell's own `log_param` takes
        precedence over parameters that are recorded automatically. In a notebook that runs once, from top to bottom,
        and does not name mlflow, parameters cannot change.
        """
        sources = [cell_source(cell) for cell in self._places.cells if cell.get("cell_type") == "code"]
        return self.by_hand or any("mlflow" in source.lower() or source == NO_TRACK for source in sources)

    @property
    def given_params(self) -> dict[str, Any]:
        """The valid parameters, with their types."""
        return self.attempts.typed()

    @property
    def headline(self) -> dict[str, float]:
        """The valid metrics that cells or the project's own code logged."""
        return self.attempts.metrics()

    def read(self) -> None:
        """Read the events that were added to the journal, and deliver them.

        Raises
        ------
        OSError, ServerError, ServerRefusesError
            As `Sender.flush`; OSError also while the run of the notebook that executes this one is not created yet.
        """
        delivery = self.delivery
        self._flush()
        for began, offset, event in read_events(self.folder, self.read_to):
            delivery.replaying = offset <= delivery.progress.offset
            delivery.moving = offset <= delivery.progress.facts.get("moved", 0)
            if event["kind"] == "names":
                self._await_parent()
            self._event_at, self._now = began, event["time"]
            self.last_time = max(self.last_time, self._now)
            self.read_to, self._event_cell = offset, event.get("cell")
            if handler := HANDLERS.get(event["kind"]):  # an unknown event is one of a later release
                handler(self, event)
            if self._begin_again:
                break
            if len(delivery.queue) > 1:
                self._flush()
        delivery.replaying = delivery.moving = False
        if self._begin_again:
            delivery.queue.clear()
            self.__dict__.pop("_places", None)
            self.__init__(self.folder, delivery, self.masker)  # type: ignore[misc]
            self.read()
            return
        self._describe()
        self._flush()

    def _flush(self) -> None:
        """Deliver what is queued and record how far the server is, once the run can be created."""
        delivery = self.delivery
        if self.names is None:
            return
        delivery.flush()
        if not delivery.queue and self.read_to > delivery.progress.offset:
            delivery.progress.note(offset=self.read_to)
        for file in delivery.spent:
            file.unlink(missing_ok=True)
        delivery.spent.clear()

    # -- the run ---------------------------------------------------------------------------------

    def on_start(self, event: events.Start) -> None:
        """Store the first event: which program executes which notebook.

        Parameters
        ----------
        event : Start
        """
        self.start = dict(event)
        self.delivery.own_run, self.delivery.own_root = self.run, event["root"]

    def on_names(self, event: events.Names) -> None:
        """Queue the creation of the run; from here on, later cells do not override parameters.

        Parameters
        ----------
        event : Names
        """
        start = self.start
        name = self._moved_to["name"] if self._moved_to else storable(event["experiment"], LENGTH["experiment"])
        self.names = (name, storable(event["run_name"], LENGTH["run"]))
        given = "" if self._moved_to else start.get("experiment_id", "")
        experiment = Experiment(name, start["experiment_token"], start["experiment_token"] + "-root", given)
        run = self._creation(self.run, start["root"], self.names[1], start["time"], self._opening_tags())
        experiment.vital = run.vital = True
        if not self.delivery.replaying:
            left = self.delivery.progress.facts.get("left")
            removal = [Removal(left)] if left else []
            self.delivery.queue.extendleft([*removal, run, experiment])  # before items that were queued earlier
        self._note_params(self._provisional)

    def _creation(self, token: str, root: str, name: str, time: int, tagged: dict[str, str]) -> Call:
        values = {key: storable(value) for key, value in {**tagged, tags.LOCAL_ID: token}.items()}
        body = {
            "experiment_id": self.start["experiment_token"],
            "run_name": name,
            "start_time": time,
            "user_id": storable(self.start["user"], LENGTH["user"]),
            "tags": pairs(values),
        }
        return Call("POST", "runs/create", body, token, "run", root)

    def _opening_tags(self) -> dict[str, str]:
        """Return the tags that are known when the run begins; MLflow shows them in this order."""
        start = self.start
        values = {
            tags.SOURCE_TYPE: "LOCAL" if self.is_script else "NOTEBOOK",
            tags.SOURCE_NAME: start["notebook"] or start.get("stem") or start["executor"],
            tags.USER: start["user"],
            tags.EXECUTOR: start["executor"],
        }
        if parent := start.get("parent_execution"):
            values[tags.PARENT_EXECUTION] = parent
            if known := read_json(execution_folder(parent) / "run.json").get("run_id"):
                values[tags.PARENT_RUN] = known
        code = self.provenance.at_start
        if code.get("commit"):
            values |= {tags.COMMIT: code["commit"], tags.DIRTY: str(code["dirty"]).lower()}
            self._dirty = bool(code["dirty"])
        if code.get("lock"):
            values[tags.LOCK] = code["lock"]
        if code.get("python"):
            values[tags.PYTHON] = code["python"]
        kernel = {key: str(start["kernel"][key]) for key in ("host", "boot", "pid", "started")}
        return values | {tags.HOST: kernel["host"], tags.EXECUTION: start["execution"], tags.KERNEL: json.dumps(kernel)}

    def _await_parent(self) -> None:
        """Raise OSError while the notebook that executes this one has no run yet."""
        if self.delivery.replaying or not (parent := self.start.get("parent_execution")):
            return
        folder = execution_folder(parent)
        waits = (folder / "journal.jsonl").is_file() and "run_id" not in read_json(folder / "run.json")
        if waits and not Progress(folder).facts.get("refused"):
            raise OSError("the run of the notebook that executes this one is not open yet")

    @functools.cached_property
    def document(self) -> dict[str, Any]:
        """The notebook as it was when the execution began, without outputs."""
        return read_json(self.folder / "notebook.json")

    @functools.cached_property
    def provenance(self) -> Provenance:
        """Which code was executed."""
        return Provenance(self.folder, self.start, self.masker)

    def _notice_edit(self, cell: ExecutedCell) -> None:
        """Set the dirty flag at once if the commit does not contain the cell that runs."""
        if self.by_hand and not self._dirty and not cell.beside and not self.provenance.contains(cell.source):
            self._dirty = True
            self._put(Batch(self.run, tags={tags.DIRTY: "true"}))

    def failures(self) -> list[ExecutedCell]:
        """Return the cells whose last execution failed, in the order in which they ran."""
        return sorted(self._failures.values(), key=lambda cell: cell.started)

    @property
    def described(self) -> str:
        """The run's description that was sent last."""
        return self._page_sent

    def description(self, ended: str = "", failed: ExecutedCell | None = None, why: str = "") -> str:
        """Return the run's final description.

        Parameters
        ----------
        ended : str
            The run's status.
        failed : ExecutedCell or None
            The cell that made the run fail.
        why : str
            The cause, for a failed cell that shows no error and for a run that ended without a failed cell.
        """
        lines = [
            self._failure(cell, why if cell is failed else "")
            for cell in dict.fromkeys([*([failed] if failed else []), *self.failures()])
        ]
        if why and not failed and ended != "FINISHED":
            lines.insert(0, f"**{ended}:** {self._quoted(why)}")
        text = self.attempts.text() if self._own_text is None else self._own_text
        return storable(page(text, lines, self.numbered_fits(), {}), LIMIT["tags"])

    def _describe(self) -> None:
        """Queue the description of the running notebook, unless a cell has written it itself."""
        if self._own_text is not None or not self._page_stale or not self.cells:
            return
        self._page_stale = False
        held = {}
        if self.keeps_params:
            held = {key: value for key, value in self.attempts.params().items() if key not in self._on_run}
        fits = self.numbered_fits() if self.by_hand else []  # otherwise the run already has their values
        lines = [self._failure(cell) for cell in self.failures()]
        now = storable(page(self.attempts.text(), lines, fits, held), LIMIT["tags"])
        if now != self._page_sent:
            self._page_sent = now
            self.delivery.put(Batch(self.run, tags={tags.DESCRIPTION: now}))

    def numbered_fits(self) -> list[dict[str, Any]]:
        """Return all fits, each with its cell's number."""
        return [{**fit, "cell": None if fit["cell"] is None else self.cells[fit["cell"]].count} for fit in self.fits]

    def _failure(self, cell: ExecutedCell, why: str = "") -> str:
        """Return a line that names a failed cell; a script's block has no number."""
        error = cell.error or {}
        error_text = (
            ": ".join(filter(None, [error.get("ename"), str(error.get("evalue") or "")])) or why or "no error shown"
        )
        where = "The script" if self.is_script else f"Cell [{' ' if cell.count is None else cell.count}]"
        return f"**{where} failed:** {self._quoted(error_text)}"

    def _quoted(self, text: str) -> str:
        first = next(iter(text.splitlines()), "")
        return f"`{self.masker.text(first)[:300].replace('`', chr(39))}`"

    # -- parameters, metrics, data ---------------------------------------------------------------

    def on_files_used(self, event: events.FilesUsed) -> None:
        """Pass on which files of a kind the execution uses.

        Parameters
        ----------
        event : FilesUsed
        """
        self.provenance.use(event["pattern"], event["used"])

    def on_params(self, event: events.Params) -> None:
        """Store parameters of the notebook or of its schema, and queue them.

        Parameters
        ----------
        event : Params
        """
        if event.get("provisional"):  # an injected cell may follow
            self._provisional.update(event["values"])
        else:
            self._note_params(event["values"])

    def _note_params(self, given: dict[str, Any]) -> None:
        if given:
            values = {name: self.masker.value(name, value) for name, value in given.items()}
            self._current_results(values).typed |= values
            self._params({name: str(value) for name, value in values.items()})

    def _params(self, values: dict[str, str]) -> None:
        """Queue parameters that were recorded automatically, unless they are kept until the end."""
        self._note_cut("params", values)
        if self.cells and not self.keeps_params:  # it reads notebook.json, which exists from the first cell on
            self._params_of_run(values)
        self._params_of_attempt(values)
        self._page_stale = True

    def _params_of_run(self, values: dict[str, str]) -> None:
        """Queue parameters that the run does not have yet: it keeps the first value."""
        fresh = {key: value for key, value in _storable_params(values).items() if key not in self._on_run}
        self._on_run |= fresh
        self._put(Batch(self.run, params=fresh))

    def _params_of_attempt(self, values: dict[str, str]) -> None:
        if self._attempt_run:
            fresh = {key: value for key, value in _storable_params(values).items() if key not in self._on_attempt}
            self._on_attempt |= fresh
            self._put(Batch(self._attempt_run, params=fresh))

    def flush_deferred(self, present: Iterable[str] = ()) -> None:
        """Queue what was kept until the end, from the last attempt, so that the run's values belong to the same fits.

        Parameters
        ----------
        present : iterable of str
            Parameters that the run already has, because a cell has logged them; they are not queued.
        """
        self._on_run = dict.fromkeys(present, "") | self._on_run
        self._params_of_run(self.attempts.params())
        if self.by_hand:
            self._put(Batch(self.run, self.attempts.points()))

    def _put(self, batch: Batch) -> None:
        self._note_cut("params", batch.params)
        self._note_cut("tags", batch.tags)
        batch.metrics = self._in_turn(batch.run, batch.metrics)
        if batch.metrics or batch.params or batch.tags:
            self.delivery.put(batch)

    def _note_cut(self, kind: str, values: dict[str, str]) -> None:
        """Record which values are cut to MLflow's limits, so that the run can name them."""
        self.cut |= {key: len(value) for key, value in values.items() if len(value) > LIMIT[kind]}

    def _current_results(self, typed: dict[str, Any] | None = None) -> CellResults:
        """Return the object for a cell's results, in a new attempt if the cell had results before."""
        turn = self._turn()
        self.attempts.go_to(NO_CELL if turn is None else self.cells[turn].key)
        if self.attempts.begins(typed):
            self._begin_attempt()
        return self.attempts.current_results(typed)

    def _begin_attempt(self) -> None:
        """End the run of the current attempt and open the next attempt's.

        The first attempt gets a run of its own only now, when there is a second attempt.
        """
        attempts = self.attempts
        previous, number = self._attempt_run, attempts.number
        if not previous:
            previous = self._open_attempt(number)
        self.delivery.put(self._ended(previous, "FINISHED"))
        for turn in attempts.begin():
            self.cells[turn].left_to = number
        self._open_attempt(attempts.number)
        self.provenance.recheck(attempts.number)

    def _turn(self) -> int | None:
        """Return the turn of the cell that the current event names, else of the notebook's last executed cell."""
        if self._event_cell is not None and self._event_cell < len(self.cells):
            return self._event_cell
        return next((turn for turn in range(len(self.cells) - 1, -1, -1) if not self.cells[turn].beside), None)

    def _open_attempt(self, number: int) -> str:
        """Queue a child run with an attempt's valid results; return its local id, the same at every reading."""
        name = f"attempt {number}"
        token, root = self.attempt_ids(number)
        tagged = {tags.PARENT_RUN: self.run, tags.USER: self.start["user"], tags.ATTEMPT: str(number)}
        began = self.start["time"] if number == 1 else self.last_time
        self.delivery.put(self._creation(token, root, name, began, tagged))
        self.children[token] = "RUNNING"
        self._attempt_run, self._on_attempt = token, {}
        logged, points = self.attempts.logged_results()
        self._params_of_attempt(logged)
        self._params_of_attempt(self.attempts.params())
        self._put(Batch(token, self.attempts.points() + points))
        return token

    def attempt_ids(self, number: int) -> tuple[str, str]:
        """Return the local ids of an attempt's run and of its artifact folder.

        Parameters
        ----------
        number : int
            The attempt, from 1.
        """
        return local_ids(f"{self.start['execution']} attempt {number}")

    def _ended(self, run: str, status: str) -> Call:
        self.children[run] = status
        return Call("POST", "runs/update", {"run_id": run, "status": status, "end_time": self.last_time})

    def _metrics(self, results: CellResults, points: list[dict[str, Any]]) -> None:
        """Queue metric points that no cell logged itself; in interactive executors, they are kept until the end."""
        if self.by_hand:
            results.points += points[: max(0, COPIED_POINTS - len(results.points))]
        else:
            self._put(Batch(self.run, points))
        if self._attempt_run:
            self._put(Batch(self._attempt_run, list(points)))

    def _in_turn(self, run: str, points: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the points of one request such that MLflow shows the point of each key that was logged last.

        Of points with the same step and millisecond, MLflow shows the greatest, and stores equal points once. When each
        point is sent and awaited, no two have the same millisecond; in a journal they may, so later points get later
        timestamps. Timestamps that were not taken from the clock are not changed.
        """
        return [self._after_the_last(run, point) if self._is_of_now(point) else point for point in points]

    def _is_of_now(self, point: dict[str, Any]) -> bool:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return abs(int(point["timestamp"]) - self._now) < NOW
        return False

    def _after_the_last(self, run: str, point: dict[str, Any]) -> dict[str, Any]:
        key, step, time = (run, point["key"]), int(point.get("step") or 0), int(point["timestamp"])
        last = self._moments.get(key)
        behind = last is not None and last[0] == step and last[1] <= time <= last[2]
        sent = last[2] + 1 if last is not None and behind else time
        self._moments[key] = (step, time, sent)
        return point if sent == time else point | {"timestamp": sent}

    def on_metrics(self, event: events.Metrics) -> None:
        """Store metrics that the project's own code logs, and queue them.

        Parameters
        ----------
        event : Metrics
        """
        results = self._current_results()
        results.metrics |= event["values"]
        linked = {"model_id": event["model"]} if "model" in event else {}
        points = [point(name, float(value), event["time"]) | linked for name, value in event["values"].items()]
        self._metrics(results, points)

    def on_dataset(self, event: events.Dataset) -> None:
        """Queue a part of a data set as the run's input; for a part that is held out, also when it was opened.

        Parameters
        ----------
        event : Dataset
        """
        if "manifest" in event:
            self.manifests.append(event["manifest"])
        part, source = event["part"], event.get("source", event["name"])
        given = dataset_input(event["name"], str(event["digest"]), source, part, event["rows"])
        self.delivery.put(Call("POST", "runs/log-inputs", {"run_id": self.run, "datasets": [given]}))
        if part != "train":
            moment = datetime.fromtimestamp(event["time"] / 1000, UTC).isoformat(timespec="seconds")
            opened = {"run_id": self.run, "key": f"{tags.OPENED}{part}", "value": moment}
            self.delivery.put(Call("POST", "runs/set-tag", opened))

    def on_fit(self, event: events.Fit) -> None:
        """Store parameters and curves of a fitted model, and queue them.

        Parameters
        ----------
        event : Fit
        """
        results, model = self._current_results(), event["model"]
        ordinal = self.attempts.fitted(model) + 1
        results.models[model] += 1
        name = (model if ordinal == 1 else f"{model}_{ordinal}") if ordinal <= NAMED_FITS else ""
        params = {key: self.masker.value(key, value) for key, value in event["params"].items()}
        fit = {"attempt": self.attempts.number, **event, "name": name, "cell": self._turn(), "params": params}
        del fit["kind"]
        self.fits.append(fit)
        results.fits.append(fit)
        self._page_stale = True
        if not name:
            return
        self._params({f"{name}.{key}": str(value) for key, value in params.items()})
        points = [point(f"fit/{name}/seconds", event["seconds"], event["time"])]
        for curve, values in event.get("history", {}).items():
            points += [point(f"fit/{name}/{curve}", v, event["time"], step) for step, v in enumerate(values)]
        self._metrics(results, points)

    def on_tags(self, event: events.Tags) -> None:
        """Queue tags for the named run, else for the notebook's own; its description is composed later.

        Parameters
        ----------
        event : Tags
        """
        values = dict(event["values"])
        if not event.get("run") and tags.DESCRIPTION in values:
            self._current_results().text = values.pop(tags.DESCRIPTION)
            self._page_stale = True
        self._put(Batch(event.get("run") or self.run, tags=values))

    def on_trial(self, event: events.Trial) -> None:
        """Queue the run of a trial as a child of the named run, else of the notebook's own.

        Parameters
        ----------
        event : Trial
        """
        token, root = trials.ids(event["study"], event["number"])
        tagged = trials.tags(event, event.get("parent") or self.run, self.start["user"])
        call = self._creation(token, root, event["name"], event["began"], tagged)
        call.shared = True
        self.delivery.put(call)
        self._put(Batch(token, trials.points(event), event["params"], {tags.PARENT_RUN: tagged[tags.PARENT_RUN]}))
        ended = {"run_id": token, "status": trials.STATUS[event["state"]], "end_time": event["ended"]}
        self.delivery.put(Call("POST", "runs/update", ended))

    # -- mlflow's requests in cells ----------------------------------------------------------------

    def on_call(self, event: events.Call) -> None:
        """Queue a request that mlflow made in a cell.

        Parameters
        ----------
        event : Call
        """
        path, body, token = event["path"], self.masker.request(event["body"]), event.get("token", "")
        name = path.removeprefix("/api/2.0/mlflow/runs/")
        run = body.get("run_id") or body.get("run_uuid") or ""
        if name in {"log-metric", "log-parameter", "set-tag", "log-batch"} and not token:
            self._log(run, name, body)
            return
        call = Call(
            event["method"],
            path,
            body,
            token,
            event.get("creates", ""),
            event.get("root", ""),
            **_sending_fields(event),
        )
        self.delivery.put(call)

    def on_run_status(self, event: events.RunStatus) -> None:
        """Record that a cell has started, resumed or ended a run.

        Parameters
        ----------
        event : RunStatus
        """
        if self.delivery.owns(event["run"]):
            self.ended_as = "" if event["status"] in {"RUNNING", NOT_ENDED} else event["status"]
        else:
            self.children[event["run"]] = event["status"]

    def on_experiment(self, event: events.Experiment) -> None:
        """Start again in the experiment that a cell has chosen before it logged anything.

        Parameters
        ----------
        event : Experiment
        """
        if self._moved_to is None:
            self._moved_to = event
            opened = self.delivery.progress.facts.get("run")
            left = opened and opened["run_id"]
            moved = self.delivery.progress.offset
            self.delivery.progress.note(offset=0, run=None, left=left, answers={self.run: {}}, moved=moved)
            self._begin_again = True

    def _log(self, run: str, name: str, body: dict[str, Any]) -> None:
        one = [{key: value for key, value in body.items() if key not in {"run_id", "run_uuid"}}]
        metrics = one if name == "log-metric" else body.get("metrics", [])
        named = one if name == "log-parameter" else body.get("params", [])
        params = {pair["key"]: pair["value"] for pair in named}
        named = one if name == "set-tag" else body.get("tags", [])
        tagged = {pair["key"]: pair.get("value", "") for pair in named}
        self._put(Batch(run, metrics, params))
        self._put(Batch(run, tags=tagged))
        if self.delivery.owns(run):
            self._take_own(metrics, params, tagged)

    def _take_own(self, metrics: list[dict[str, Any]], params: dict[str, str], tagged: dict[str, str]) -> None:
        """Store what cells have logged to the execution's run: automatic records must not replace it."""
        self._on_run = params | self._on_run
        self._own_text = tagged.get(tags.DESCRIPTION, self._own_text)
        if not (metrics or params):
            return
        results = self._current_results()
        results.logged_params = params | results.logged_params
        results.metrics |= {metric["key"]: metric["value"] for metric in metrics}
        self._params_of_attempt(params)
        if self.by_hand:
            results.logged_points += metrics[: max(0, COPIED_POINTS - len(results.logged_points))]
        if self._attempt_run:
            self._put(Batch(self._attempt_run, list(metrics)))

    def on_artifact(self, event: events.Artifact) -> None:
        """Queue a file that mlflow uploaded in a cell.

        Parameters
        ----------
        event : Artifact
        """
        root, _, path = event["path"].partition("/")
        file = self.folder / "files" / event["file"]
        if not LOCAL.fullmatch(root):
            root, path = event["path"].rpartition("/")[::2]
        self.delivery.put(File(root, path, file_chunks(file), file))

    # -- cells and endings -----------------------------------------------------------------------

    def on_cell_start(self, event: events.CellStart) -> None:
        """Record that a cell runs.

        Parameters
        ----------
        event : CellStart
        """
        if event["cell"]:
            self._cell(event["time"], event["cell"] - 1)
        cell = ExecutedCell(event)
        place = self._places.find(cell.id, cell.source)
        cell.key = place if place is not None else cell.id or f"turn {len(self.cells)}"
        if place is not None and self.start["executor"] == "nbval":
            cell.count = self._places.rank(place)  # pytest's number, as the kernel does not count under nbval
        self.cells.append(cell)
        self.attempts.run_cell(cell.key, event["cell"])
        if len(self.cells) == 1 and not self.keeps_params:  # parameters that were recorded before it
            self._params_of_run(self.attempts.params())
        self._notice_edit(cell)

    @functools.cached_property
    def _places(self) -> Places:
        return Places(read_json(self.folder / "notebook.json"))

    def _cell(self, time: int, number: int) -> ExecutedCell:
        """Return an executed cell; if its start could not be written, only its position is known."""
        while len(self.cells) <= number:
            cell = ExecutedCell({"source": UNSEEN, "time": time, "untracked": True})
            cell.key = f"turn {len(self.cells)}"
            self.cells.append(cell)
        return self.cells[number]

    def fill_in(self, dropped: dict[str, Any]) -> None:
        """Complete the last cell from the journal's count of dropped events.

        Parameters
        ----------
        dropped : dict
            From ``dropped.json``.
        """
        last = dropped.get("last") or {}
        if dropped.get("events") and last.get("cell") is not None:
            cell = self._cell(self.last_time, last["cell"])
            if cell.ended is None and last["ok"] is not None:
                error = UNSEEN.removeprefix("# ")
                ended = {
                    "time": self.last_time,
                    "seconds": None,
                    "ok": last["ok"],
                    "execution_count": None,
                    "error": error,
                }
                cell.end(cast(events.CellEnd, ended))

    def on_output(self, event: events.Output) -> None:
        """Record an output's position; it stays in the journal until the notebook is reconstructed.

        Parameters
        ----------
        event : Output
        """
        showing = [self._cell(event["time"], event["cell"])]
        if event["output"] == "update_display_data":  # may update an earlier cell's output
            display_id = event["content"]["transient"]["display_id"]
            showing = [cell for cell in self.cells if display_id in cell.displays]
        for cell in showing:
            cell.note_output(self._event_at, event)

    def on_cell_end(self, event: events.CellEnd) -> None:
        """Record how a cell ended; its duration is a metric with the cell's number as step.

        Parameters
        ----------
        event : CellEnd
        """
        cell, counted = self._cell(event["time"], event["cell"]), self.start["executor"] != "nbval"
        cell.end(event if counted else {**event, "execution_count": None})
        self._page_stale |= cell.failed or cell.key in self._failures
        self._failures.pop(cell.key, None)
        if cell.failed and not cell.beside:
            self._failures[cell.key] = cell
        if not self.is_script:
            step = event["cell"] if cell.count is None else cell.count
            self._put(Batch(self.run, [point("cell/seconds", event["seconds"], event["time"], step)]))

    def on_cell_count(self, event: events.CellCount) -> None:
        """Replace the cell's announced number by the one that the front end shows.

        Parameters
        ----------
        event : CellCount
        """
        self._cell(event["time"], event["cell"]).count = event["execution_count"]

    def on_mismatch(self, event: events.Mismatch) -> None:
        """Record that a test of the notebook found an output that differs from the stored one.

        Parameters
        ----------
        event : Mismatch
        """
        self.mismatches.append(event)

    def on_shutdown(self, event: events.Shutdown) -> None:
        """Record that the kernel was asked to end.

        Parameters
        ----------
        event : Shutdown
        """
        self.shutdown = event

    def on_moved(self, event: events.Moved) -> None:
        """Record that the notebook was renamed or moved.

        Parameters
        ----------
        event : Moved
        """
        self.start |= {"notebook": event["notebook"], "stem": event["stem"]}
        self._put(Batch(self.run, tags={tags.SOURCE_NAME: event["notebook"]}))

    def on_driver_end(self, event: events.DriverEnd) -> None:
        """Record that the program that executes the notebook has finished with it.

        Parameters
        ----------
        event : DriverEnd
        """
        self.driver_end = event

    def on_kernel_end(self, event: events.KernelEnd) -> None:
        """Record the kernel's end; the first report counts.

        Parameters
        ----------
        event : KernelEnd
        """
        self.kernel_end = self.kernel_end or event


HANDLERS: dict[str, Callable[[JournalReader, Any], None]] = {
    "start": JournalReader.on_start,
    "names": JournalReader.on_names,
    "files_used": JournalReader.on_files_used,
    "params": JournalReader.on_params,
    "metrics": JournalReader.on_metrics,
    "dataset": JournalReader.on_dataset,
    "fit": JournalReader.on_fit,
    "tags": JournalReader.on_tags,
    "trial": JournalReader.on_trial,
    "call": JournalReader.on_call,
    "run_status": JournalReader.on_run_status,
    "experiment": JournalReader.on_experiment,
    "artifact": JournalReader.on_artifact,
    "cell_start": JournalReader.on_cell_start,
    "output": JournalReader.on_output,
    "cell_end": JournalReader.on_cell_end,
    "cell_count": JournalReader.on_cell_count,
    "mismatch": JournalReader.on_mismatch,
    "shutdown": JournalReader.on_shutdown,
    "moved": JournalReader.on_moved,
    "driver_end": JournalReader.on_driver_end,
    "kernel_end": JournalReader.on_kernel_end,
}


def _sending_fields(event: events.Call) -> dict[str, Any]:
    """Return the fields of a `Call` that show when, and whether, the kernel may have sent it itself."""
    if not event.get("doubtful"):
        return {"asked": event["time"]}
    begun = event.get("began")
    return {
        "doubtful": True,
        "asked": begun or event["time"] - LONGEST_WAIT,
        "exact": begun is not None,
        "known": [str(known) for known in event.get("known", [])],
    }


def point(key: str, value: float, timestamp: int, step: int = 0) -> dict[str, Any]:
    """Return a metric point for MLflow's API, in which numbers that are not finite are strings.

    Parameters
    ----------
    key : str
    value : float
    timestamp : int
        In ms since the epoch.
    step : int
    """
    shown = value if math.isfinite(value) else NOT_FINITE[str(float(value))]
    return {"key": storable_key(key), "value": shown, "timestamp": timestamp, "step": step}


def _storable_params(values: dict[str, str]) -> dict[str, str]:
    return {storable_key(key): storable(value, LIMIT["params"]) for key, value in values.items()}
