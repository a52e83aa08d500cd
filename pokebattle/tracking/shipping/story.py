"""What a journal tells, event by event, and what of it belongs on the server."""

import contextlib
import functools
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pokebattle.tracking import trials
from pokebattle.tracking.git import code_diff, code_version, installed, is_committed, lock_digest
from pokebattle.tracking.ids import LOCAL, LOCAL_ID, local_ids
from pokebattle.tracking.journal import Progress, execution_folder, read_events, read_json, write_atomically
from pokebattle.tracking.secrets import Masker
from pokebattle.tracking.shipping.delivery import Batch, Call, Delivery, Experiment, File
from pokebattle.tracking.shipping.executed import ExecutedCell
from pokebattle.tracking.shipping.rest import LENGTH, LIMIT, file_chunks, pairs, storable, storable_key

NAMED_FITS = 10  # fits of one model class that get keys of their own; ``fits.json`` holds all
SCRIPT = "script"  # the executor of what `MLflowTracker` opens
UNSEEN = "# not written down: there was no space left"
NOW = 1000  # ms between a point's time and its event's in which mlflow's own clock gave it
LONGEST_WAIT = 120_000  # ms that a kernel may have waited for an answer before it writes a request down
COPIED_POINTS = 10_000  # metric points of the first attempt that its own run repeats


class Attempt:
    """One pass over the cells that fit or log parameters; running such a cell again begins the next one."""

    def __init__(self, number: int, run: str) -> None:
        self.number, self.run = number, run
        self.turns: dict[str, int] = {}  # cell -> its turn in this pass
        self.params: dict[str, str] = {}
        self.metrics: list[dict[str, Any]] = []
        self.fits: dict[str, int] = {}  # fits of each model class


class Story:
    """Reads one execution's journal and queues what the server should get.

    Reading it again from the beginning gives the same queue: that is how a delivery that was killed goes on.
    """

    def __init__(self, folder: Path, delivery: Delivery, masker: Masker) -> None:
        self.folder, self.delivery, self.masker = folder, delivery, masker
        self.start: dict[str, Any] = {}
        self.names: tuple[str, str] | None = None
        self.cells: list[ExecutedCell] = []
        self.manifests: list[dict[str, Any]] = []
        self.fits: list[dict[str, Any]] = []
        self.typed: dict[str, Any] = {}  # parameters with their types
        self.cut: dict[str, int] = {}  # values that are longer than MLflow keeps -> characters
        self.headline: dict[str, float] = {}  # figures that the notebook published
        self.mismatches: list[dict[str, Any]] = []
        self.shutdown: dict[str, Any] = {}
        self.driver_end: dict[str, Any] | None = None
        self.kernel_end: dict[str, Any] | None = None
        self.children: dict[str, str] = {}  # runs that cells opened -> status
        self.last_time = 0
        self.read_to = 0
        self._provisional: dict[str, Any] = {}
        self._known: dict[str, str] = {}  # parameters as they will be on the run
        self._attempt = Attempt(1, "")
        self._event_at = self._now = 0
        self._moments: dict[tuple[str, str], tuple[int, int, int]] = {}  # run, key -> step, time and time given last
        self._code: dict[str, Any] = {}

    @property
    def run(self) -> str:
        """The local id of the execution's run."""
        return str(self.start["run"])

    @property
    def is_script(self) -> bool:
        """Whether a script's block was executed, as one cell, and no notebook."""
        return bool(self.start.get("executor") == SCRIPT)

    def read(self) -> None:
        """Take in what the journal has gained, and deliver it; raises as `Delivery.flush` does."""
        delivery = self.delivery
        self._flush()
        for began, offset, event in read_events(self.folder, self.read_to):
            delivery.replaying = offset <= delivery.progress.offset
            if event["kind"] == "names":
                self._await_parent()
            self._event_at, self._now = began, event["time"]
            self.last_time = max(self.last_time, self._now)
            self.read_to = offset
            if handler := getattr(self, f"on_{event['kind']}", None):
                handler(event)
            if len(delivery.queue) > 1:
                self._flush()
        delivery.replaying = False
        self._flush()

    def _flush(self) -> None:
        """Deliver what is queued and remember how far the server is, once the run can be opened."""
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

    def on_start(self, event: dict[str, Any]) -> None:
        """Take in who executes what."""
        self.start = event
        self._attempt.run = self.delivery.own = self.run

    def on_names(self, event: dict[str, Any]) -> None:
        """From here on the run can be opened, and later cells do not override parameters any more."""
        names = (event["experiment"], LENGTH["experiment"]), (event["run_name"], LENGTH["run"])
        self.names = storable(*names[0]), storable(*names[1])
        start = self.start
        experiment = Experiment(self.names[0], start["experiment_token"], start["experiment_token"] + "-root")
        run = self._creation(self.run, start["root"], self.names[1], start["time"], self._opening_tags())
        experiment.vital = run.vital = True
        if not self.delivery.replaying:
            self.delivery.queue.extendleft([run, experiment])  # before what was said before the names were known
        self.on_params({"values": self._provisional})

    def _creation(self, token: str, root: str, name: str, time: int, tags: dict[str, str]) -> Call:
        told = {key: storable(value) for key, value in {**tags, LOCAL_ID: token}.items()}
        body = {"experiment_id": self.start["experiment_token"], "run_name": name, "start_time": time,
                "user_id": storable(self.start["user"], LENGTH["user"]), "tags": pairs(told)}  # fmt: skip
        return Call("POST", "runs/create", body, token, "run", root)

    def _opening_tags(self) -> dict[str, str]:
        """Return the tags that are known when the run begins."""
        start, notebook = self.start, self.start["notebook"]
        tags = {
            "mlflow.source.type": "LOCAL" if self.is_script else "NOTEBOOK",
            "mlflow.source.name": notebook or start["executor"],
            "mlflow.user": start["user"],
            "pokebattle.executor": start["executor"],
            "pokebattle.execution": start["execution"],
            **{f"pokebattle.{key}": str(start["kernel"][key]) for key in ("host", "boot", "pid", "started")},
        }
        if parent := start.get("parent_execution"):
            tags["pokebattle.parent_execution"] = parent
            if known := read_json(execution_folder(parent) / "run.json").get("run_id"):
                tags[trials.PARENT] = known
        code = self.code()
        if code.get("commit"):
            tags |= {"mlflow.source.git.commit": code["commit"], "pokebattle.git.dirty": str(code["dirty"]).lower()}
        if code.get("lock"):
            tags["pokebattle.lock"] = code["lock"]
        if code.get("python"):
            tags["pokebattle.python"] = code["python"]
        return tags

    def _await_parent(self) -> None:
        """Raise OSError while the notebook that executes this one waits for a run of its own."""
        if self.delivery.replaying or not (parent := self.start.get("parent_execution")):
            return
        folder = execution_folder(parent)
        waits = (folder / "journal.jsonl").is_file() and "run_id" not in read_json(folder / "run.json")
        if waits and not Progress(folder).facts.get("refused"):
            raise OSError("the run of the notebook that executes this one is not open yet")

    @functools.cached_property
    def document(self) -> dict[str, Any]:
        """Return the notebook as it was when the execution began, without outputs."""
        return read_json(self.folder / "notebook.json")

    def code(self) -> dict[str, Any]:
        """Return commit, dirty flag, patch, lock, Python and its packages as they were when the execution began."""
        file = self.folder / "code.json"
        if not self._code and not (known := read_json(file)):
            notebook = Path(self.start["notebook"]) if self.start["notebook"] else None
            place = notebook.parent if notebook else Path(self.start["cwd"])
            commit, dirty = code_version(place) or ("", False)
            patch = self.masker.text(code_diff(place)) if dirty else ""
            if commit and notebook and not is_committed(notebook):
                dirty, patch = True, f"# notebook that no commit holds: {notebook.name}\n{patch}"
            prefix = self.start.get("prefix")
            self._code = {"commit": commit, "dirty": dirty, "diff": patch, "lock": lock_digest(place),
                          "python": platform.python_version(),
                          "packages": installed(Path(prefix)) if prefix else []}  # fmt: skip
            with contextlib.suppress(OSError):  # a full disk
                write_atomically(file, json.dumps(self._code))
        elif not self._code:
            self._code = known
        return self._code

    # -- parameters, metrics, data ---------------------------------------------------------------

    def on_params(self, event: dict[str, Any]) -> None:
        """Queue parameters of the notebook or of its schema."""
        if event.get("provisional"):  # an injected cell may follow
            self._provisional.update(event["values"])
            return
        values = {name: self.masker.value(name, value) for name, value in event["values"].items()}
        self.typed |= values
        self._params({storable_key(name): storable(str(value)) for name, value in values.items()})

    def _params(self, values: dict[str, str]) -> None:
        """Queue parameters for the current attempt; MLflow's cannot change, so the run keeps the first value."""
        attempt, own = self._current_attempt(), {}
        self._note_cut("params", values)
        for key, value in values.items():
            text = value[: LIMIT["params"]]
            attempt.params.setdefault(key, text)
            if self._known.setdefault(key, text) == text:
                own[key] = text
        self._put(Batch(self.run, params=own))
        if attempt.number > 1:
            self._put(Batch(attempt.run, params={key: attempt.params[key] for key in values}))

    def _put(self, batch: Batch) -> None:
        self._note_cut("params", batch.params)
        self._note_cut("tags", batch.tags)
        if batch.metrics or batch.params or batch.tags:
            self.delivery.put(batch)

    def _note_cut(self, kind: str, values: dict[str, str]) -> None:
        """Note what this side or the server cuts, so that the run can say it."""
        self.cut |= {key: len(value) for key, value in values.items() if len(value) > LIMIT[kind]}

    def _current_attempt(self) -> Attempt:
        """Return the attempt that the running cell belongs to, beginning a new one when the cell is run again."""
        if not self.cells:
            return self._attempt
        turn, cell = len(self.cells) - 1, self.cells[-1]
        key = cell.id or cell.source
        if self._attempt.turns.setdefault(key, turn) != turn:
            first = self._attempt if self._attempt.number == 1 else None
            if first:
                run = self._open_attempt(1)
                self._put(Batch(run, first.metrics[:COPIED_POINTS], first.params))
                self.delivery.put(self._ended(run, "FINISHED"))
            else:
                self.delivery.put(self._ended(self._attempt.run, "FINISHED"))
            number = self._attempt.number + 1
            self._attempt = Attempt(number, self._open_attempt(number))
            self._attempt.turns[key] = turn
        return self._attempt

    def _open_attempt(self, number: int) -> str:
        """Queue a child run for an attempt and return its local id, the same whenever the journal is read."""
        name = f"attempt {number}"
        token, root = local_ids(f"{self.start['execution']} {name}")
        tags = {trials.PARENT: self.run, "mlflow.user": self.start["user"],
                "pokebattle.attempt": str(number)}  # fmt: skip
        self.delivery.put(self._creation(token, root, name, self.last_time, tags))
        self.children[token] = "RUNNING" if number > 1 else "FINISHED"
        return token

    def _ended(self, run: str, status: str) -> Call:
        self.children[run] = status
        return Call("POST", "runs/update", {"run_id": run, "status": status, "end_time": self.last_time})

    def _metrics(self, points: list[dict[str, Any]], of_fit: bool = False) -> None:
        """Queue metric points; those of a later attempt's fits are its own alone."""
        attempt = self._attempt
        if attempt.number > 1:
            self._put(Batch(attempt.run, self._in_turn(attempt.run, points)))
        if attempt.number == 1 or not of_fit:
            points = self._in_turn(self.run, points)
            self._put(Batch(self.run, list(points)))
        if attempt.number == 1 and len(attempt.metrics) < COPIED_POINTS:
            attempt.metrics += points

    def _in_turn(self, run: str, points: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return points of one request such that MLflow shows the last one that was logged of each key.

        Of points with one step and one millisecond it shows the greatest, and keeps equal ones once. Where each is
        sent and awaited no two have one millisecond; in a journal they do, and the later ones are put behind.
        Times that somebody else than the clock has given are left as they are.
        """
        return [self._after_the_last(run, point) if self._is_of_now(point) else point for point in points]

    def _is_of_now(self, point: dict[str, Any]) -> bool:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return abs(int(point["timestamp"]) - self._now) < NOW
        return False

    def _after_the_last(self, run: str, point: dict[str, Any]) -> dict[str, Any]:
        key, step, told = (run, point["key"]), int(point.get("step") or 0), int(point["timestamp"])
        last = self._moments.get(key)
        behind = last is not None and last[0] == step and last[1] <= told <= last[2]
        given = last[2] + 1 if last is not None and behind else told
        self._moments[key] = (step, told, given)
        return point if given == told else point | {"timestamp": given}

    def on_metrics(self, event: dict[str, Any]) -> None:
        """Queue metrics that a notebook publishes."""
        self.headline |= event["values"]
        points = [point(storable_key(name), float(value), event["time"]) for name, value in event["values"].items()]
        self._metrics(points)

    def on_dataset(self, event: dict[str, Any]) -> None:
        """Queue a part of a battle set as input of the run; of a part that judges also that it was opened, and when."""
        if "manifest" in event:
            self.manifests.append(event["manifest"])
        part = event["part"]
        dataset = {
            "name": event["name"] if part == "train" else f"{event['name']}-{part}",
            "digest": str(event["digest"])[:36],
            "source_type": "local",
            "source": json.dumps({"uri": f"pokebattle/data/battles/{event['name']}"}),
            "profile": json.dumps({"num_rows": event["rows"]}),
        }
        tags = [{"key": "mlflow.data.context", "value": "training" if part == "train" else part}]
        inputs = [{"dataset": dataset, "tags": tags}]
        self.delivery.put(Call("POST", "runs/log-inputs", {"run_id": self.run, "datasets": inputs}))
        if part != "train":
            moment = datetime.fromtimestamp(event["time"] / 1000, UTC).isoformat(timespec="seconds")
            opened = {"run_id": self.run, "key": f"pokebattle.opened.{part}", "value": moment}
            self.delivery.put(Call("POST", "runs/set-tag", opened))

    def on_fit(self, event: dict[str, Any]) -> None:
        """Queue parameters and curves of a fitted model."""
        attempt, model = self._current_attempt(), event["model"]
        self.fits.append({"attempt": attempt.number} | {key: value for key, value in event.items() if key != "kind"})
        ordinal = attempt.fits[model] = attempt.fits.get(model, 0) + 1
        if ordinal > NAMED_FITS:
            return
        prefix = model if ordinal == 1 else f"{model}_{ordinal}"
        values = {f"{prefix}.{name}": str(self.masker.value(name, v)) for name, v in event["params"].items()}
        self._params({storable_key(name): storable(value) for name, value in values.items()})
        points = [point(f"fit/{prefix}/seconds", event["seconds"], event["time"])]
        for name, values in event.get("history", {}).items():
            key = storable_key(f"fit/{prefix}/{name}")
            points += [point(key, v, event["time"], step) for step, v in enumerate(values)]
        self._metrics(points, of_fit=True)

    def on_tags(self, event: dict[str, Any]) -> None:
        """Queue tags, of the notebook's own run unless another one is named."""
        self._put(Batch(event.get("run") or self.run, tags=event["values"]))

    def on_trial(self, event: dict[str, Any]) -> None:
        """Queue the run of a trial, below the notebook's own run unless that of another notebook is named."""
        token, root = trials.ids(event["study"], event["number"])
        tags = trials.tags(event, event.get("parent") or self.run, self.start["user"])
        call = self._creation(token, root, event["name"], event["began"], tags)
        call.shared = True
        self.delivery.put(call)
        self._put(Batch(token, trials.points(event), event["params"], {trials.PARENT: tags[trials.PARENT]}))
        ended = {"run_id": token, "status": trials.STATUS[event["state"]], "end_time": event["ended"]}
        self.delivery.put(Call("POST", "runs/update", ended))

    # -- what cells told mlflow ------------------------------------------------------------------

    def on_call(self, event: dict[str, Any]) -> None:
        """Queue a request that mlflow wanted to send."""
        path, body, token = event["path"], event["body"], event.get("token", "")
        self._mask(body)
        name = path.removeprefix("/api/2.0/mlflow/runs/")
        run = body.get("run_id") or body.get("run_uuid") or ""
        if name in {"log-metric", "log-parameter", "set-tag", "log-batch"} and not token:
            self._log(run, name, body)
            return
        call = Call(event["method"], path, body, token, event.get("creates", ""), event.get("root", ""),
                    **_told_of_sending(event))  # fmt: skip
        if call.creates == "run":
            self.children[token] = "RUNNING"
        elif name == "update" and "status" in body:
            ids = self.delivery.progress.ids
            for local in [known for known in self.children if run in {known, ids.get(known)}]:
                self.children[local] = body["status"]
        self.delivery.put(call)

    def _mask(self, body: dict[str, Any]) -> None:
        """Mask values that look like secrets, in place."""
        for pair in [body, *body.get("params", []), *body.get("tags", [])]:
            if isinstance(pair, dict) and isinstance(pair.get("key"), str) and isinstance(pair.get("value"), str):
                pair["value"] = self.masker.value(pair["key"], pair["value"])

    def _log(self, run: str, name: str, body: dict[str, Any]) -> None:
        one = [{key: value for key, value in body.items() if key not in {"run_id", "run_uuid"}}]
        metrics = one if name == "log-metric" else body.get("metrics", [])
        params = one if name == "log-parameter" else body.get("params", [])
        tags = one if name == "set-tag" else body.get("tags", [])
        if self._is_own(run):
            clashes = {p["key"]: p["value"] for p in params if self._known.get(p["key"], p["value"]) != p["value"]}
            attempt = self._attempt.number
            self._params({p["key"]: p["value"] for p in params})
            if clashes and self._attempt.number == attempt == 1:  # a contradiction within the only attempt
                self._put(Batch(self.run, params=clashes))
            self._metrics(metrics)
            self.headline |= {metric["key"]: metric["value"] for metric in metrics}
        else:
            self._put(Batch(run, self._in_turn(run, metrics), {p["key"]: p["value"] for p in params}))
        self._put(Batch(run, tags={tag["key"]: tag.get("value", "") for tag in tags}))

    def _is_own(self, run: str) -> bool:
        return run in {self.run, self.delivery.progress.ids.get(self.run)}

    def on_artifact(self, event: dict[str, Any]) -> None:
        """Queue a file that mlflow wanted to upload."""
        root, _, path = event["path"].partition("/")
        file = self.folder / "files" / event["file"]
        if not LOCAL.fullmatch(root):
            root, path = event["path"].rpartition("/")[::2]
        self.delivery.put(File(root, path, file_chunks(file), file))

    # -- cells and endings -----------------------------------------------------------------------

    def on_cell_start(self, event: dict[str, Any]) -> None:
        """A cell runs."""
        if event["cell"]:
            self._cell(event, event["cell"] - 1)
        self.cells.append(ExecutedCell(event))

    def _cell(self, event: dict[str, Any], number: int) -> ExecutedCell:
        """Return a cell; of one whose begin found no space nothing but its place is known."""
        while len(self.cells) <= number:
            self.cells.append(ExecutedCell({"source": UNSEEN, "time": event["time"], "untracked": True}))
        return self.cells[number]

    def fill_in(self, dropped: dict[str, Any]) -> None:
        """Take in what the journal's tally knows of the last cell when the journal could not take it."""
        last = dropped.get("last") or {}
        if dropped.get("events") and last.get("cell") is not None:
            cell = self._cell({"time": self.last_time}, last["cell"])
            if cell.ended is None and last["ok"] is not None:
                cell.end({"execution_count": None, "time": self.last_time, "seconds": None, "ok": last["ok"],
                          "error": UNSEEN.removeprefix("# ")})  # fmt: skip

    def on_output(self, event: dict[str, Any]) -> None:
        """A cell shows something, which stays in the journal until the notebook is put together."""
        showing = [self._cell(event, event["cell"])]
        if event["output"] == "update_display_data":  # of an earlier cell's output too
            display_id = event["content"]["transient"]["display_id"]
            showing = [cell for cell in self.cells if display_id in cell.displays]
        for cell in showing:
            cell.note_output(self._event_at, event)

    def on_cell_end(self, event: dict[str, Any]) -> None:
        """A cell is done; its duration is a metric whose step is the cell's turn."""
        self._cell(event, event["cell"]).end(event)
        if not self.is_script:
            self._put(Batch(self.run, [point("cell/seconds", event["seconds"], event["time"], event["cell"])]))

    def on_mismatch(self, event: dict[str, Any]) -> None:
        """A test of the notebook found another output than the stored one."""
        self.mismatches.append(event)

    def on_shutdown(self, event: dict[str, Any]) -> None:
        """The kernel was asked to end."""
        self.shutdown = event

    def on_driver_end(self, event: dict[str, Any]) -> None:
        """The program that drove the notebook is done with it."""
        self.driver_end = event

    def on_kernel_end(self, event: dict[str, Any]) -> None:
        """The kernel has ended; who saw it first knows best."""
        self.kernel_end = self.kernel_end or event


def _told_of_sending(event: dict[str, Any]) -> dict[str, Any]:
    """Return since when a request may have been carried out; a kernel that sent it itself has waited for the answer."""
    if not event.get("doubtful"):
        return {"asked": event["time"]}
    begun = event.get("began")
    return {"doubtful": True, "asked": begun or event["time"] - LONGEST_WAIT, "exact": begun is not None,
            "known": [str(known) for known in event.get("known", [])]}  # fmt: skip


def point(key: str, value: float, timestamp: int, step: int = 0) -> dict[str, Any]:
    """Return a metric point as MLflow's API wants it; JSON has no infinities, MLflow takes their names."""
    plain = value if abs(value) != float("inf") and value == value else {"inf": "Infinity", "-inf": "-Infinity"}.get(
        str(value), "NaN"
    )  # fmt: skip
    return {"key": key, "value": plain, "timestamp": timestamp, "step": step}
