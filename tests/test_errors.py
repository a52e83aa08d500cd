"""Errors that a user can correct: one line in notebooks, with the nearest valid name."""

import pytest

from pokebattle.datasets.csv_reader import TablesError, plain
from pokebattle.engine import EngineError
from pokebattle.errors import UserError, did_you_mean
from pokebattle.params import ParamsError
from pokebattle.registry.stages import RegistryError


@pytest.mark.parametrize("kind", [UserError, TablesError, EngineError, ParamsError, RegistryError])
def test_a_notebook_shows_one_line(kind: type[UserError]) -> None:
    assert kind("version: unknown")._render_traceback_() == [f"{kind.__name__}: version: unknown"]


@pytest.mark.parametrize(
    ("got", "names", "cutoff", "expected"),
    [
        ("sampel", ["sample", "v3"], 0.6, "; did you mean sample?"),
        ("sampel", ["v3", ""], 0.6, ""),
        ("  POKEMON name", ["Pokemon Name", "id"], 0.6, "; did you mean Pokemon Name?"),
        (7, ["70", "v3"], 0.6, "; did you mean 70?"),
        ("abcd", ["abxy"], 0.6, ""),
        ("abcd", ["abxy"], 0.5, "; did you mean abxy?"),
    ],
)
def test_the_hint_is_the_original_name(got: object, names: list[str], cutoff: float, expected: str) -> None:
    assert did_you_mean(got, names, cutoff, plain) == expected
