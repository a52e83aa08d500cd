"""Searches for sequences that give something else when they are tracked, and makes them small."""

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from compare import Difference, Verdict
from faults import FaultProxy
from hypothesis import HealthCheck, Phase, given, seed, settings
from machine import Machine, Place, on_postgres, on_sqlite
from sequences import Sequence, keeping, pasted, paths, sequences

ENOUGH = 1  # new kinds of differences after which others should hear of them
TRIES = 24  # executions that making one failing sequence smaller may cost
PLACES = {  # share of the sequences
    "sqlite": 0.45,
    "sqlite 0": 0.05,
    "sqlite 90": 0.13,
    "sqlite 400": 0.04,
    "postgres": 0.18,
    "postgres 0": 0.03,
    "postgres 90": 0.09,
    "postgres 400": 0.03,
}


def shrink(machine: Machine, sequence: Sequence, kind: str, tries: int = TRIES) -> tuple[Sequence, Verdict | None]:
    """Return a small sequence that still shows this kind of difference, and what it shows.

    Calls are taken out by halves, quarters, and so on, down to single ones.
    """
    kept, best, size = paths(sequence), None, 0
    size = len(kept)
    while size >= 1 and tries > 0:
        size = (size + 1) // 2 if size > 1 else 0
        for start in range(len(kept) - 1, -1, -max(size, 1)):
            fewer = [*kept[: max(0, start - max(size, 1) + 1)], *kept[start + 1 :]]
            candidate = keeping(sequence, set(fewer))
            if not candidate.cells or tries <= 0 or len(fewer) == len(kept):
                continue
            tries -= 1
            verdict = machine.run(candidate)
            if kind in {difference.kind for difference in verdict.differences}:
                kept, best = fewer, verdict
        if size == 1:
            break
    return keeping(sequence, set(kept)), best


@dataclass
class Results:
    """What a search has found.

    Attributes
    ----------
    counts : Counter
        Sequences, those with differences, and how much was compared.
    kinds : Counter
        Sequences by the kinds of differences that they showed.
    shown : dict
        For every new kind what it looks like.
    seconds : dict
    """

    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    shown: dict[str, str] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Results") -> None:
        """Add the results of another search."""
        self.counts += other.counts
        self.kinds += other.kinds
        self.seconds += other.seconds
        self.shown = other.shown | self.shown


def examine(machine: Machine, sequence: Sequence, results: Results, known: set[str]) -> None:
    """Execute a sequence; what it shows for the first time is made small."""
    verdict = machine.run(sequence)
    results.counts += verdict.counts + Counter(sequences=1, differing=bool(verdict.differences))
    results.kinds.update({difference.kind for difference in verdict.differences})
    fresh = [difference for difference in verdict.differences if difference.kind not in known]
    if fresh:
        small, again = shrink(machine, sequence, fresh[0].kind, TRIES)
        shown = again.differences if again else verdict.differences
        known |= {difference.kind for difference in [*fresh, *shown]}
        results.shown[fresh[0].kind] = report(machine.place, small, shown)


def report(place: Place, sequence: Sequence, differences: list[Difference]) -> str:
    """Say what a sequence shows, with its cells."""
    text = "\n".join(f"  {difference}" for difference in differences[:6])
    return f"{place.name}: {len(differences)} differences\n{text}\n{pasted(sequence)}"


def search(
    folder: Path, nursery: Path, place: Place, count: int, number: int, until: float, known: set[str]
) -> Results:
    """Execute so many sequences on a place, or as many as there is time for until ``until`` of `time.time`."""
    folder.mkdir(exist_ok=True)
    results, machine = Results(), Machine(folder, nursery, place)

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(sequences())
    def each(sequence: Sequence) -> None:
        if time.time() < until and len(results.shown) < ENOUGH:
            examine(machine, sequence, results, known)

    each()
    results.seconds = Counter(machine.seconds)
    return results


def places(folder: Path, wanted: list[str], stack: contextlib.ExitStack) -> dict[str, Place]:
    """Start the servers and proxies that are asked for."""
    real: dict[str, Place] = {}
    for kind, start in (("sqlite", on_sqlite), ("postgres", on_postgres)):
        if any(name.startswith(kind) for name in wanted):
            real[kind] = stack.enter_context(start(folder))
    place_of = {}
    for name in wanted:
        kind, _, delay = name.partition(" ")
        place_of[name] = real[kind]
        if delay:
            proxy = stack.enter_context(FaultProxy(real[kind].uri))
            place_of[name] = real[kind].by(proxy, int(delay) / 1000)
    return place_of
