"""Measures alternatives in turns and summarises them: a median, its interval, whether it meets the target."""

import random
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SPARSE = 5  # a sparse way is measured in every fifth round
DRAWS = 2000
DECIMALS = {"s": 2, "ms": 2, "MB": 1, "": 2}  # by unit; "" is no unit, as for a ratio

Values = dict[int, dict[str, float]]  # round -> quantity -> value
Statistic = Callable[[Sequence[Any]], float]


@dataclass(frozen=True)
class Target:
    """A limit for a median: at most ``limit``, or at least ``limit``."""

    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Return whether ``value`` meets the target."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """One row of the result table.

    Attributes
    ----------
    name, unit : str
    kind : str
        What the median is taken of: ``added`` (differences within a round), ``ratio`` (ratios within a round) or
        ``median`` (plain values).
    value, low, high : float
        The median with its 95 % bootstrap interval.
    n : int
        Number of rounds.
    sides : tuple of float
        Medians of the two compared sides over the same rounds; empty for a plain median.
    target : Target, optional
    raw : dict
        Every measured value, by side and round.
    """

    name: str
    unit: str
    kind: str
    value: float
    low: float
    high: float
    n: int
    sides: tuple[float, ...] = ()
    target: Target | None = None
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None without a target."""
        return None if self.target is None else self.target.met(self.value)


def rounds(
    ways: Mapping[str, Callable[[], dict[str, float]]],
    pairs: int,
    idle: Callable[[], Any],
    sparse: Collection[str] = (),
) -> dict[str, Values]:
    """Measure every way once per round, in a random order with a fixed seed.

    Parameters
    ----------
    ways : mapping of str to callable
        Each executes once and returns the measured quantities by name.
    pairs : int
        Number of rounds that count. One more round before them warms the caches.
    idle : callable
        Waits until earlier executions have finished; called before each execution and at the end.
    sparse : collection of str
        Ways that are measured only in every fifth round.

    Returns
    -------
    dict
        Way -> round -> quantity -> value.
    """
    values: dict[str, Values] = {way: {} for way in ways}
    for number in range(pairs + 1):
        order = [way for way in ways if way not in sparse or number == 0 or number % SPARSE == 1]
        random.Random(number).shuffle(order)
        for way in order:
            idle()
            measured = ways[way]()
            if number:
                values[way][number] = measured
    idle()
    return values


def quantity(values: Values, name: str) -> dict[int, float]:
    """Return the values of one quantity by round."""
    return {number: measured[name] for number, measured in values.items()}


def interval(values: Sequence[Any], statistic: Statistic = statistics.median) -> tuple[float, float]:
    """Return a 95 % percentile bootstrap interval of ``statistic``."""
    draw = random.Random(0)
    drawn = sorted(statistic(draw.choices(values, k=len(values))) for _ in range(DRAWS))
    return drawn[DRAWS // 40], drawn[DRAWS - DRAWS // 40 - 1]


def added(name: str, unit: str, off: dict[int, float], on: dict[int, float], target: float | None = None) -> Figure:
    """Return the median of the differences within a round, on minus off."""
    return _paired(name, unit, "added", off, on, [on[n] - off[n] for n in on], _limit(target))


def ratio(name: str, unit: str, base: dict[int, float], other: dict[int, float], target: float | None) -> Figure:
    """Return the median of the ratios within a round, other over base."""
    return _paired(name, unit, "ratio", base, other, [other[n] / base[n] for n in other], _limit(target))


def level(name: str, unit: str, values: dict[int, float], target: float | None = None) -> Figure:
    """Return the median of plain values."""
    plain = list(values.values())
    low, high = interval(plain)
    raw = {"values": values}
    return Figure(name, unit, "median", statistics.median(plain), low, high, len(plain), (), _limit(target), raw)


def costlier(
    name: str, unit: str, off: dict[int, float], ours: dict[int, float], usual: dict[int, float], target: float
) -> Figure:
    """Return what the usual way adds over what ours adds: the ratio of the two median differences.

    The usual way is measured in fewer rounds. So the bootstrap draws rounds with it and rounds without it separately;
    the values of one round stay together.
    """
    both = [(ours[n] - off[n], usual[n] - off[n]) for n in ours if n in usual]
    single = [(ours[n] - off[n], None) for n in ours if n not in usual]

    def times(rows: Sequence[Any]) -> float:
        our_median = statistics.median(row[0] for row in rows)
        their_median = statistics.median(row[1] for row in rows if row[1] is not None)
        # if ours adds nothing, any cost is infinitely higher
        return their_median / our_median if our_median > 0 else float("inf")

    draw = random.Random(0)
    drawn = sorted(
        times(draw.choices(both, k=len(both)) + (draw.choices(single, k=len(single)) if single else []))
        for _ in range(DRAWS)
    )
    rows = both + single
    sides = (statistics.median(row[0] for row in rows), statistics.median(row[1] for row in both))
    low, high = drawn[DRAWS // 40], drawn[DRAWS - DRAWS // 40 - 1]
    return Figure(name, unit, "ratio", times(rows), low, high, len(both), sides, Target(target, at_least=True))


def _limit(target: float | None) -> Target | None:
    return None if target is None else Target(target)


def _paired(
    name: str,
    unit: str,
    kind: str,
    off: dict[int, float],
    on: dict[int, float],
    paired: list[float],
    target: Target | None,
) -> Figure:
    low, high = interval(paired)
    sides = (statistics.median(off[n] for n in on), statistics.median(on.values()))
    raw = {"without": off, "with": on}
    return Figure(name, unit, kind, statistics.median(paired), low, high, len(paired), sides, target, raw)
