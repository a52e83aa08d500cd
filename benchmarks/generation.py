"""How fast battles are fought: per CPU second, against the untouched engine, and with two workers against one.

``python benchmarks/generation.py [--rounds 5]`` prints a table in the format of `tracking.py`.

- Battles per CPU second: user and system time of the whole process tree, with Dask and Python. Time counts from the
  first chunk on, so start-up is left out.
- The untouched engine answers the same requests in the same process, so the ratio does not depend on the machine.
- Two workers against one: the ratio of battles per second of wall time, also from the first chunk on. It is only
  meaningful on a quiet machine. It is measured twice: with one core per worker, which shows what doubling costs, and
  with all cores for one worker, whose JavaScript engine then has a free core for its helper threads (garbage
  collection, compilation) that two workers need themselves.
"""

import argparse
import contextlib
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil
from comparison import Figure, Target, level, quantity, ratio, rounds
from tracking import HEAD, line

from pokebattle.engine import run_battles
from pokebattle.engine.process import EngineProcess, Request
from pokebattle.game import matchups as battles

POLICIES = ("best_move", "random_move")
N_BATTLES = 20  # per matchup, as in the training part of a battle set
N_CHUNKS = {1: 8, 2: 48}  # by number of workers: chunks for the CPU rate, chunks for the comparison of wall times
N_COMPARED = 50  # matchups for the comparison with the untouched engine
LEAST_RATE, LEAST_SPEEDUP = 1500, 1.8


def cpu() -> float:
    """Return the user and system time, in seconds, of this process and of its running descendants."""
    current = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in [current, *current.children(recursive=True)])


class Meter:
    """Counts battles and time between the first and the last fought chunk: a `progress` for `fight`."""

    def __init__(self) -> None:
        self.n_battles, self.began, self.ended = -1, (0.0, 0.0), (0.0, 0.0)

    def __call__(self, n_battles: int) -> None:
        """Record a finished chunk."""
        if not n_battles:
            return
        self.ended = cpu(), time.monotonic()
        if self.n_battles < 0:
            self.n_battles, self.began = 0, self.ended
        else:
            self.n_battles += n_battles

    def rates(self) -> dict[str, float]:
        """Return battles per CPU second (`rate`) and per second of wall time (`pace`)."""
        seconds = [ended - began for began, ended in zip(self.began, self.ended, strict=True)]
        return {"rate": self.n_battles / seconds[0], "pace": self.n_battles / seconds[1]}


@contextlib.contextmanager
def confined(n_cores: int) -> Iterator[None]:
    """Let this process and its child processes use only ``n_cores`` cores (Linux)."""
    before = os.sched_getaffinity(0)
    _confine(sorted(before)[:n_cores])
    try:
        yield
    finally:
        _confine(before)


def _confine(cores: Iterable[int]) -> None:
    for thread in psutil.Process().threads():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread.id, cores)


def fought(policy: str, n_chunks: int, n_workers: int, n_cores: int) -> dict[str, float]:
    """Fight some chunks; return the rates, without start-up."""
    matchups = battles.matchups(policy).sample(n_chunks * run_battles.CHUNK_BATTLES // N_BATTLES, random_state=0)
    meter = Meter()
    with confined(n_cores), tempfile.TemporaryDirectory() as folder:
        run_battles.fight(
            matchups, N_BATTLES, stream="training", cache=Path(folder), n_workers=n_workers, progress=meter
        )
    return meter.rates()


def answered(process: EngineProcess, request: Request) -> dict[str, float]:
    """Send a request to a running engine; return the CPU milliseconds per battle."""
    began = cpu()
    process.ask(request)
    return {"each": (cpu() - began) * 1000 / len(request["matchups"]) / request["n_battles"]}


def compare(n_rounds: int) -> list[Figure]:
    """Measure all ways in turns and return the rows of the table."""
    n_all = len(os.sched_getaffinity(0))
    with EngineProcess() as process:
        ways: dict[str, Callable[[], dict[str, float]]] = {}
        for policy in POLICIES:
            some = battles.matchups(policy).sample(N_COMPARED, random_state=0)
            request = run_battles._request(some, N_BATTLES, "training")
            ways[f"{policy}, quick"] = lambda asked=request: answered(process, asked)
            ways[f"{policy}, plain"] = lambda asked=request | {"plain": True}: answered(process, asked)
            ways[policy] = lambda named=policy: fought(named, N_CHUNKS[1], 1, n_all)
        for n_workers, n_cores in ((1, 1), (1, n_all), (2, 2)):
            ways[f"{n_workers} on {n_cores}"] = lambda workers=n_workers, cores=n_cores: fought(
                "best_move", N_CHUNKS[2], workers, cores
            )
        values = rounds(ways, n_rounds, lambda: None)
    figures = []
    for policy in POLICIES:
        rate = level(f"{policy}: battles a CPU second", "", quantity(values[policy], "rate"))
        figures.append(dataclasses.replace(rate, target=Target(LEAST_RATE, at_least=True)))
        plain, quick = (quantity(values[f"{policy}, {how}"], "each") for how in ("plain", "quick"))
        figures.append(ratio(f"{policy}: untouched engine / ours", "ms", quick, plain, None))
    alone, free, two = (quantity(values[on], "pace") for on in ("1 on 1", f"1 on {n_all}", "2 on 2"))
    gain = ratio("battles a second: two workers on two cores / one on one", "", alone, two, None)
    figures.append(dataclasses.replace(gain, target=Target(LEAST_SPEEDUP, at_least=True)))
    return [*figures, ratio(f"battles a second: two workers on two cores / one on {n_all}", "", free, two, None)]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default 5)")
    options = parser.parse_args()
    _say(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f} before the start")
    _say(HEAD)
    for figure in compare(options.rounds):
        _say(line(figure))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
