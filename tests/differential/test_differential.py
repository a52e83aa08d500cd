"""Sequences of MLflow calls give the same tracked as plain: those that once did not, and some that Hypothesis builds.

`make differential` is the long search.
"""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples import EXAMPLES
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from kernels import Nursery
from machine import Machine, on_sqlite
from search import report
from sequences import Sequence, sequences

COUNT = 12  # sequences that Hypothesis builds


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """What executes sequences on a server of its own, in a folder whose path is short enough for sockets."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="d", dir="/tmp")))
        nursery = stack.enter_context(Nursery(folder))
        place = stack.enter_context(on_sqlite(folder))
        (folder / "w").mkdir()
        yield Machine(folder / "w", nursery.address, place)


@pytest.mark.parametrize("name", EXAMPLES)
def test_gives_the_same_tracked_as_plain(machine: Machine, name: str) -> None:
    verdict = machine.run(EXAMPLES[name])
    assert verdict.counts["values"] + verdict.counts["exceptions"] > 0
    assert verdict.differences == [], report(machine.place, EXAMPLES[name], verdict.differences)


def test_sequences_that_hypothesis_builds_give_the_same(machine: Machine) -> None:
    counts: Counter[str] = Counter()

    @seeded(16)
    @settings(max_examples=COUNT, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(sequences())
    def examine(sequence: Sequence) -> None:
        verdict = machine.run(sequence)
        counts.update(verdict.counts)
        assert verdict.differences == [], report(machine.place, sequence, verdict.differences)

    examine()
    assert counts["values"] > COUNT and counts["entities"] > 0, counts
