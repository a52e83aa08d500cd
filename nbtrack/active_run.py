"""For a project's own code: the MLflow run of the notebook or script that is executing."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nbtrack.kernel import extension
from nbtrack.kernel.execution import Execution, current
from nbtrack.local_ids import LOCAL

STANDSTILL = 5.0  # seconds without progress after which waiting for the delivery ends
API = "/api/2.0/mlflow"


def run() -> "Run | None":
    """Return the run of the notebook or script that is executed; None if nothing is tracked."""
    execution = current()
    return Run(execution) if execution else None


class Run:
    """The run of an execution. Everything is written to the journal at once, and sent to the server in order.

    Parameters
    ----------
    execution : Execution
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    @property
    def execution_id(self) -> str:
        """The execution's own id; the run has it in the tag ``pokebattle.execution``."""
        return self._execution.id

    @property
    def local_id(self) -> str:
        """The run's local id, which is replaced by the server's when something that contains it is sent."""
        return str(self._execution.start["run"])

    @property
    def uri(self) -> str:
        """Address of the MLflow server that the run goes to."""
        return self._execution.uri

    @property
    def experiment_id(self) -> str:
        """Id of the run's experiment: the server's, or a local one while the server does not answer."""
        return str(self._execution.run()["experiment_id"])

    def log_params(self, values: Mapping[str, Any], *, automatic: bool = False) -> None:
        """Record parameters, with their types.

        Parameters
        ----------
        values : mapping
            Value by name.
        automatic : bool, default False
            Whether the package records them without a call in the cell; then nothing is recorded in a cell marked
            ``# no-track``.
        """
        if automatic:
            extension.emit("params", values=dict(values))
        else:
            self._execution.emit("params", values=dict(values))

    def log_metrics(self, values: Mapping[str, float], model_id: str = "") -> None:
        """Log metrics.

        Parameters
        ----------
        values : mapping
            Number by name.
        model_id : str, optional
            Id of a logged model, to which the metrics are linked. A local id is ignored.
        """
        linked = {"model": model_id} if model_id and not LOCAL.search(model_id) else {}
        self._execution.emit("metrics", values=dict(values), **linked)

    def set_tags(self, values: Mapping[str, str], run_id: str = "") -> None:
        """Set tags.

        Parameters
        ----------
        values : mapping
            Text by name.
        run_id : str, optional
            Another run, which gets the tags instead.
        """
        other = {"run": run_id} if run_id else {}
        self._execution.emit("tags", values=dict(values), **other)

    def set_experiment_tag(self, key: str, value: str) -> None:
        """Set a tag on the run's experiment.

        Parameters
        ----------
        key, value : str
        """
        body = {"experiment_id": self.experiment_id, "key": key, "value": value}
        self._execution.emit("call", method="POST", path=f"{API}/experiments/set-experiment-tag", body=body)

    def use_files(self, pattern: str, used: Iterable[Path]) -> None:
        """Record which files of a kind this execution uses: changes of the others do not make its code dirty.

        Parameters
        ----------
        pattern : str
            Absolute path with wildcards, as in ``/project/params/*.yaml``.
        used : iterable of Path
            Absolute paths. Those of earlier calls with the same pattern count, too.
        """
        self._execution.emit("files_used", pattern=pattern, used=[str(path) for path in used])

    def describe(self, subject: str, text: str) -> None:
        """Add a paragraph to the run's description, below those about other subjects.

        Parameters
        ----------
        subject : str
            A later paragraph about the same subject replaces the earlier one.
        text : str
            Markdown.
        """
        self._execution.describe(subject, text)

    def log_dataset(
        self, name: str, digest: str, *, part: str, rows: int, source: str, manifest: Mapping[str, Any] | None = None
    ) -> None:
        """Record a part of a data set as an input of the run, unless the cell is marked ``# no-track``.

        Parameters
        ----------
        name, digest : str
            Name and digest of the data set.
        part : str
            "train", or the name of a part that is held out; then the run also records when it was opened.
        rows : int
            Number of rows of the part.
        source : str
            Where the data come from: a path or an address.
        manifest : mapping, optional
            A description of the data set, which becomes an artifact.
        """
        described = {"manifest": dict(manifest)} if manifest is not None else {}
        extension.emit("dataset", name=name, digest=digest, part=part, rows=rows, source=source, **described)

    def log_file(self, path: str, content: bytes) -> None:
        """Store a file as an artifact.

        Parameters
        ----------
        path : str
            Path of the artifact within the run.
        content : bytes
        """
        if staged := self._execution.journal.stage(content):
            self._execution.emit("artifact", path=f"{self._execution.start['root']}/{path}", file=staged)

    def log_trial(self, trial: Mapping[str, Any], parent_id: str = "") -> bool:
        """Record a finished trial of a search, which becomes a child run.

        Parameters
        ----------
        trial : mapping
            As described in `nbtrack.trials`.
        parent_id : str, optional
            The parent run; by default, this run.

        Returns
        -------
        bool
            Whether there was room for it.
        """
        return self._execution.emit("trial", **trial, **({"parent": parent_id} if parent_id else {}))

    def wait_until_delivered(self) -> bool:
        """Wait until the server has received everything, as long as there is progress. Return whether it has."""
        progress, offset, since = self._execution.progress, -1, time.monotonic()
        while not self._execution.wait_until_received():
            if progress.offset != offset:
                offset, since = progress.offset, time.monotonic()
            away = progress.facts.get("away") or progress.facts.get("refused")
            if away or time.monotonic() - since > STANDSTILL:
                return False
            time.sleep(0.1)
        return True
