"""How the notebooks are written and stored."""

import ast
import re
import string
from pathlib import Path

import nbformat
import pytest

from pokebattle.params import Params, validate

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
CONTROL = re.compile(r"(?P<name>[a-z]\w*): (?P<type>int|float|str|bool) = (?P<value>[^#]+?)  # \S.*")
LINK_OR_ID = re.compile(r"\S*://\S+|\b[0-9a-f]{32}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
RUN_ADDRESS = re.compile(r"#/(?:experiments|models)|127\.0\.0\.1|localhost|\b[0-9a-f]{32}\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|tmp|work|private|var|opt)/\S*")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    stored = nbformat.read(request.param, as_version=4)
    nbformat.validate(stored)
    stored.path = request.param
    return stored


@pytest.fixture
def cells(notebook):
    """The code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def plain(cell):
    """Plain text in a cell's outputs, stderr included."""
    return [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell.outputs]


def html(cell):
    return [output.get("data", {}).get("text/html", "") for output in cell.outputs]


def test_title_comes_first(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")


def test_parameters_cell_contains_the_version_and_typed_controls(notebook, cells):
    assert [number for number, cell in enumerate(cells) if "parameters" in tags(cell)] == [0]
    lines = cells[0].source.splitlines()
    assert lines[0].startswith('version: str = "sample"  # ')
    for line in lines:
        declared = CONTROL.fullmatch(line)
        assert declared, line
        assert isinstance(ast.literal_eval(declared["value"]), (int, float, str, bool))
    assert validate(notebook.path.name, cells[0].source, {}).version == "sample"
    assert any("load_params(globals()" in cell.source for cell in cells)


def test_metadata_declares_schema_kernel_and_names(notebook, cells):
    declared = notebook.metadata.pokebattle
    assert declared.schema == "params"
    assert notebook.metadata.kernelspec.name == "python3"
    known = {*Params.model_fields, *(CONTROL.fullmatch(line)["name"] for line in cells[0].source.splitlines())}
    for template in (declared.experiment, declared.run_name):
        assert {field for _, field, *_ in string.Formatter().parse(template) if field} <= known


def test_no_classes_at_most_one_function_and_short_cells(cells):
    trees = [ast.parse(cell.source) for cell in cells]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    assert not [node.name for node in nodes if isinstance(node, ast.ClassDef)]
    assert len([node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]) <= 1
    assert [cell.source for cell in cells if len(cell.source.splitlines()) > 15] == []


def test_executed_from_top_to_bottom_without_errors(cells):
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [output for cell in cells for output in cell.outputs if output.output_type == "error"] == []


def test_every_output_is_compared_unless_it_is_a_link_or_id(cells):
    for cell in cells:
        assert not {"nbval-skip", "nbval-raises-exception", "raises-exception"} & set(tags(cell))
        assert "NBVAL_" not in cell.source
        shown = "\n".join(plain(cell))
        if "nbval-ignore-output" in tags(cell):
            assert len(ast.parse(cell.source).body) == 1, "what is not compared is a cell of its own"
            assert not re.search(r"\d\.\d", LINK_OR_ID.sub("", shown)), "a result that is not compared"
        else:
            assert LINK_OR_ID.findall(shown) == []
            assert RUN_ADDRESS.findall("\n".join(html(cell))) == []  # an estimator's links to its manual may stay


def test_figures_stand_beside_their_numbers(cells):
    numbered = [bool(re.search(r"\d", re.sub(r"<.*>", "", "".join(plain(cell))))) for cell in cells]
    for number, cell in enumerate(cells):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert any(numbered[max(number - 1, 0):number + 2]), cell.source


def test_no_path_of_a_machine_is_stored(notebook, cells):
    stored = [cell.source for cell in notebook.cells] + [text for cell in cells for text in plain(cell) + html(cell)]
    assert [path for text in stored for path in MACHINE_PATH.findall(text)] == []
