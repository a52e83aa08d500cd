"""The long search for differences between tracked and plain notebooks.

``python tests/differential/differential.py [--sequences 5000] [--workers 8] [--seed N]`` builds sequences of calls,
executes each plain and tracked on real servers, and prints every kind of difference once, with a small sequence found
that shows it as cells to paste, and how much was compared. It exits with 1 when there was a difference. It starts
servers of its own and leaves nothing behind.
"""

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import click

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "nbtrack"), str(HERE.parent / "kernel_ports")]

from kernels import Nursery  # noqa: E402 - the modules of tests are in several folders
from machine import Place  # noqa: E402
from search import PLACES, Results, places, search  # noqa: E402

# MLflow's telemetry changes os.environ in a thread, at which a request that reads os.environ may fail.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
CHUNK = 10  # sequences that a worker executes at one go


def progress(line: str) -> None:
    """Say something on stderr, with the time."""
    click.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)


def chunks(total: int, wanted: list[str]) -> list[tuple[str, int]]:
    """Return the pieces of work, a place and a number of sequences each, so that slow ones run beside fast ones."""
    weight, parts = sum(PLACES[name] for name in wanted), []
    for name in wanted:
        left = max(1, round(total * PLACES[name] / weight))
        parts += [(name, min(CHUNK, left - done)) for done in range(0, left, CHUNK)]
    random.Random(0).shuffle(parts)
    return parts


def spread(
    work: list[tuple[str, int]],
    workers: int,
    folder: Path,
    nursery: Path,
    place_of: dict[str, Place],
    number: int,
    until: float,
) -> Results:
    """Let workers do all pieces of work; what one has shown the others do not make small again."""
    whole, busy, known = Results(), set[Future[Results]](), set[str]()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for turn, (name, count) in enumerate(work):
            if len(busy) >= workers:
                busy -= _take(wait(busy, return_when=FIRST_COMPLETED).done, whole, known)
            busy.add(
                pool.submit(search, folder / f"{turn}", nursery, place_of[name], count, number + turn, until, known)
            )
        _take(wait(busy).done, whole, known)
    return whole


def _take(done: set[Future[Results]], whole: Results, known: set[str]) -> set[Future[Results]]:
    for future in done:
        one = future.result()
        for kind, text in one.shown.items():
            if kind not in known:
                click.echo(f"\n==== {kind}\n{text}")
        known |= one.kinds.keys()
        whole.add(one)
    progress(f"{whole.counts['sequences']} sequences, {whole.counts['differing']} with differences")
    return done


def say(results: Results, seconds: float) -> None:
    """Print what was compared and found."""
    counts = [f"{count} {what}" for what, count in sorted(results.counts.items()) if what != "sequences"]
    click.echo(f"\n{results.counts['sequences']} sequences in {seconds / 60:.1f} minutes: {', '.join(counts)}")
    click.echo("seconds: " + ", ".join(f"{value:.0f} {what}" for what, value in results.seconds.items()))
    for kind, count in results.kinds.most_common():
        click.echo(f"{count:6d} {kind}")


def _stop(*_: object) -> None:
    """End the workers, so that the servers are ended, too."""
    for worker in multiprocessing.active_children():
        worker.terminate()
    sys.exit(143)


@click.command(help=__doc__)
@click.option("--sequences", "total", default=5000, show_default=True)
@click.option("--workers", default=8, show_default=True)
@click.option("--seed", "number", default=lambda: random.randrange(10**6), type=int)
@click.option("--minutes", default=600.0)
@click.option("--only", multiple=True, type=click.Choice(list(PLACES)), help="restrict it to some of the servers")
def main(total: int, workers: int, number: int, minutes: float, only: tuple[str, ...]) -> None:
    """Search on all servers and print what was found."""
    signal.signal(signal.SIGTERM, _stop)
    wanted = list(only or PLACES)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="d", dir="/tmp")))
        nursery = stack.enter_context(Nursery(folder))
        place_of = places(folder, wanted, stack)
        progress(f"seed {number}, servers are up")
        began = time.time()
        whole = spread(chunks(total, wanted), workers, folder, nursery.address, place_of, number, began + 60 * minutes)
        say(whole, time.time() - began)
    sys.exit(bool(whole.kinds))


if __name__ == "__main__":
    main()
