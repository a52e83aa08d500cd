"""The kernel extension: watches the cells of this kernel and records events.

``etc/ipython/ipython_kernel_config.json`` loads it into every kernel of the environment. Nothing here waits for a
server, changes an output or raises an exception into a user's cell: a failure is one line on the kernel's stderr.
"""

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nbtrack import env_vars, processes
from nbtrack.cells import (
    ANSI,
    MAY_FAIL,
    NO_TRACK,
    PARAMETER_TAGS,
    Places,
    is_untracked,
    literals,
    only_assigns,
    tags_of_cell,
    without_secrets,
)
from nbtrack.files import write_atomically
from nbtrack.journal import secretless, secrets_known
from nbtrack.kernel import autolog, mlflow_fluent, traceback_filter
from nbtrack.kernel.execution import Execution, current, set_current
from nbtrack.kernel.import_hooks import before_first_package
from nbtrack.notebook_context import INTERACTIVE, Context, detect, handed_over, parent_pid
from nbtrack.plugins import functions
from nbtrack.settings import enabled, switched_on, tracking_uri
from nbtrack.terminal import say

OUTPUTS = {"stream", "display_data", "execute_result", "error", "update_display_data", "clear_output"}
COUNTED = {"execute_input", "execute_reply"}

_tracker: "KernelTracker | None" = None


def watch(shell: Any) -> None:
    """Start to watch ``shell``, unless it is not a kernel's or tracking is off.

    Parameters
    ----------
    shell : InteractiveShell
    """
    global _tracker
    if _tracker is not None or not hasattr(shell, "kernel") or not switched_on():
        return
    if enabled():
        _tracker = KernelTracker(shell)
        _tracker.install()
    else:
        say(f"notebooks are tracked on http(s) servers, not at {tracking_uri()}; this notebook is not tracked")


def emit(kind: str, **fields: Any) -> None:
    """Write an event, with the cell that it comes from, to this kernel's execution; nothing in a hidden cell.

    Parameters
    ----------
    kind : str
    **fields
        The event's fields.
    """
    if _tracker is not None:
        _tracker.emit(kind, **fields)


def guarded(hook: Callable[..., None]) -> Callable[..., None]:
    """Keep a hook's exceptions away from the user's cell, and report them in one line.

    Parameters
    ----------
    hook : callable
        A method of `KernelTracker`.
    """

    @functools.wraps(hook)
    def call(self: "KernelTracker", *args: Any, **kwargs: Any) -> None:
        if self.broken or os.getpid() != self.pid:
            return
        try:
            hook(self, *args, **kwargs)
        except Exception as error:
            self.broken = True
            say(f"this execution's cells are no longer tracked ({hook.__name__}: {type(error).__name__}: {error})")

    return call


@dataclass
class Cell:
    """A request that executes a cell.

    Attributes
    ----------
    turn : int
        How many cells of the execution began before it.
    hidden : bool
        Whether its first line is ``# no-track``.
    beside : bool
        Whether it is a request of a subshell, which may run at the same time as a cell of the notebook.
    count : int or None
        The number that the front end shows.
    depth : int
        Number of nested cells that it runs itself at the moment.
    """

    execution: Execution
    turn: int
    hidden: bool
    beside: bool
    is_parameters: bool
    count: int | None
    began: float = field(default_factory=time.perf_counter)
    depth: int = 0
    ended: bool = False


class KernelTracker:
    """Watches one kernel and keeps its active execution.

    Parameters
    ----------
    shell : InteractiveShell
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.pid = os.getpid()
        self.execution: Execution | None = None
        self.context: Context | None = None
        self.broken = False
        self._cells: dict[str, Cell] = {}  # by the request's message id; kept, as a cell may print after its end
        self._counts: dict[str, int] = {}  # execution counts of requests that have not begun
        self._beginning = threading.Lock()  # requests of subshells run in threads of their own
        self._places = Places({})
        self._at_parameters = True  # injected parameters may come first, or below the parameters cell
        self._secrets = 0  # number of known secrets when the notebook was written
        self._hidden: set[str] = set()  # lines of cells marked no-track

    def install(self) -> None:
        """Register hooks in the shell, its messages and the libraries that it will import."""
        self.shell.events.register("pre_run_cell", self.before_cell)
        self.shell.events.register("post_run_cell", self.after_cell)
        session = self.shell.kernel.session
        session.send = self._observing(session.send)
        traceback_filter.install(self.shell)
        mlflow_fluent.install(current)
        autolog.install(self.emit)
        before_first_package(_start_plugins)

    # -- cells -----------------------------------------------------------------------------------

    @guarded
    def before_cell(self, info: Any) -> None:
        """Begin an execution if this is its first cell or if the run's name has changed; record the cell.

        Parameters
        ----------
        info : ExecutionInfo
            IPython's.
        """
        header = self._request()
        request = str(header.get("msg_id", ""))
        if cell := self._cells.get(request):
            cell.depth += 1
            return
        if not request or not (info.store_history or self._is_nbval()):
            return
        with self._beginning:
            if self._is_tracked(info):
                self._begin(request, info, beside=bool(header.get("subshell_id")))

    def _is_nbval(self) -> bool:
        """Return whether nbval executes the notebook; its cells, like front ends' own requests, store no history."""
        if self.context is None:
            self.context = handed_over()
        return self.context is not None and self.context.executor == "nbval"

    def _is_tracked(self, info: Any) -> bool:
        """Return whether the notebook may be tracked, finding out at the first cell which one it is."""
        if self.context is None:
            cell_id = getattr(info, "cell_id", None)
            self.context = handed_over() or detect(info.raw_cell or "", cell_id, self.shell.user_ns)
        moved = self.context.follow(getattr(info, "cell_id", None))
        if moved and self.execution:
            self.execution.emit("moved", notebook=str(self.context.notebook), stem=self.context.stem)
        if self.context.tracked and (moved or self.execution is None):
            self._places = Places(without_secrets(self.context.document))
        return self.context.tracked

    def _begin(self, request: str, info: Any, beside: bool) -> None:
        source, cell_id = info.raw_cell or "", getattr(info, "cell_id", None)
        hidden = is_untracked(source)
        if hidden:
            self._hidden |= {line.strip() for line in source.splitlines()[1:] if len(line.strip()) > 3}
        shown: dict[str, Any] = {"source": NO_TRACK, "untracked": True} if hidden else {"source": source}
        place = self._places.find(cell_id, shown["source"])
        tags = tags_of_cell({"metadata": getattr(info, "cell_meta", None) or {}})  # the front end's tags are the newest
        tags |= tags_of_cell(self._places.cells[place]) if place is not None else set()
        is_parameters = bool(tags & PARAMETER_TAGS)
        if place is None and not cell_id and self._places.cells:  # injected, for example by jupyter-scheduler
            is_parameters |= self._at_parameters and only_assigns(source)
        self._at_parameters = is_parameters
        execution = self._execution_for(source, is_parameters, beside)
        count = self._counts.pop(request, None)
        cell = Cell(execution, execution.cells, hidden, beside, is_parameters, count)
        self._cells[request] = cell
        more: dict[str, Any] = {"beside": True} if beside else {}
        more |= {"may_fail": True} if MAY_FAIL in tags else {}
        execution.emit("cell_start", cell=cell.turn, cell_id=cell_id, execution_count=count, **shown, **more)
        execution.cells += 1
        cell.began = time.perf_counter()

    def _execution_for(self, source: str, is_parameters: bool, beside: bool) -> Execution:
        assert self.context is not None
        execution = self.execution
        if execution and beside:
            return execution
        bound = {**self.shell.user_ns, **(literals(source) if is_parameters else {})}
        names = self.context.names(bound)
        if execution and self._begins_another(execution, names):
            execution.end()
            execution, self._cells = None, {}
        if execution is None:
            execution = self.execution = self._open(names)
        if execution.names is None and (not is_parameters or self.context.parameters):
            execution.freeze_names(names)
        return execution

    def _begins_another(self, execution: Execution, names: tuple[str, str]) -> bool:
        """Return whether the names of a cell's run differ, so that another run begins.

        No run begins while a subshell is busy, as its cell has to end in the run in which it began.
        """
        if not execution.names or execution.names == names or (self.context and self.context.executor == "papermill"):
            return False
        return not any(cell.beside and not cell.ended for cell in self._cells.values())

    def _open(self, names: tuple[str, str]) -> Execution:
        context = self.context
        assert context is not None
        start = context.opening(names) | {"parent": _parent_process()}
        execution = Execution(start, context.execution_id)
        context.execution_id = None  # a second run of this kernel gets an id of its own
        set_current(execution)
        os.environ[env_vars.PARENT] = execution.id
        if context.parameters:
            execution.emit("params", values=context.parameters)
        self._write_document(execution)
        return execution

    def _write_document(self, execution: Execution) -> None:
        """Write the notebook, without secrets, to the spool: cells without id are found in it by their text."""
        assert self.context is not None
        self._secrets = secrets_known()
        document = json.dumps(secretless(without_secrets(self.context.document)))
        with contextlib.suppress(OSError):  # the disk is full
            write_atomically(execution.journal.folder / "notebook.json", document)

    @guarded
    def after_cell(self, result: Any) -> None:
        """Record how the cell ended.

        Parameters
        ----------
        result : ExecutionResult
            IPython's.
        """
        cell = self._running()
        if cell is None or cell.ended:
            return
        if cell.depth:
            cell.depth -= 1
            return
        cell.ended = True
        seconds = time.perf_counter() - cell.began
        execution = cell.execution
        error = result.error_before_exec or result.error_in_exec
        info = result.info
        if self.context and cell.is_parameters and not cell.hidden:
            given, bound = self.context.parameters, self.shell.user_ns
            values = {n: bound[n] for n in literals(info.raw_cell) if n in bound and n not in given}
            execution.emit("params", values=values, provisional=execution.names is None)
        again = {}
        if secrets_known() > self._secrets:  # the cell has added secrets
            self._write_document(execution)
            again = {} if cell.hidden else {"source": secretless(info.raw_cell or "")}
        cell.count = cell.count or result.execution_count
        execution.emit(
            "cell_end",
            cell=cell.turn,
            **again,
            seconds=round(seconds, 6),
            ok=error is None,
            execution_count=cell.count,
            error=type(error).__name__ if error else None,
        )
        execution.failed = execution.failed or error is not None

    def _request(self) -> dict[str, Any]:
        """Return the header of the request that the calling thread, or task, handles."""
        header: dict[str, Any] = self.shell.kernel.get_parent().get("header", {})
        return header

    def _running(self) -> Cell | None:
        """Return the cell that the calling thread, or task, belongs to."""
        return self._cells.get(str(self._request().get("msg_id", "")))

    # -- messages --------------------------------------------------------------------------------

    def _observing(self, send: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(send)
        def wrapper(stream: Any, msg_or_type: Any, content: Any = None, parent: Any = None, *a: Any, **kw: Any) -> Any:
            sent = send(stream, msg_or_type, content, parent, *a, **kw)
            if isinstance(msg_or_type, dict):
                kind = msg_or_type.get("header", {}).get("msg_type")
                content, parent = msg_or_type.get("content"), msg_or_type.get("parent_header")
            else:
                kind = msg_or_type
            if kind in OUTPUTS | COUNTED:
                header = (parent or {}).get("header", parent or {})
                self.observe(kind, content or {}, str(header.get("msg_id", "")))
            elif kind == "shutdown_reply":
                self.emit("shutdown", restart=bool((content or {}).get("restart")))
            return sent

        return wrapper

    @guarded
    def observe(self, kind: str, content: dict[str, Any], request: str) -> None:
        """Record an output for the cell whose request it answers, as the front end does, even after the cell's end.

        Parameters
        ----------
        kind : str
            The message type.
        content : dict
            The message's content.
        request : str
            The id of the request that the message answers.
        """
        cell = self._cells.get(request)
        if kind in COUNTED:
            self._note_count(kind, content, request, cell)
        elif cell and not cell.hidden:
            if kind == "error" and self._hidden:
                content = {**content, "traceback": [self._cover(frame) for frame in content["traceback"]]}
            cell.execution.journal.append("output", cell=cell.turn, output=kind, content=content)

    def _note_count(self, kind: str, content: dict[str, Any], request: str, cell: Cell | None) -> None:
        """Record the execution count that a front end shows.

        It is the count that was announced; in interactive executors, the count in the reply.
        """
        count = content.get("execution_count")
        if kind == "execute_input":
            self._counts[request] = count or 0
            return
        self._counts.pop(request, None)
        by_hand = self.context is not None and self.context.executor in INTERACTIVE
        if cell and by_hand and count and count != cell.count:
            cell.count = count
            cell.execution.emit("cell_count", cell=cell.turn, execution_count=count)

    def _cover(self, frame: str) -> str:
        """Return a traceback's frame, or a placeholder if it shows a line of a cell that is not tracked."""
        plain = ANSI.sub("", frame)
        return f"[frame in a cell with {NO_TRACK}]" if any(line in plain for line in self._hidden) else frame

    @guarded
    def emit(self, kind: str, **fields: Any) -> None:
        """Write an event, with the cell that it comes from, to the active execution, if there is one.

        Parameters
        ----------
        kind : str
        **fields
            The event's fields.
        """
        cell = self._running()
        if self.execution and not (cell and cell.hidden and kind != "shutdown"):
            of_cell = {"cell": cell.turn} if cell and cell.execution is self.execution else {}
            self.execution.emit(kind, **fields, **of_cell)


def _start_plugins() -> None:
    for start_kernel in functions("start_kernel"):
        start_kernel()


def _parent_process() -> dict[str, Any] | None:
    """Return the record of the program that started this kernel; None if it does not exist."""
    try:
        return processes.record(parent_pid())
    except (ProcessLookupError, ValueError):
        return None
