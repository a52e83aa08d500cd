"""How much tracking adds to a whole papermill command: a notebook of one cell, and the training of v3."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
from comparison import Figure, added, costlier, level, quantity, ratio, rounds
from stage import Stage, stage

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "notebooks" / "train.ipynb"
PAPERMILL = Path(sys.executable).parent / "papermill"
USUAL = "mlflow.autolog()"


def notebook(*sources: str, **metadata: Any) -> Any:
    """Return a notebook of code cells."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)), metadata=kernel | metadata)


def with_autolog(document: Any) -> Any:
    """Return the notebook with ``mlflow.autolog()`` and an experiment as its first cell."""
    source = "import mlflow\nmlflow.set_experiment('usual-way')\nmlflow.autolog()"
    document = nbformat.from_dict(json.loads(json.dumps(document)))
    document.cells.insert(0, nbformat.v4.new_code_cell(source))
    document.metadata.pop("pokebattle", None)  # the names and schema there are for our tracking
    return document


def write(folder: Path, name: str, document: Any) -> Path:
    """Write a notebook and return its path."""
    nbformat.write(document, folder / name)
    return folder / name


def execute(
    path: Path,
    folder: Path,
    env: dict[str, str],
    options: Sequence[str] = (),
    watch: Callable[[subprocess.Popen[bytes]], object] | None = None,
) -> float:
    """Execute a notebook with papermill in ``folder`` and return its wall time in seconds.

    Parameters
    ----------
    path : Path
        The notebook.
    folder : Path
        Working folder, also for the output and papermill's log.
    env : dict
        Environment of the command.
    options : sequence of str
        More options of papermill.
    watch : callable, optional
        Called with the process while it runs.

    Raises
    ------
    RuntimeError
        If papermill fails.
    """
    command = [str(PAPERMILL), str(path), str(folder / "out.ipynb"), "--no-progress-bar", *options]
    log = folder / "papermill.log"
    with log.open("wb") as output:
        began = time.perf_counter()
        with subprocess.Popen(command, env=env, cwd=folder, stdout=output, stderr=output) as process:
            try:
                if watch:
                    watch(process)
                process.wait()
            except BaseException:  # an interrupted benchmark does not wait for papermill
                process.kill()
                raise
        took = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"papermill {path.name} failed: {log.read_text(errors='replace')[-2000:]}")
    return took


def trivial(pairs: int) -> list[Figure]:
    """Measure what tracking adds to a notebook of one cell."""
    with stage() as setup:
        return _compare("trivial", setup, notebook("1 + 1"), (), pairs, added_limit=0.2, ratio_limit=1.02)


def train(pairs: int) -> list[Figure]:
    """Measure what tracking adds to the training of v3, and what ``mlflow.autolog()`` adds."""
    with stage() as setup:
        document, v3 = nbformat.read(TRAIN, as_version=4), ("-p", "version", "v3")
        limits = {"added_limit": 4.0, "ratio_limit": 1.06, "off_limit": 45.0, "usual_limit": 2.0}
        return _compare("train v3", setup, document, v3, pairs, **limits)


def _compare(
    name: str,
    setup: Stage,
    document: Any,
    options: Sequence[str],
    pairs: int,
    added_limit: float,
    ratio_limit: float,
    off_limit: float | None = None,
    usual_limit: float | None = None,
) -> list[Figure]:
    plain = write(setup.folder, "plain.ipynb", document)
    autolog = write(setup.folder, "autolog.ipynb", with_autolog(document))

    def way(path: Path, env: dict[str, str]) -> Callable[[], dict[str, float]]:
        return lambda: {"s": execute(path, setup.folder, env, options)}

    ways = {"off": way(plain, setup.off), "on": way(plain, setup.on), USUAL: way(autolog, setup.off)}
    values = rounds(ways, pairs, setup.settle, sparse={USUAL})
    off, on, usual = (quantity(values[way], "s") for way in ways)
    figures = [added(name, "s", off, on, added_limit)]
    figures.append(ratio(f"{name}: tracked / untracked", "", off, on, ratio_limit))
    if off_limit is not None:
        figures.append(level(f"{name}: untracked", "s", off, off_limit))
    figures.append(added(f"{name}: {USUAL}", "s", off, usual))
    if usual_limit is not None:
        figures.append(costlier(f"{name}: its added / ours", "s", off, on, usual, usual_limit))
    spent = [record["cpu_seconds"] for record in setup.closed().values()][1:]
    return [*figures, level(f"{name}: sender's processor", "s", dict(enumerate(spent, 1)))]
