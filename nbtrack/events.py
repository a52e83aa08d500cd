"""The events of a journal: what a kernel, or the program that executes a notebook, records, one JSON line each.

Times are in milliseconds since 1970. A ``cell`` is the number of cells that began before it in this execution. Journals
of earlier releases may lack fields that were added later; the fields are listed with `NotRequired` then.
"""

from typing import Any, NotRequired, TypedDict


class Event(TypedDict):
    """What all events have in common."""

    kind: str
    time: int


class FromCell(Event):
    """An event that a cell may have caused."""

    cell: NotRequired[int]


class Start(Event):
    """The first event: who executes what, and the local ids of the future run."""

    execution: str
    uri: str
    local_server: bool
    run: str
    root: str
    experiment_token: str
    experiment_id: NotRequired[str]
    kernel: dict[str, Any]
    prefix: str
    notebook: str
    stem: str
    executor: str
    cwd: str
    user: str
    experiment: str
    run_name: str
    driver: dict[str, Any] | None
    parent: dict[str, Any] | None
    parent_execution: str | None


class Names(Event):
    """Experiment and run name are final, so that the run can be created."""

    experiment: str
    run_name: str


class FilesUsed(Event):
    """Of the files that match a pattern, the execution uses these; paths are absolute."""

    pattern: str
    used: list[str]


class Params(FromCell):
    """Parameters that were recorded automatically; provisional ones may still be replaced by an injected cell."""

    values: dict[str, Any]
    provisional: NotRequired[bool]


class Metrics(FromCell):
    """Metrics that the project's own code logs, linked to a logged model if the event names it."""

    values: dict[str, float]
    model: NotRequired[str]


class Dataset(FromCell):
    """A part of a data set was loaded; every part except "train" is held out."""

    name: str
    digest: str
    part: str
    rows: int
    source: NotRequired[str]
    manifest: NotRequired[dict[str, Any]]


class Fit(FromCell):
    """A model was fitted; ``history`` has the values of each curve by round."""

    model: str
    params: dict[str, Any]
    shape: list[int]
    seconds: float
    history: NotRequired[dict[str, list[float]]]


class Tags(FromCell):
    """Tags for the run, or for another run."""

    values: dict[str, str]
    run: NotRequired[str]


class Trial(FromCell):
    """A finished trial of a search, see `nbtrack.trials`."""

    study: str
    number: int
    name: str
    state: str
    params: dict[str, str]
    metrics: dict[str, float | None]
    curve: str
    steps: list[tuple[int, float]]
    began: int
    ended: int
    parent: NotRequired[str]


class Call(FromCell):
    """A request of mlflow's in a cell that was answered before it was sent, with local ids for what it creates."""

    method: str
    path: str
    body: dict[str, Any]
    token: NotRequired[str]
    creates: NotRequired[str]
    root: NotRequired[str]
    doubtful: NotRequired[bool]
    began: NotRequired[int]
    known: NotRequired[list[Any]]


class RunStatus(FromCell):
    """A cell has started, resumed or ended a run: MLflow's status, or `journal.NOT_ENDED`."""

    run: str
    status: str


class Experiment(Event):
    """A cell has chosen another experiment for the run, before it logged anything."""

    experiment_id: str
    name: str


class Artifact(FromCell):
    """A file that waits in the journal's folder; ``path`` begins with the run's artifact root."""

    path: str
    file: str


class CellStart(Event):
    """A cell begins."""

    cell: int
    cell_id: str | None
    execution_count: int | None
    source: str
    untracked: NotRequired[bool]
    beside: NotRequired[bool]
    may_fail: NotRequired[bool]


class Output(Event):
    """A message of Jupyter's protocol that shows something: its type and its content."""

    cell: int
    output: str
    content: dict[str, Any]


class CellEnd(Event):
    """A cell has ended; it has a source if the cell itself has added secrets."""

    cell: int
    seconds: float
    ok: bool
    execution_count: int | None
    error: str | None
    source: NotRequired[str]


class CellCount(Event):
    """The number that the front end shows beside a cell."""

    cell: int
    execution_count: int


class Mismatch(Event):
    """nbval has found that an output differs from the stored one."""

    cell: int
    message: str


class Shutdown(Event):
    """The kernel was asked to end."""

    restart: bool


class Moved(Event):
    """The notebook was renamed or moved."""

    notebook: str
    stem: str


class DriverEnd(Event):
    """The program that executes the notebook has finished, with an error if it failed itself."""

    error: NotRequired[str]
    message: NotRequired[str]


class KernelEnd(Event):
    """The kernel has ended, and why."""

    cause: str
    signal: int | None
    parent_ended: NotRequired[bool]
    parent_cause: NotRequired[str]
