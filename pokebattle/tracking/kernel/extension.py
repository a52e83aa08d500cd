"""The kernel extension: watches the cells of this kernel and writes down what happens.

Loaded by ``etc/ipython/ipython_kernel_config.json`` into every kernel of the environment. Nothing here waits for
a server, changes an output or raises into a user's cell: a failure is one line on the kernel's stderr.
"""

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable
from typing import Any

from pokebattle.tracking import processes
from pokebattle.tracking.cells import ANSI, NO_TRACK, is_untracked, literals, without_secrets
from pokebattle.tracking.context import PARENT, Context, detect, parent_pid
from pokebattle.tracking.journal import secretless, secrets_known, write_atomically
from pokebattle.tracking.kernel import autolog, fluent
from pokebattle.tracking.kernel.execution import Execution, current, go_over_to
from pokebattle.tracking.kernel.imports import after_import
from pokebattle.tracking.notice import say
from pokebattle.tracking.settings import enabled, switched_on, tracking_uri

OUTPUTS = {"stream", "display_data", "execute_result", "error", "update_display_data", "clear_output"}

_tracker: "KernelTracker | None" = None


def watch(shell: Any) -> None:
    """Begin to watch ``shell``, unless it is no kernel or tracking is off."""
    global _tracker
    if _tracker is not None or not hasattr(shell, "kernel") or not switched_on():
        return
    if enabled():
        _tracker = KernelTracker(shell)
        _tracker.install()
    else:
        say(f"notebooks are tracked on http(s) servers, not at {tracking_uri()}: this one has mlflow to itself")


def guarded(hook: Callable[..., None]) -> Callable[..., None]:
    """Keep a hook's failure away from the user's cell and say it in one line."""

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


class KernelTracker:
    """Watches one kernel; holds the execution that is under way."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.pid = os.getpid()
        self.execution: Execution | None = None
        self.context: Context | None = None
        self.broken = False
        self._cell_of: dict[str, tuple[Execution, int, bool]] = {}  # message id of the request -> cell, is it hidden
        self._depth = 0  # cells that the running cell runs itself
        self._began = 0.0
        self._secrets = 0  # how much was known to be secret when the notebook was written down
        self._hidden: set[str] = set()  # lines of cells that are not tracked
        self._hiding = False  # the running cell is one of them

    def install(self) -> None:
        """Hook into the shell, its messages and the libraries that it will import."""
        self.shell.events.register("pre_run_cell", self.before_cell)
        self.shell.events.register("post_run_cell", self.after_cell)
        session = self.shell.kernel.session
        session.send = self._observing(session.send)
        fluent.install(current)
        autolog.install(self.emit)
        after_import("pokebattle.datasets", self._watch_datasets)
        after_import("pokebattle.params", self._watch_params)

    # -- cells -----------------------------------------------------------------------------------

    @guarded
    def before_cell(self, info: Any) -> None:
        """Open the execution if this is its first cell, or if the run's name has changed; note the cell."""
        request = self._request_id()
        if request in self._cell_of:
            self._depth += 1
            return
        if self.context is None:
            self.context = detect(info.raw_cell or "")
        if not self.context.tracked:
            return
        source, cell_id = info.raw_cell or "", getattr(info, "cell_id", None)
        self._hiding = is_untracked(source)
        if self._hiding:
            self._hidden |= {line.strip() for line in source.splitlines()[1:] if len(line.strip()) > 3}
        execution = self._execution_for(source, self.context.is_parameter_cell(cell_id, source))
        self._cell_of = {request: (execution, execution.cells, self._hiding)}
        shown = {"source": NO_TRACK, "untracked": True} if self._hiding else {"source": source}
        execution.emit("cell_start", cell=execution.cells, cell_id=cell_id, **shown)
        execution.cells += 1
        self._began = time.perf_counter()

    def _execution_for(self, source: str, is_parameters: bool) -> Execution:
        assert self.context is not None
        bound = {**self.shell.user_ns, **(literals(source) if is_parameters else {})}
        names = self.context.names(bound)
        execution = self.execution
        if execution and execution.names and execution.names != names and self.context.executor != "papermill":
            execution.end()
            execution = None
        if execution is None:
            execution = self.execution = self._open(names)
        if execution.names is None and (not is_parameters or self.context.parameters):
            execution.fix_names(names)
        return execution

    def _open(self, names: tuple[str, str]) -> Execution:
        context = self.context
        assert context is not None
        start = context.opening(names) | {"parent": _parent_process()}
        execution = Execution(start, context.execution_id)
        context.execution_id = None  # a second run of this kernel needs an id of its own
        go_over_to(execution)
        os.environ[PARENT] = execution.id
        if context.parameters:
            execution.emit("params", values=context.parameters)
        self._write_document(execution)
        return execution

    def _write_document(self, execution: Execution) -> None:
        """Write the notebook down as it was, without secrets: cells that have no id are found in it by their text."""
        assert self.context is not None
        self._secrets = secrets_known()
        document = json.dumps(secretless(without_secrets(self.context.document)))
        with contextlib.suppress(OSError):  # a full disk
            write_atomically(execution.journal.folder / "notebook.json", document)

    @guarded
    def after_cell(self, result: Any) -> None:
        """Note how the cell ended."""
        if self._depth:
            self._depth -= 1
            return
        seconds = time.perf_counter() - self._began
        request = self._request_id()
        if request not in self._cell_of:
            return
        execution, cell, _ = self._cell_of[request]
        error = result.error_before_exec or result.error_in_exec
        info = result.info
        is_parameters = self.context and self.context.is_parameter_cell(
            getattr(info, "cell_id", None), info.raw_cell or ""
        )
        if self.context and is_parameters and not self._hiding:
            given, bound = self.context.parameters, self.shell.user_ns
            values = {n: bound[n] for n in literals(info.raw_cell) if n in bound and n not in given}
            execution.emit("params", values=values, provisional=execution.names is None)
        again = {}
        if secrets_known() > self._secrets:  # the cell has brought them up
            self._write_document(execution)
            again = {} if self._hiding else {"source": secretless(info.raw_cell or "")}
        execution.emit(
            "cell_end", cell=cell, **again, seconds=round(seconds, 6), ok=error is None,
            execution_count=result.execution_count, error=type(error).__name__ if error else None,
        )  # fmt: skip
        execution.failed = execution.failed or error is not None
        self._hiding = False

    def _request_id(self) -> str:
        return str(self.shell.kernel.get_parent().get("header", {}).get("msg_id", ""))

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
            if kind in OUTPUTS:
                self.observe(kind, content, parent)
            elif kind == "shutdown_reply":
                self.emit("shutdown", restart=bool((content or {}).get("restart")))
            return sent

        return wrapper

    @guarded
    def observe(self, kind: str, content: Any, parent: Any) -> None:
        """Note an output under the cell that made it."""
        header = (parent or {}).get("header", parent or {})
        if found := self._cell_of.get(header.get("msg_id", "")):
            execution, cell, hidden = found  # what is printed is flushed after the cell's end
            if hidden:
                return
            if kind == "error" and self._hidden:
                content = {**content, "traceback": [self._cover(frame) for frame in content["traceback"]]}
            execution.journal.append("output", cell=cell, output=kind, content=content)

    def _cover(self, frame: str) -> str:
        """Return a frame of a traceback, or, if it shows a line of a cell that is not tracked, a word about it."""
        plain = ANSI.sub("", frame)
        return f"[frame in a cell with {NO_TRACK}]" if any(line in plain for line in self._hidden) else frame

    @guarded
    def emit(self, kind: str, **fields: Any) -> None:
        """Write an event to the execution under way, if there is one."""
        if self.execution and not (self._hiding and kind != "shutdown"):
            self.execution.emit(kind, **fields)

    # -- what the package's own functions tell -----------------------------------------------------

    def _watch_datasets(self, module: Any) -> None:
        module.load_battles = _telling(module.load_battles, self._note_dataset)
        module.open_part = _telling(module.open_part, self._note_part)

    def _watch_params(self, module: Any) -> None:
        module.load_params = _telling(module.load_params, self._note_params)

    @guarded
    def _note_dataset(self, battles: Any, *_: Any, **__: Any) -> None:
        self.emit("dataset", name=battles.name, digest=battles.digest, part="train", rows=len(battles.training),
                  manifest=battles.manifest)  # fmt: skip

    @guarded
    def _note_part(self, opened: Any, battles: Any, part: str) -> None:
        self.emit("dataset", name=battles.name, digest=battles.digest, part=part, rows=len(opened))

    @guarded
    def _note_params(self, params: Any, *_: Any, **__: Any) -> None:
        self.emit("params", values=params.model_dump())


def _parent_process() -> dict[str, Any] | None:
    """Return the identity of the program that started this kernel."""
    try:
        return processes.record(parent_pid())
    except (ProcessLookupError, ValueError):
        return None


def _telling(function: Callable[..., Any], listener: Callable[..., None]) -> Callable[..., Any]:
    """Return ``function`` such that ``listener`` hears of every result, and of what was asked."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        listener(result, *args, **kwargs)
        return result

    return call
