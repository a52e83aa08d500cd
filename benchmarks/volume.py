"""Whether the outputs of a big notebook are held a second time beside its kernel."""

import subprocess
from pathlib import Path

from commands import execute, notebook, write
from comparison import Figure, added, level, quantity, rounds
from processes import Peaks
from stage import Stage, stage

CELLS, LINES = 1000, 1000  # of 100 characters: 100 KB a cell, 100 MB in all
ONCE = ["--no-request-save-on-cell-execute"]  # papermill writes the whole notebook twice a cell otherwise: hours of it
SHARE = 10  # a peak hardly varies: a tenth of the rounds is enough


def compare(pairs: int) -> list[Figure]:
    """1,000 cells with 100 MB of text between them."""
    sources = [f"print(('{number:04d} ' + 'x' * 94 + '\\n') * {LINES}, end='')" for number in range(CELLS)]
    with stage() as here:
        path = write(here.folder, "big.ipynb", notebook(*sources))
        ways = {"off": lambda: peaks(here, path, here.off), "on": lambda: peaks(here, path, here.on)}
        values = rounds(ways, max(pairs // SHARE, min(pairs, 2)), here.settle)
    off, on = values["off"], values["on"]
    return [
        level("big notebook: shipper's peak", "MB", quantity(on, "helper"), 60),
        added("big notebook: kernel's peak", "MB", quantity(off, "kernel"), quantity(on, "kernel")),
        added("big notebook: wall time", "s", quantity(off, "wall"), quantity(on, "wall")),
    ]


def peaks(here: Stage, path: Path, env: dict[str, str]) -> dict[str, float]:
    """Execute a notebook; return its wall seconds and the MB of its kernel's and its shipper's peak."""
    watched: list[Peaks] = []

    def watch(process: subprocess.Popen[bytes]) -> None:
        watched.append(Peaks(here.state, besides=process.pid))
        watched[0].until(lambda: process.poll() is not None)

    wall = execute(path, here.folder, env, ONCE, watch=watch)
    watched[0].until(lambda: not here.open_executions())
    return {"wall": wall, "kernel": watched[0].kernel, "helper": watched[0].helper}
