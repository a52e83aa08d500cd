"""The stored outputs are a reference: a wrong digit in any of them is noticed. nbval itself tests that they are reproduced."""

import json
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
REPLAY = """
import sys
from IPython.display import display

class Stored:
    def __init__(self, data):
        self.data = data

    def _repr_mimebundle_(self, **options):
        return self.data

for output in {others}:
    if output["output_type"] == "stream":
        getattr(sys, output["name"]).write(output["text"])
    else:
        display(output["data"], raw=True)
{result}
"""
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)")


def test_the_notebooks_are_there():
    assert {"train", "explore", "simulate"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_wrong_last_digit_fails_at_its_cell(path, nbval):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        cell.source = replayed(cell.outputs)
    changed = [f"Cell {number}" for number, cell in enumerate(cells) if change_last_digit(cell)]
    assert changed, "no printed number is compared"
    passed, failed = nbval(notebook)
    assert failed == changed
    assert len(passed) + len(failed) == len(cells)


def replayed(outputs):
    """Return code that puts out the same without computing it."""
    others = [output for output in outputs if output.output_type != "execute_result"]
    result = "".join(f"Stored({dict(output.data)!r})" for output in outputs if output.output_type == "execute_result")
    return REPLAY.format(others=json.loads(json.dumps(others)), result=result)


def change_last_digit(cell):
    """Change the last digit of the last number that a cell prints; False without one, or if not compared."""
    if "nbval-ignore-output" in cell.metadata.get("tags", []):
        return False
    for output in reversed(cell.outputs):
        holder, key = (output, "text") if output.get("name") == "stdout" else (output.get("data", {}), "text/plain")
        numbers = list(NUMBER.finditer(holder.get(key, "")))
        if numbers and "image/png" not in holder:
            text, end = holder[key], numbers[-1].end()
            holder[key] = text[:end - 1] + str((int(text[end - 1]) + 1) % 10) + text[end:]
            return True
    return False
