"""What nbval compares under notebooks/conftest.py."""

import re
import runpy

import nbformat
import pytest


@pytest.fixture(scope="module")
def rules(root):
    return runpy.run_path(str(root / "notebooks" / "conftest.py"))


def sanitise(text, rules):
    for pattern, replacement in rules["SANITISED"].items():
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize("text", [
    "0.9421", "-1.5e-05", "17,391 matchups", "1e10", "42", "log-loss 0.133 at 17391 rows", "0x1f", "at 0x1f2e3d4c",
    "<Figure size 640x480 with 1 Axes>", "12:30:05", "2025-01-31", "accuracy 94.2 %", "3.1 s", "n=1739>",
    "   p  0.25\na  1\nb  2", "deadbeef 12345678", "[0.1, 0.2] at 0.30>",
])
def test_sanitisers_leave_results_alone(text, rules):
    assert sanitise(text, rules) == text


@pytest.mark.parametrize("value", [object(), lambda: 0, [].append, [object()]])
def test_sanitisers_take_addresses_out(value, rules):
    assert not re.search("0x[0-9a-f]", sanitise(repr(value), rules))


def test_rules_in_a_real_run(nbval):
    """Cell by cell: a source, its stored outputs, and whether nbval must fail."""
    new = nbformat.v4.new_output
    out = [new("stream", name="stdout", text="0.9421\n")]
    figure = "from IPython.display import display\n" \
             "display({'text/plain': '0.5', 'text/html': 'now', 'image/png': 'now'}, raw=True)"
    shown = {"text/plain": "0.5", "text/html": "then", "image/png": "then"}
    cells = [
        ("print(0.9421)", out, False),
        ("print(0.9422)", out, True),
        ("print(0.9421); import sys; print('busy 12 %', file=sys.stderr)", out, False),
        ("object()", [new("execute_result", {"text/plain": "<object at 0x7f0000000000>"}, execution_count=4)], False),
        (figure, [new("display_data", shown)], False),
        (figure, [new("display_data", {**shown, "text/plain": "0.6"})], True),
        ("print(0.9421)", [], True),
        ("1 / 0", [], True),
        ("pass", out, True),
    ]
    notebook = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell(source, outputs=outputs, execution_count=number)
        for number, (source, outputs, _) in enumerate(cells, 1)
    ])
    expected = [f"Cell {number}" for number, (*_, fails) in enumerate(cells) if fails]
    assert nbval(notebook)[1] == expected
