"""What is read from a notebook's cells without executing them: parameters, tags, the switches of tracking."""

from typing import Any

import pytest

from nbtrack.cells import (
    NO_TRACK,
    cell_source,
    chosen_experiment,
    is_untracked,
    literals,
    only_assigns,
    tags_of_cell,
    wants_tracking,
    without_secrets,
)
from nbtrack.parameters_cell import UNKNOWN, assignments

Found = list[tuple[str, str | None, Any]]
ASSIGNMENTS: dict[str, tuple[str, Found, bool]] = {  # text, what it assigns, whether it only assigns literals
    "an integer": ("a = 1", [("a", None, 1)], True),
    "numbers": ("a = -1\nb = 1e-3\nc = 1_000", [("a", None, -1), ("b", None, 0.001), ("c", None, 1000)], True),
    "texts": ("a = 'x'\nb = '''y\nz'''", [("a", None, "x"), ("b", None, "y\nz")], True),
    "a list and a dict": (
        "a = [1, (2, 3)]\nb = {'c': None}",
        [("a", None, [1, (2, 3)]), ("b", None, {"c": None})],
        True,
    ),
    "a type": ("a: int = 1", [("a", "int", 1)], True),
    "a type in quotes": ("a: 'int | None' = None", [("a", "int | None", None)], True),
    "a longer type": ("a: list[str] = ['x']", [("a", "list[str]", ["x"])], True),
    "a type without a value": ("a: int", [("a", "int", UNKNOWN)], False),
    "two names": ("a = b = 1", [("a", None, 1), ("b", None, 1)], True),
    "a tuple": ("a, b = 1, 2", [("a", None, UNKNOWN), ("b", None, UNKNOWN)], False),
    "a name again": ("a = 1\na = 2", [("a", None, 1), ("a", None, 2)], True),
    "two in a line, a comment": ("a = 1; b = 2  # c = 3", [("a", None, 1), ("b", None, 2)], True),
    "a sum": ("a = 1 + 1", [("a", None, UNKNOWN)], False),
    "a complex number": ("a = 1 + 2j", [("a", None, 1 + 2j)], True),
    "a call": ("a = f()", [("a", None, UNKNOWN)], False),
    "another name": ("a = b", [("a", None, UNKNOWN)], False),
    "a text with a value in it": ("a = f'{b}'", [("a", None, UNKNOWN)], False),
    "a dict with a list as key": ("a = {[]: 1}", [("a", None, UNKNOWN)], False),
    "an element": ("a[b] = 1", [], True),
    "an attribute": ("a.b = 1", [], True),
    "an attribute with a type": ("a.b: int = 1", [], True),
    "a change": ("a = 1\na += 1", [("a", None, 1)], False),
    "an import": ("import os\na = 1", [("a", None, 1)], False),
    "a docstring": ("'''Text.'''\na = 1", [("a", None, 1)], False),
    "inside of a condition": ("if True:\n    a = 1", [], False),
    "inside of a function": ("def f():\n    a = 1", [], False),
    "an expression": ("(a := 1)", [], False),
    "a magic": ("%matplotlib inline\na = 1", [], False),
    "no Python": ("a = ", [], False),
    "a null character": ("a = 1\0", [], False),
    "a comment": ("# a = 1", [], False),
    "nothing": ("", [], False),
}


@pytest.mark.parametrize(("source", "assigned", "only"), ASSIGNMENTS.values(), ids=ASSIGNMENTS)
def test_what_a_parameters_cell_assigns(source: str, assigned: Found, only: bool) -> None:
    assert list(assignments(source)) == assigned
    assert literals(source) == {name: value for name, _, value in assigned if value is not UNKNOWN}


@pytest.mark.parametrize(("source", "assigned", "only"), ASSIGNMENTS.values(), ids=ASSIGNMENTS)
def test_which_cells_only_assign_literals(source: str, assigned: Found, only: bool) -> None:
    assert only_assigns(source) is only


DEEP = {"brackets": f"{20_000 * '['}1{20_000 * ']'}", "a sum": f"1{20_000 * '+1'}", "signs": f"{20_000 * '-'}1"}


@pytest.mark.parametrize("value", DEEP.values(), ids=DEEP)
def test_a_text_that_python_cannot_read_assigns_nothing(value: str) -> None:
    source = f"a = {value}"
    assert list(assignments(source)) == [] and not only_assigns(source)
    cells = [{"cell_type": "code", "source": text} for text in (source, "mlflow.set_experiment('e')")]
    assert chosen_experiment({"cells": cells}, {}) == "e"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, set()),
        ({"tags": []}, set()),
        ({"tags": ["a", "b", "a"]}, {"a", "b"}),
        ({"tags": ["a", 1, None, ["b"]]}, {"a"}),
        ({"tags": "parameters"}, set()),
        ({"tags": None}, set()),
        ({"tags": {"a": 1}}, set()),
    ],
)
def test_a_cells_tags(metadata: dict[str, Any], expected: set[str]) -> None:
    assert tags_of_cell({"cell_type": "code", "metadata": metadata}) == expected


def test_a_cell_without_metadata_has_no_tags() -> None:
    assert tags_of_cell({}) == set()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, True),
        ({"pokebattle": {}}, True),
        ({"pokebattle": {"track": True}}, True),
        ({"pokebattle": {"track": False}}, False),
        ({"pokebattle": {"track": 0}}, True),
        ({"pokebattle": {"track": "false"}}, True),
        ({"pokebattle": {"track": None}}, True),
        ({"pokebattle.track": False}, False),
        ({"pokebattle.track": True}, True),
        ({"pokebattle": {"experiment": "e"}, "pokebattle.track": False}, True),
        ({"pokebattle": {"track": False}, "pokebattle.track": True}, False),
        ({"pokebattle": "text"}, True),
        ({"pokebattle": None, "pokebattle.track": False}, False),
    ],
)
def test_a_notebooks_own_switch(metadata: dict[str, Any], expected: bool) -> None:
    assert wants_tracking({"cells": [], "metadata": metadata}) is expected


def test_a_notebook_without_metadata_is_tracked() -> None:
    assert wants_tracking({})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# no-track", True),
        ("# no-track\npassword = 'x'", True),
        ("\n\n  # no-track  \nx", True),
        ("# NO-TRACK\r\nx", True),
        ("x = 1\n# no-track", False),
        ("# no-track please", False),
        ("#no-track", False),
        ("x = 1  # no-track", False),
        ("", False),
        (" \n", False),
    ],
)
def test_which_cells_are_not_recorded(source: str, expected: bool) -> None:
    assert is_untracked(source) is expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ({"source": "a\nb"}, "a\nb"),
        ({"source": ["a\n", "b"]}, "a\nb"),
        ({"source": []}, ""),
        ({"source": ""}, ""),
        ({}, ""),
    ],
)
def test_a_cells_text(cell: dict[str, Any], expected: str) -> None:
    assert cell_source(cell) == expected


SHOWN = {"output_type": "stream", "name": "stdout", "text": "a"}
CELLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "outputs": ({"cell_type": "code", "source": "a", "outputs": [SHOWN]}, {"source": "a", "outputs": []}),
    "attachments": ({"cell_type": "markdown", "source": "a", "attachments": {"a.png": {}}}, {"source": "a"}),
    "a cell that is not recorded": ({"cell_type": "code", "source": [NO_TRACK, "\nx"]}, {"source": NO_TRACK}),
    "a text of that kind": ({"cell_type": "markdown", "source": f"{NO_TRACK}\nx"}, {"source": f"{NO_TRACK}\nx"}),
    "other fields": ({"cell_type": "code", "source": "a", "id": "i"}, {"source": "a", "id": "i"}),
}


@pytest.mark.parametrize(("cell", "left"), CELLS.values(), ids=CELLS)
def test_what_is_left_of_a_cell(cell: dict[str, Any], left: dict[str, Any]) -> None:
    given = {"cells": [cell], "metadata": {"a": 1}}
    before = repr(given)
    assert without_secrets(given) == {"cells": [{"cell_type": cell["cell_type"]} | left], "metadata": {"a": 1}}
    assert repr(given) == before


@pytest.mark.parametrize("document", [{}, {"cells": []}])
def test_a_notebook_without_cells_stays_as_it_is(document: dict[str, Any]) -> None:
    assert without_secrets(document) is document
