"""What tracking costs: the same notebook with tracking on and off, in turns, against a real server.

``python benchmarks/tracking.py [pairs]`` prints one table. Times are wall seconds of the whole ``papermill`` command;
added is the median of the paired differences with its 95 % bootstrap interval, ratio the median of the paired ratios,
helper the processor seconds that the shipper of one execution used. Beside it stands the usual way, in every fifth
round: ``mlflow.autolog()`` with its defaults in the first cell of the notebook, otherwise untracked.
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

from pokebattle.tracking import server
from pokebattle.tracking.journal import read_json

ROOT = Path(__file__).resolve().parents[1]
USUAL = "mlflow.autolog()"
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


def settle(state: Path) -> list[float]:
    """Wait until every execution's run is closed; return the processor seconds of their shippers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        records = [read_json(folder / "run.json") for folder in (state / "executions").glob("*")]
        if all("status" in record for record in records):
            return [record["cpu_seconds"] for record in records]
        time.sleep(0.02)
    raise RuntimeError(f"a run was not closed within a minute: {records}")


def interval(values: Sequence[float], statistic: Callable[[Sequence[float]], float]) -> tuple[float, float]:
    """Return a 95 % percentile bootstrap interval of ``statistic``."""
    draw = random.Random(0)
    drawn = sorted(statistic(draw.choices(values, k=len(values))) for _ in range(2000))
    return drawn[50], drawn[1949]


def compare(name: str, notebook: Any, options: Sequence[str], pairs: int, ways: dict[str, dict[str, str]]) -> list[str]:
    """Return table rows for each way against ``off``, taken in turns."""
    seconds: dict[str, dict[int, float]] = {way: {} for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        plain, autolog = Path(folder) / "plain.ipynb", Path(folder) / "autolog.ipynb"
        nbformat.write(notebook, plain)
        nbformat.write(with_autolog(notebook), autolog)
        for number in range(pairs + 1):  # the first round warms caches and is not counted
            order = [way for way in ways if way != USUAL or number % 5 == 1]
            random.Random(number).shuffle(order)
            for way in order:
                env = {**os.environ, **ways[way], "POKEBATTLE_STATE": str(state)}
                took = execute(autolog if way == USUAL else plain, options, env)
                helpers = settle(state)
                if number:
                    seconds[way][number] = took
    return [row(name, way, seconds[way], seconds["off"], helpers) for way in ways if way != "off"]


def row(name: str, way: str, on: dict[int, float], off: dict[int, float], helpers: Sequence[float]) -> str:
    """Return one line of the table."""
    added = [on[number] - off[number] for number in on]
    low, high = interval(added, statistics.median)
    cells = [
        f"{name:<12} {way:<17} {len(added):>5}",
        f"{statistics.median(off[number] for number in on):>8.2f} {statistics.median(on.values()):>8.2f}",
        f"{statistics.median(added):>+8.2f} {f'[{low:+.2f}, {high:+.2f}]':>18}",
        f"{statistics.median(on[number] / off[number] for number in on):>7.3f}",
        f"{'-' if way == USUAL else f'{statistics.median(helpers):.2f}':>7}",
    ]
    return " ".join(cells)


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
            ways = {"off": off, "pokebattle": on, USUAL: off}
            head = f"{'notebook':<12} {'tracked by':<17} {'pairs':>5} {'off s':>8} {'on s':>8} {'added s':>8}"
            say(f"{head} {'95 % interval':>18} {'ratio':>7} {'helper':>7}\n")
            train = nbformat.read(ROOT / "notebooks" / "train.ipynb", as_version=4)
            for name, notebook, options in (("trivial", trivial(), []), ("train v3", train, ["-p", "version", "v3"])):
                for line in compare(name, notebook, options, pairs, ways):
                    say(line + "\n")
                    sys.stdout.flush()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
