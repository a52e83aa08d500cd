"""What tracking costs: the same notebook with tracking on and off, in turns, against a real server.

``python benchmarks/tracking.py [pairs]`` prints one table. Times are wall seconds of the whole ``papermill`` command;
added is the median of the paired differences with its 95 % bootstrap interval, ratio the median of the paired ratios,
helper the processor seconds of the shippers, a pair's mean. Beside it stands the usual way: ``mlflow.autolog()`` with its
defaults in the first cell, in the notebook that is otherwise untracked.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import psutil

from pokebattle.tracking import server
from pokebattle.tracking.journal import read_json

ROOT = Path(__file__).resolve().parents[1]
PAPERMILL = Path(sys.executable).parent / "papermill"


def trivial() -> Any:
    """Return a notebook of one cell."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")], metadata=kernel)


def with_autolog(document: Any) -> Any:
    """Return the notebook with ``mlflow.autolog()`` and an experiment as its first cell."""
    source = "import mlflow\nmlflow.set_experiment('usual-way')\nmlflow.autolog()"
    document = nbformat.from_dict(json.loads(json.dumps(document)))
    document.cells.insert(0, nbformat.v4.new_code_cell(source))
    document.metadata.pop("pokebattle", None)  # its own names and schema belong to the tracked way
    return document


def execute(notebook: Path, options: Sequence[str], env: dict[str, str]) -> float:
    """Execute a notebook with papermill; return its wall seconds.

    Raises
    ------
    RuntimeError
        It failed.
    """
    command = [str(PAPERMILL), str(notebook), str(notebook.with_suffix(".out.ipynb")), "--no-progress-bar", *options]
    began = time.perf_counter()
    done = subprocess.run(command, env=env, cwd=notebook.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return time.perf_counter() - began


class Shippers:
    """Waits for the shippers of a state folder and adds up their processor time."""

    def __init__(self, state: Path) -> None:
        self.state, self.cpu = state, 0.0

    def settle(self) -> None:
        """Wait until every execution is closed."""
        last: dict[int, float] = {}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                if any(str(self.state) in word for word in words) and "-I" in words:
                    try:
                        times = process.cpu_times()
                        last[process.pid] = times.user + times.system + times.children_user + times.children_system
                    except psutil.Error:
                        continue
            folders = list((self.state / "executions").glob("*"))
            if all("status" in read_json(folder / "run.json") for folder in folders):
                break
            time.sleep(0.02)
        self.cpu += sum(last.values())


def interval(values: Sequence[float], statistic: Callable[[Sequence[float]], float]) -> tuple[float, float]:
    """Return a 95 % percentile bootstrap interval of ``statistic``."""
    draw = random.Random(0)
    drawn = sorted(statistic(draw.choices(values, k=len(values))) for _ in range(2000))
    return drawn[50], drawn[1949]


def compare(name: str, notebook: Any, options: Sequence[str], pairs: int, ways: dict[str, dict[str, str]]) -> list[str]:
    """Return table rows for each way against ``off``, taken in turns."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        plain, autolog = Path(folder) / "plain.ipynb", Path(folder) / "autolog.ipynb"
        nbformat.write(notebook, plain)
        nbformat.write(with_autolog(notebook), autolog)
        shippers = Shippers(state)
        for number in range(pairs + 1):  # the first round warms caches and is not counted
            for way in sorted(ways, key=lambda way: hash((number, way))):
                env = {**os.environ, **ways[way], "POKEBATTLE_STATE": str(state)}
                took = execute(autolog if way == "mlflow.autolog()" else plain, options, env)
                shippers.settle()
                if number:
                    seconds[way].append(took)
                else:
                    shippers.cpu = 0.0
    rows = []
    for way in ways:
        if way == "off":
            continue
        added = [a - b for a, b in zip(seconds[way], seconds["off"], strict=True)]
        ratio = statistics.median(a / b for a, b in zip(seconds[way], seconds["off"], strict=True))
        low, high = interval(added, statistics.median)
        helper = f"{shippers.cpu / pairs:.2f}" if way == "pokebattle" else "-"
        rows.append(
            f"{name:<16} {way:<17} {pairs:>5} {statistics.median(seconds['off']):>8.2f} "
            f"{statistics.median(seconds[way]):>8.2f} {statistics.median(added):>+8.2f} "
            f"[{low:+.2f}, {high:+.2f}] {ratio:>7.3f} {helper:>7}"
        )
    return rows


def main() -> None:
    """Start a server of our own, measure, print the table, stop the server."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    say = sys.stdout.write
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.environ["POKEBATTLE_STATE"] = folder
        server.DEFAULT_URI = "http://127.0.0.1:0"
        server.tracking_uri = lambda: "http://127.0.0.1:9"
        uri, _ = server.start()
        try:
            on = {"MLFLOW_TRACKING_URI": uri, "POKEBATTLE_TRACKING": "on"}
            off = on | {"POKEBATTLE_TRACKING": "off"}
            ways = {"off": off, "pokebattle": on, "mlflow.autolog()": off}
            say(f"{'notebook':<16} {'tracked by':<17} {'pairs':>5} {'off s':>8} {'on s':>8} {'added s':>8} ")
            say(f"{'95 % interval':<16} {'ratio':>7} {'helper':>7}\n")
            train = nbformat.read(ROOT / "notebooks" / "train.ipynb", as_version=4)
            for name, notebook, options in (("trivial", trivial(), []), ("train v3", train, ["-p", "version", "v3"])):
                for row in compare(name, notebook, options, pairs, ways):
                    say(row + "\n")
                    sys.stdout.flush()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
