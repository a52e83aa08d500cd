"""How much tracking adds inside a kernel: to its start, cells, small fits, mlflow calls and memory."""

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psutil
from comparison import Figure, Values, added, level, quantity, ratio, rounds
from jupyter_client.manager import KernelManager
from processes import is_kernel, naming, resident
from stage import Stage, stage

CELLS = 100
FITS = 50
SETTLED = 2.0  # seconds until a kernel and its sender are idle
PRINTING = "for line in range(100):\n    print('line', line, 'of a cell that prints a hundred of them')"
DATA = """
import json, time
import numpy
draw = numpy.random.default_rng(0)
X = draw.normal(size=(200, 5))
y = (X @ draw.normal(size=5) + draw.normal(size=200) > 0).astype(int)
"""
TIMED = f"""
seconds = []
for _ in range({FITS}):
    began = time.perf_counter()
    fit()
    seconds.append(time.perf_counter() - began)
print(json.dumps(seconds))
"""
FIT = {
    "sklearn": "from sklearn.linear_model import LogisticRegression\nfit = lambda: LogisticRegression().fit(X, y)",
    "xgboost": "import xgboost\nrows = xgboost.DMatrix(X, y)\n"
    "fit = lambda: xgboost.train({'objective': 'binary:logistic', 'max_depth': 3}, rows, num_boost_round=10)",
}
POINTS, QUESTIONS = 1000, 100
CALLS = {
    f"{POINTS} x mlflow.log_metric": f"for step in range({POINTS}):\n    mlflow.log_metric('loss', step, step=step)",
    f"{QUESTIONS} x client.get_run": f"for _ in range({QUESTIONS}):\n    client.get_run(run.info.run_id)",
}
BEFORE_CALLS = """
import mlflow, time
client, run = mlflow.MlflowClient(), mlflow.start_run()
mlflow.log_metric('a', 1)
"""
ANALYSIS = (
    "import pandas as pd\nimport numpy as np",
    "table = pd.DataFrame(np.random.default_rng(0).normal(size=(1000, 5)), columns=list('abcde'))\ntable.describe()",
    "for name in table:\n    print(name, table[name].mean())",
    "table.corr()",
)


class Kernel:
    """A running kernel.

    Attributes
    ----------
    ready : float
        Seconds from the start of the kernel until it was ready.
    """

    def __init__(self, manager: KernelManager, client: Any, ready: float) -> None:
        self.manager, self.client, self.ready = manager, client, ready

    def run(self, source: str) -> str:
        """Execute a cell and return its printed output.

        Raises
        ------
        RuntimeError
            If the cell fails.
        """
        printed: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        reply = self.client.execute_interactive(source, allow_stdin=False, timeout=600, output_hook=hear)["content"]
        if reply["status"] != "ok":
            raise RuntimeError(f"a cell failed: {reply.get('ename')}: {reply.get('evalue')}")
        return "".join(printed)


@contextlib.contextmanager
def kernel(setup: Stage, env: dict[str, str]) -> Iterator[Kernel]:
    """Start a kernel and shut it down afterwards, as a client does."""
    manager = KernelManager(kernel_name="python3")
    with (setup.folder / "kernel.log").open("ab") as log:
        began = time.perf_counter()
        manager.start_kernel(env=env, cwd=str(setup.folder), stdout=log, stderr=log)
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        yield Kernel(manager, client, time.perf_counter() - began)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def ready(pairs: int) -> list[Figure]:
    """Measure what tracking adds to the start of a kernel."""

    def measure(setup: Stage, env: dict[str, str]) -> dict[str, float]:
        with kernel(setup, env) as one:
            return {"s": one.ready}

    with stage() as setup:
        return [_added("kernel ready", "s", _alternate(setup, pairs, measure), "s", 0.15)]


def fits(pairs: int) -> list[Figure]:
    """Measure what tracking adds to a small fit: the mean of many fits, and the first fit."""
    figures = []
    with stage() as setup:
        for library, prepare in FIT.items():
            values = _alternate(setup, pairs, partial(_time_fits, prepare))
            figures.append(_added(f"small fit: {library}", "ms", values, "mean", 100))
            figures.append(_added(f"small fit: {library}, the first", "ms", values, "first"))
    return figures


def _time_fits(prepare: str, setup: Stage, env: dict[str, str]) -> dict[str, float]:
    with kernel(setup, env) as one:
        one.run(DATA)
        one.run(prepare)
        seconds = json.loads(one.run(TIMED))
    return {"mean": 1000 * statistics.fmean(seconds), "first": 1000 * seconds[0]}


def cells(pairs: int) -> list[Figure]:
    """Measure what tracking adds to a cell: one without output, and one that prints 100 lines."""
    kinds = {"cell: trivial": "1 + 1", "cell: prints 100 lines": PRINTING}
    with stage() as setup:
        return [
            _added(name, "ms", _alternate(setup, pairs, partial(_time_cells, source)), "ms", 2)
            for name, source in kinds.items()
        ]


def _time_cells(source: str, setup: Stage, env: dict[str, str]) -> dict[str, float]:
    with kernel(setup, env) as one:
        began = time.perf_counter()
        for _ in range(CELLS):
            one.run(source)
        return {"ms": (time.perf_counter() - began) * 1000 / CELLS}


def calls(pairs: int) -> list[Figure]:
    """Compare a cell's own mlflow calls with and without tracking: many metric points, and queries when idle."""
    limits = dict(zip(CALLS, (0.2, 1.1), strict=True))
    figures = []
    with stage() as setup:
        for name, source in CALLS.items():
            values = _alternate(setup, pairs, partial(_time_calls, source))
            off, on = (quantity(values[side], "ms") for side in ("off", "on"))
            figures.append(ratio(name, "ms", off, on, limits[name]))
    return figures


def _time_calls(source: str, setup: Stage, env: dict[str, str]) -> dict[str, float]:
    with kernel(setup, env) as one:
        one.run(BEFORE_CALLS)
        one.run("client.get_run(run.info.run_id)")
        timed = f"began = time.perf_counter()\n{source}\nprint(time.perf_counter() - began)"
        return {"ms": 1000 * float(one.run(timed))}


def memory(pairs: int) -> list[Figure]:
    """Measure the memory of an idle kernel and of the processes beside it, without and with a fit.

    No cell imports mlflow.
    """
    kinds = {"memory": ANALYSIS, "memory: with a fit": (*ANALYSIS, DATA, FIT["sklearn"], "fit()")}
    figures = []
    with stage() as setup:
        for name, sources in kinds.items():
            values = _alternate(setup, pairs, partial(_weigh, sources))
            figures.append(_added(name, "MB", values, "all", 30))
            figures.append(level(f"{name}, sender alone", "MB", quantity(values["on"], "helpers")))
    return figures


def _weigh(sources: tuple[str, ...], setup: Stage, env: dict[str, str]) -> dict[str, float]:
    """Return the MB of the kernel and of the processes beside it, read together because they share pages."""
    with kernel(setup, env) as one:
        for source in sources:
            one.run(source)
        time.sleep(SETTLED)
        processes = set(naming(setup.state))
        for process in filter(is_kernel, list(processes)):
            with contextlib.suppress(psutil.Error):
                processes.update(process.children(recursive=True))
        held = {process: resident(process) for process in processes}
        helpers = sum(mb for process, mb in held.items() if not is_kernel(process))
    return {"all": sum(held.values()), "helpers": helpers}


def _alternate(
    setup: Stage, pairs: int, measure: Callable[[Stage, dict[str, str]], dict[str, float]]
) -> dict[str, Values]:
    return rounds(
        {"off": lambda: measure(setup, setup.off), "on": lambda: measure(setup, setup.on)}, pairs, setup.settle
    )


def _added(name: str, unit: str, values: dict[str, Values], what: str, limit: float | None = None) -> Figure:
    return added(name, unit, quantity(values["off"], what), quantity(values["on"], what), limit)
