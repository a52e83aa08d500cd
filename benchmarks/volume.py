"""Whether the outputs of a big notebook are kept in memory a second time beside its kernel."""

import subprocess
from pathlib import Path

from commands import execute, notebook, write
from comparison import Figure, added, level, quantity, rounds
from processes import Peaks
from stage import Stage, stage

CELLS, LINES = 1000, 1000  # lines of 100 characters: 100 KB per cell, 100 MB in all
ONCE = ["--no-request-save-on-cell-execute"]  # otherwise papermill writes the whole notebook twice per cell: hours
SHARE = 10  # a peak hardly varies, so a tenth of the rounds is enough


def compare(pairs: int) -> list[Figure]:
    """Measure a notebook of 1,000 cells that print 100 MB of text in total."""
    sources = [f"print(('{number:04d} ' + 'x' * 94 + '\\n') * {LINES}, end='')" for number in range(CELLS)]
    with stage() as setup:
        path = write(setup.folder, "big.ipynb", notebook(*sources))
        ways = {"off": lambda: peaks(setup, path, setup.off), "on": lambda: peaks(setup, path, setup.on)}
        values = rounds(ways, max(pairs // SHARE, min(pairs, 2)), setup.settle)
    off, on = values["off"], values["on"]
    return [
        level("big notebook: sender's peak", "MB", quantity(on, "helper"), 60),
        added("big notebook: kernel's peak", "MB", quantity(off, "kernel"), quantity(on, "kernel")),
        added("big notebook: wall time", "s", quantity(off, "wall"), quantity(on, "wall")),
    ]


def peaks(setup: Stage, path: Path, env: dict[str, str]) -> dict[str, float]:
    """Execute a notebook; return its wall time (s) and the peak memory (MB) of its kernel and its sender."""
    watched: list[Peaks] = []

    def watch(process: subprocess.Popen[bytes]) -> None:
        watched.append(Peaks(setup.state, besides=process.pid))
        watched[0].until(lambda: process.poll() is not None)

    wall = execute(path, setup.folder, env, ONCE, watch=watch)
    watched[0].until(lambda: not setup.open_executions())
    return {"wall": wall, "kernel": watched[0].kernel, "helper": watched[0].helper}
