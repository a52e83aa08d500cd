"""The long fault test: the matrix with three draws, the sender killed at random moments, many notebooks at once.

``python tests/nbtrack/chaos.py [--kills 50] [--notebooks 20] [--seed N]`` prints one table and exits with 1 when
anything was lost, doubled or wrong, when a call delayed its cell for more than 0.5 s beyond what is excused
(`test_faults.Outcome`), when a fault did not strike, and when fewer than 80 % of the kills came while something was
undelivered. It starts a server of its own and leaves nothing behind. ``--only`` restricts it to some of the faults.

Killed while behind counts the kills at which the server did not have yet what the notebook had logged.
"""

import contextlib
import functools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import click
from faults import Plan, Server
from test_faults import ROWS, Case, Outcome, allowed, execute

DRAWS = 3  # of every row of the matrix
KEPT = 0.3  # seconds that the proxy keeps every request while senders are killed
BEHIND = 0.8  # share of the kills that must come while something is undelivered
KILLED, CROWD = "kills", "crowd"  # the parts after the matrix
COLUMNS = (
    "executions",
    "strikes",
    "kills",
    "behind",
    "lost",
    "doubled",
    "wrong status",
    "wrong",
    "longest delay",
    "log_model",
)
Part = Callable[[Path, Server, random.Random], "Line"]


@dataclass
class Line:
    """One line of the table."""

    executions: int = 0
    strikes: int = 0
    kills: int = 0
    behind: int = 0
    found: Counter[str] = field(default_factory=Counter)
    delay: float = 0.0
    model: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count an outcome and say its deviations."""
        self.executions += outcome.executions
        self.strikes += outcome.strikes
        self.kills += outcome.kills
        self.delay = max(self.delay, outcome.delay)
        self.model = max(self.model, outcome.longest.get("log_model", 0.0))
        for deviation in outcome.deviations:
            kind = deviation.partition(":")[0]
            self.found[kind if kind in {"lost", "doubled", "status"} else "wrong"] += 1
            progress(f"    {deviation}")

    def __add__(self, other: "Line") -> "Line":
        return Line(
            self.executions + other.executions,
            self.strikes + other.strikes,
            self.kills + other.kills,
            self.behind + other.behind,
            self.found + other.found,
            max(self.delay, other.delay),
            max(self.model, other.model),
        )

    def faults(self) -> list[str]:
        """Return what keeps the line from being a proof."""
        messages = [f"{count} {kind}" for kind, count in self.found.items()]
        if self.delay > allowed():
            messages.append(f"a cell was delayed for {self.delay:.3f} s")
        return messages

    def vain(self, least: int) -> list[str]:
        """Return what is missing in the kills of senders, of which there must be so many."""
        messages = [f"{self.kills} of {least} kills"] if self.kills < least else []
        if self.behind < BEHIND * max(self.kills, least):
            messages.append(f"{self.behind} of {self.kills} kills while something was undelivered")
        return messages

    def words(self) -> list[str]:
        """Return the line's cells."""
        counts = [self.executions, self.strikes, self.kills, self.behind]
        counts += [self.found[kind] for kind in ("lost", "doubled", "status", "wrong")]
        return [*map(str, counts), f"{self.delay:.3f}", f"{self.model:.1f}"]


def progress(line: str) -> None:
    """Say something on stderr, with the time."""
    click.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)


def matrix(name: str, folder: Path, real: Server, rng: random.Random) -> Line:
    """Repeat a row of the matrix, with models."""
    line = Line()
    for draw in range(DRAWS):
        began = time.monotonic()
        seed = rng.randrange(10**6)
        outcome = execute(name, folder / f"{name}-{draw}", real.uri, real.database, seed, models=True)
        line.add(outcome)
        progress(f"{name}, seed {seed}: {len(outcome.deviations)} deviations, {time.monotonic() - began:.0f} s")
    return line


def strike(case: Case, plan: Plan, line: Line, moments: list[float]) -> None:
    """Kill a notebook's sender at these moments (shares of its calls, beyond 1 after its end)."""
    for moment in sorted(moments):
        case.reach(moment, plan)
        if case.kill_senders(plan):
            line.kills += 1
            line.behind += case.behind(plan)


def moments(rng: random.Random, count: int) -> list[float]:
    """Draw moments: most while the notebook logs, some in the first second and a half after its end."""
    return [rng.uniform(0.02, 1.15) for _ in range(count)]


def killed(kills: int, folder: Path, real: Server, rng: random.Random) -> Line:
    """Execute notebooks one after the other until so many senders have been killed."""
    line = Line()
    while line.kills < kills and line.executions < 2 * kills:
        place, models = folder / f"killed-{line.executions}", line.executions % 3 == 0
        with Case(place, real.uri, real.database, rng.randrange(10**6), models=models, pause=0.1) as case:
            case.answer_late(KEPT)
            case.begin()
            strike(case, case.plans[0], line, moments(rng, min(3, kills - line.kills)))
            case.end()
            finish(case, line)
        progress(f"{KILLED}: {line.kills} of {kills} kills, {line.behind} while behind")
    return line


def crowd(notebooks: int, folder: Path, real: Server, rng: random.Random) -> Line:
    """Execute many notebooks of one state folder at once, and kill the sender of each twice."""
    line = Line()
    case = Case(
        folder / "crowd", real.uri, real.database, rng.randrange(10**6), notebooks=notebooks, models=True, pause=0.1
    )

    def run(plan: Plan, when: list[float]) -> Line:
        mine = Line()
        case.begin(plan)
        strike(case, plan, mine, when)
        case.end(plan)
        progress(f"{CROWD}: {plan.stem} has ended, {mine.kills} kills, {mine.behind} while behind")
        return mine

    with case, ThreadPoolExecutor(notebooks) as pool:
        case.answer_late(KEPT)
        for mine in list(pool.map(run, case.plans, [moments(rng, 2) for _ in case.plans])):
            line += mine
        finish(case, line)
    return line


def finish(case: Case, line: Line) -> None:
    """End the fault, deliver what waits and count what is not as planned."""
    case.proxy.mode = "pass"
    case.sync()
    line.add(Outcome(case.deviations(), case.longest(), len(case.plans), excused=case.excused))


def table(lines: dict[str, Line]) -> str:
    """Return the table with its totals."""
    rows = [["fault", *COLUMNS]] + [[name, *line.words()] for name, line in lines.items()]
    rows.append(["total", *sum(lines.values(), Line()).words()])
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


@click.command(help=__doc__)
@click.option("--kills", default=50, show_default=True, help="Kills -9 of a sender.")
@click.option("--notebooks", default=20, show_default=True, help="Notebooks at once.")
@click.option("--seed", type=int, help="Of everything that is drawn; without it drawn and printed.")
@click.option("--only", multiple=True, type=click.Choice([*ROWS, KILLED, CROWD]), help="Only these.")
def main(kills: int, notebooks: int, seed: int | None, only: tuple[str, ...]) -> None:
    sys.path.append(str(Path(__file__).parents[1] / "kernel_ports"))
    from kernel_ports import reserve_ports

    reserve_ports()
    seed = random.randrange(10**6) if seed is None else seed
    progress(f"seed {seed}")
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server and the kernels are ended
    lines: dict[str, Line] = {}
    rng = random.Random(seed)
    parts: dict[str, Part] = {name: functools.partial(matrix, name) for name in ROWS}
    parts |= {KILLED: functools.partial(killed, kills), CROWD: functools.partial(crowd, notebooks)}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True)))
        real = stack.enter_context(Server(folder / "server"))
        for name, part in parts.items():
            draw = random.Random(rng.random())  # a part alone draws what it draws among the others
            if not only or name in only:
                lines[name] = part(folder, real, draw)
    click.echo(table(lines))
    wrong = [f"{name}: {message}" for name, line in lines.items() for message in line.faults()]
    if KILLED in lines:
        wrong += [f"{KILLED}: {message}" for message in lines[KILLED].vain(kills)]
    if CROWD in lines:  # a notebook may end before its second kill
        wrong += [f"{CROWD}: {message}" for message in lines[CROWD].vain(notebooks)]
    click.echo("\n".join(wrong), err=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
