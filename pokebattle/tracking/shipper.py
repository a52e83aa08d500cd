"""The process beside a kernel that turns its journal into a run.

It opens the run as soon as the server answers, ships what the journal gains, and closes the run when the kernel
has ended, however it ended. It is started with ``python -I -S``: standard library only.
"""

import json
import os
import re
import select
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pokebattle.tracking.executed import ExecutedCell, executed_notebook, figures
from pokebattle.tracking.git import code_version
from pokebattle.tracking.journal import read_events, read_json, write_atomically
from pokebattle.tracking.notice import say
from pokebattle.tracking.rest import MlflowRest, ServerError
from pokebattle.tracking.settings import server_is_starting

RETRY = 1.0  # seconds between two attempts to reach the server
PATIENCE = 5.0  # seconds of attempts after the kernel has ended
STARTING_PATIENCE = 180.0  # the same while the local server is coming up
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # the colours of a traceback
INTERACTIVE = {"jupyterlab", "kernel"}
NAMED_FITS = 10  # fits of one model class that get keys of their own; ``fits.json`` holds all


def main() -> None:
    """Ship the journal in ``argv[1]`` until the kernel ``argv[3]`` ends, heard on the pipe ``argv[2]``."""
    os.umask(0o077)
    Shipper(Path(sys.argv[1]), kernel_pid=int(sys.argv[3])).serve(listen=int(sys.argv[2]))


class Shipper:
    """Ships one execution."""

    def __init__(self, folder: Path, kernel_pid: int) -> None:
        self.folder, self.kernel_pid = folder, kernel_pid
        self.start: dict[str, Any] = {}
        self.names: tuple[str, str] | None = None
        self.rest: MlflowRest | None = None
        self.run: dict[str, Any] = {}
        self.cells: list[ExecutedCell] = []
        self.manifests: list[dict[str, Any]] = []
        self.fits: list[dict[str, Any]] = []
        self.ended = False
        self.last_time = 0
        self._offset = 0
        self._provisional: dict[str, Any] = {}
        self._known: dict[str, str] = {}  # parameters as they will be on the run
        self._metrics: list[dict[str, Any]] = []  # what has not been shipped yet
        self._params: dict[str, str] = {}
        self._inputs: list[dict[str, Any]] = []
        self._next_try = 0.0
        self._away_said = False

    # -- the loop --------------------------------------------------------------------------------

    def serve(self, listen: int) -> None:
        """Ship until the kernel has ended, then close the run."""
        while not self.ended and os.getppid() == self.kernel_pid:
            ready, _, _ = select.select([listen], [], [], RETRY)
            if ready and not os.read(listen, 65536):
                break
            self.read()
            self.try_to_ship()
        self.read()
        if not self.cells:
            return
        if self.names is None:
            self.on_names(self.start)
        self.close()

    def read(self) -> None:
        """Take in what the journal has gained."""
        for offset, event in read_events(self.folder, self._offset):
            self._offset, self.last_time = offset, event["time"]
            getattr(self, f"on_{event['kind']}")(event)

    def try_to_ship(self) -> bool:
        """Ship what is waiting; tell whether the server took it. A server that is away is asked again later."""
        if self.names is None or time.monotonic() < self._next_try:
            return False
        try:
            self.ship()
            return True
        except (OSError, ServerError) as error:
            self._next_try = time.monotonic() + RETRY
            self.say_away(error)
            return False

    def ship(self) -> None:
        """Send what is waiting, opening the run first if there is none.

        Raises
        ------
        OSError, ServerError
            The server does not answer, or refuses.
        """
        rest = self.open()
        run_id = self.run["run_id"]
        if self._metrics or self._params:
            rest.log_batch(run_id, metrics=self._metrics, params=self._params)
            self._metrics, self._params = [], {}
        if self._inputs:
            rest.call("POST", "runs/log-inputs", run_id=run_id, datasets=self._inputs)
            self._inputs = []

    def open(self) -> MlflowRest:
        """Return the client, once the run exists."""
        if self.rest is None:
            self.rest = MlflowRest(self.start["uri"])
        if not self.run:
            assert self.names is not None
            experiment, name = self.names
            info = self.rest.create_run(self.rest.experiment(experiment), name, self.start["time"], self.opening_tags())
            self.run = {key: info[key] for key in ("run_id", "experiment_id", "artifact_uri")}
            self.record()
        return self.rest

    def record(self, **more: Any) -> None:
        """Write down for the kernel, and for whoever looks, what became of the run."""
        write_atomically(self.folder / "run.json", json.dumps({"uri": self.start["uri"], **self.run, **more}))

    def say_away(self, error: Exception) -> None:
        """Say once that the server is away, unless it is about to come up."""
        if self._away_said or server_is_starting(self.start["uri"]):
            return
        self._away_said = True
        if not self.run:
            self.record(away=str(error))
        say(
            f"no MLflow server answers at {self.start['uri']} ({error}); the notebook goes on, its record is kept in "
            f"{self.folder} (`make server` starts a server)"
        )

    def opening_tags(self) -> dict[str, str]:
        """Return the tags that are known when the run begins."""
        start, notebook = self.start, self.start["notebook"]
        tags = {
            "mlflow.source.type": "NOTEBOOK",
            "mlflow.source.name": notebook or start["executor"],
            "mlflow.user": start["user"],
            "pokebattle.executor": start["executor"],
            "pokebattle.execution": start["execution"],
        }
        if version := code_version(Path(notebook).parent if notebook else Path(start["cwd"])):
            tags |= {"mlflow.source.git.commit": version[0], "pokebattle.git.dirty": str(version[1]).lower()}
        return tags

    # -- events ----------------------------------------------------------------------------------

    def on_start(self, event: dict[str, Any]) -> None:
        """Take in who executes what."""
        self.start = event

    def on_names(self, event: dict[str, Any]) -> None:
        """From here on the run can be opened, and later cells do not override parameters any more."""
        self.names = (event["experiment"], event["run_name"])
        self.on_params({"values": self._provisional})

    def on_params(self, event: dict[str, Any]) -> None:
        """Queue parameters; a value that changes gets a key of its own, because MLflow's cannot change."""
        if event.get("provisional"):  # an injected cell may follow
            self._provisional.update(event["values"])
            return
        for name, value in event["values"].items():
            key, text, again = name, str(value), 1
            while key in self._known and self._known[key] != text:
                again += 1
                key = f"{name}.{again}"
            if key not in self._known:
                self._known[key] = self._params[key] = text

    def on_metrics(self, event: dict[str, Any]) -> None:
        """Queue metrics that a notebook publishes."""
        for name, value in event["values"].items():
            self.metric(name, float(value), event["time"])

    def on_dataset(self, event: dict[str, Any]) -> None:
        """Queue the dataset as input of the run."""
        self.manifests.append(event["manifest"])
        for context, rows in event["rows"].items():
            dataset = {
                "name": event["name"] if context == "training" else f"{event['name']}-{context}",
                "digest": str(event["digest"])[:36],
                "source_type": "local",
                "source": json.dumps({"uri": f"pokebattle/data/battles/{event['name']}"}),
                "profile": json.dumps({"num_rows": rows}),
            }
            self._inputs.append({"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": context}]})

    def on_fit(self, event: dict[str, Any]) -> None:
        """Queue parameters and curves of a fitted model."""
        self.fits.append({key: value for key, value in event.items() if key != "kind"})
        model = event["model"]
        ordinal = sum(fit["model"] == model for fit in self.fits)
        if ordinal > NAMED_FITS:
            return
        prefix = model if ordinal == 1 else f"{model}_{ordinal}"
        self.on_params({"values": {f"{prefix}.{name}": value for name, value in event["params"].items()}})
        self.metric(f"fit/{prefix}/seconds", event["seconds"], event["time"])
        for name, values in event.get("history", {}).items():
            for step, value in enumerate(values):
                self.metric(f"fit/{prefix}/{name}", value, event["time"], step)

    def on_cell_start(self, event: dict[str, Any]) -> None:
        """A cell runs."""
        self.cells.append(ExecutedCell(event))

    def on_output(self, event: dict[str, Any]) -> None:
        """A cell shows something."""
        self.cells[event["cell"]].output(event["output"], event["content"])

    def on_cell_end(self, event: dict[str, Any]) -> None:
        """A cell is done; its duration is a metric whose step is the cell's turn."""
        self.cells[event["cell"]].end(event)
        self.metric("cell/seconds", event["seconds"], event["time"], event["cell"])

    def on_end(self, event: dict[str, Any]) -> None:
        """The kernel goes over to another run."""
        self.ended = True

    def metric(self, key: str, value: float, timestamp: int, step: int = 0) -> None:
        """Queue one metric point."""
        self._metrics.append({"key": key, "value": value, "timestamp": timestamp, "step": step})

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Ship the rest, upload the artifacts and end the run; give up only when the server stays away."""
        began = time.monotonic()
        while True:
            try:
                self.ship()
                self.upload_artifacts()
                self.finish()
                break
            except (OSError, ServerError) as error:
                self.say_away(error)
                starting = server_is_starting(self.start["uri"])
                if time.monotonic() - began > (STARTING_PATIENCE if starting else PATIENCE):
                    self.record(unfinished=str(error))
                    return
                time.sleep(RETRY)
        for name in ("journal.jsonl", "notebook.json", "handover.json"):
            (self.folder / name).unlink(missing_ok=True)

    def verdict(self) -> tuple[str, dict[str, str]]:
        """Return the run's final status and the tags that explain it."""
        last = self.cells[-1]
        if last.ended is None and not self.ended:
            return "KILLED", {"pokebattle.cause": "the kernel ended in the middle of a cell"}
        if last.error and last.error["ename"] == "KeyboardInterrupt":
            return "KILLED", {"pokebattle.cause": "interrupted"}
        latest = {cell.id or index: cell for index, cell in enumerate(self.cells)}
        judged = [last] if self.start["executor"] in INTERACTIVE else list(latest.values())
        expected = self._expected_to_fail()
        failed = next((cell for cell in judged if not cell.ok and cell.source not in expected), None)
        if failed is None:
            return "FINISHED", {}
        error = failed.error or {"ename": "Error", "evalue": "", "traceback": []}
        return "FAILED", {
            "pokebattle.failed_cell": str(self.cells.index(failed)),
            "pokebattle.failed_source": failed.source,
            "pokebattle.error": f"{error['ename']}: {error['evalue']}",
            "pokebattle.traceback": ANSI.sub("", "\n".join(error["traceback"])),
        }

    def _expected_to_fail(self) -> set[str]:
        cells = read_json(self.folder / "notebook.json").get("cells", [])
        tagged = [cell for cell in cells if "raises-exception" in cell.get("metadata", {}).get("tags", [])]
        return {"".join(cell["source"]) for cell in tagged}

    def upload_artifacts(self) -> None:
        """Upload the executed notebook, its figures, the cells' story and the data manifests."""
        assert self.rest is not None
        notebook = executed_notebook(read_json(self.folder / "notebook.json"), self.cells)
        stem = Path(self.start["notebook"]).stem or "notebook"
        texts = {f"{stem}.ipynb": json.dumps(notebook, indent=1, ensure_ascii=False)}
        story = [
            {"cell": n, "id": cell.id, "source": cell.source, "seconds": cell.seconds, "ok": cell.ok,
             "started": cell.started, "ended": cell.ended, "error": cell.error}
            for n, cell in enumerate(self.cells)
        ]  # fmt: skip
        texts["cells.json"] = json.dumps(story, indent=1, ensure_ascii=False)
        if self.fits:
            texts["fits.json"] = json.dumps(self.fits, indent=1)
        for manifest in self.manifests:
            texts[f"data/{manifest.get('name', 'manifest')}.json"] = json.dumps(manifest, indent=1)
        files = {name: text.encode("utf-8", "replace") for name, text in texts.items()}
        files |= {f"figures/{name}": picture for name, picture in figures(notebook).items()}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                file = Path(folder) / "artifact"
                file.write_bytes(content)
                self.rest.upload(self.run["artifact_uri"], name, file)

    def finish(self) -> None:
        """End the run and the child runs that its cells left open."""
        assert self.rest is not None
        status, tags = self.verdict()
        self.rest.log_batch(self.run["run_id"], tags=tags)
        children = self.rest.call(
            "POST", "runs/search", experiment_ids=[self.run["experiment_id"]], max_results=100,
            filter=f"tags.`mlflow.parentRunId` = '{self.run['run_id']}' and attributes.status = 'RUNNING'",
        )  # fmt: skip
        for run_id in [run["info"]["run_id"] for run in children.get("runs", [])] + [self.run["run_id"]]:
            self.rest.call("POST", "runs/update", run_id=run_id, status=status, end_time=self.last_time)
        spent = os.times()
        self.record(status=status, cpu_seconds=round(sum(spent[:4]), 3))
