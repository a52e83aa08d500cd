"""The stored outputs are a reference: they hold, and a wrong digit in any of them is noticed."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)")


def test_the_notebooks_are_there():
    assert {"train", "explore", "simulate"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_wrong_last_digit_fails_at_its_cell(path, nbval):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    changed = [f"Cell {number}" for number, cell in enumerate(cells) if change_last_digit(cell)]
    assert changed, "no printed number is compared"
    passed, failed = nbval(notebook)
    assert failed == changed
    assert len(passed) + len(failed) == len(cells)


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
