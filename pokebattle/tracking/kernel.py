"""The kernel extension: watches the cells of this kernel and writes down what happens.

Loaded by ``etc/ipython/ipython_kernel_config.json`` into every kernel of the environment. Nothing here waits for
a server, changes an output or raises into a user's cell: a failure is one line on the kernel's stderr.
"""

import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pokebattle.tracking import autolog, fluent
from pokebattle.tracking.context import Context, detect, literals, user_name
from pokebattle.tracking.execution import Execution
from pokebattle.tracking.imports import after_import
from pokebattle.tracking.notice import say
from pokebattle.tracking.settings import enabled

OUTPUTS = {"stream", "display_data", "execute_result", "error", "update_display_data", "clear_output"}

_tracker: "KernelTracker | None" = None


def load_ipython_extension(shell: Any) -> None:
    """Begin to watch ``shell``, unless it is no kernel or tracking is off."""
    global _tracker
    if _tracker is None and hasattr(shell, "kernel") and enabled():
        _tracker = KernelTracker(shell)
        _tracker.install()


def current() -> "Execution | None":
    """Return the execution that this process is part of; None when nothing is tracked."""
    return _tracker.execution if _tracker and _tracker.pid == os.getpid() else None


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
            say(f"this execution is no longer tracked ({hook.__name__}: {type(error).__name__}: {error})")

    return call


class KernelTracker:
    """Watches one kernel; holds the execution that is under way."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.pid = os.getpid()
        self.execution: Execution | None = None
        self.context: Context | None = None
        self.broken = False
        self._cell_of: dict[str, tuple[Execution, int]] = {}  # message id of the request -> cell
        self._depth = 0  # cells that the running cell runs itself
        self._began = 0.0

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
            self.context = detect()
        source, cell_id = info.raw_cell or "", getattr(info, "cell_id", None)
        execution = self._execution_for(source, self.context.is_parameter_cell(cell_id, source))
        self._cell_of = {request: (execution, execution.cells)}
        fluent.keep_attached()
        execution.emit("cell_start", cell=execution.cells, cell_id=cell_id, source=source)
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
        start = {
            "notebook": str(context.notebook or ""), "executor": context.executor, "cwd": str(Path.cwd()),
            "user": user_name(), "experiment": names[0], "run_name": names[1],
        }  # fmt: skip
        execution = Execution(start, context.execution_id)
        context.execution_id = None  # a second run of this kernel needs an id of its own
        (execution.journal.folder / "notebook.json").write_text(json.dumps(context.document), encoding="utf-8")
        if context.parameters:
            execution.emit("params", values=context.parameters)
        return execution

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
        execution, cell = self._cell_of[request]
        error = result.error_before_exec or result.error_in_exec
        info = result.info
        if self.context and self.context.is_parameter_cell(getattr(info, "cell_id", None), info.raw_cell or ""):
            given, bound = self.context.parameters, self.shell.user_ns
            values = {n: bound[n] for n in literals(info.raw_cell) if n in bound and n not in given}
            execution.emit("params", values=values, provisional=execution.names is None)
        execution.emit(
            "cell_end", cell=cell, seconds=round(seconds, 6), ok=error is None,
            execution_count=result.execution_count, error=type(error).__name__ if error else None,
        )  # fmt: skip

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
            return sent

        return wrapper

    @guarded
    def observe(self, kind: str, content: Any, parent: Any) -> None:
        """Note an output under the cell that made it."""
        header = (parent or {}).get("header", parent or {})
        if found := self._cell_of.get(header.get("msg_id", "")):
            execution, cell = found
            execution.journal.append("output", cell=cell, output=kind, content=content)

    @guarded
    def emit(self, kind: str, **fields: Any) -> None:
        """Write an event to the execution under way, if there is one."""
        if self.execution:
            self.execution.emit(kind, **fields)

    # -- what the package's own functions tell -----------------------------------------------------

    def _watch_datasets(self, module: Any) -> None:
        module.load_battles = _telling(module.load_battles, self._note_dataset)

    def _watch_params(self, module: Any) -> None:
        module.load_params = _telling(module.load_params, self._note_params)

    @guarded
    def _note_dataset(self, battles: Any) -> None:
        self.emit(
            "dataset", name=battles.name, digest=battles.digest, manifest=battles.manifest,
            rows={"training": len(battles.training), "evaluation": len(battles.evaluation)},
        )  # fmt: skip

    @guarded
    def _note_params(self, params: Any) -> None:
        self.emit("params", values=params.model_dump())


def _telling(function: Callable[..., Any], listener: Callable[[Any], None]) -> Callable[..., Any]:
    """Return ``function`` such that ``listener`` hears of every result."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        listener(result)
        return result

    return call
