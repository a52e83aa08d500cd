"""Read a notebook's cells, and match each executed cell to its cell in the notebook."""

import ast
import re
from typing import Any

from nbtrack.parameters_cell import UNKNOWN, assignments, statements

NO_TRACK = "# no-track"
METADATA_KEY = "pokebattle"  # the key of nbtrack's settings in a notebook's metadata
TRACK_KEY = "pokebattle.track"  # the key of the switch in a notebook without these settings
PARAMETERS, INJECTED = "parameters", "injected-parameters"  # the tags of papermill's cells
PARAMETER_TAGS = {PARAMETERS, INJECTED}
MAY_FAIL = "raises-exception"  # the tag of a cell that is expected to fail
NEUTRAL = (  # functions that neither use nor look up an experiment: one chosen after them may be created before them
    "active_run",
    "autolog",
    "disable_",
    "enable_",
    "end_run",
    "from_",
    "get_tracking_uri",
    "infer_signature",
    "is_tracking_uri_set",
    "last_active_run",
    "MlflowClient",
    "set_registry_uri",
    "set_system_metrics",
)
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # the colours of a traceback


def wants_tracking(document: dict[str, Any]) -> bool:
    """Return whether a notebook may be tracked: its metadata do not contain ``{"pokebattle": {"track": false}}``.

    Parameters
    ----------
    document : dict
        The notebook's JSON.
    """
    metadata = document.get("metadata", {})
    settings = metadata.get(METADATA_KEY)
    switch = settings.get("track") if isinstance(settings, dict) else metadata.get(TRACK_KEY)
    return switch is not False


def is_untracked(source: str) -> bool:
    """Return whether a cell's first line is ``# no-track``.

    Parameters
    ----------
    source : str
        The cell's text.
    """
    lines = source.lstrip().splitlines()
    return bool(lines) and lines[0].strip().lower() == NO_TRACK


def without_secrets(document: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook without outputs, attachments and the source of cells marked ``# no-track``.

    Parameters
    ----------
    document : dict
        The notebook's JSON; it is not modified.
    """
    cells = []
    for cell in document.get("cells", []):
        hidden = cell.get("cell_type") == "code" and is_untracked(cell_source(cell))
        cell = {**cell, "source": NO_TRACK} if hidden else dict(cell)
        cell.pop("attachments", None)
        if "outputs" in cell:
            cell["outputs"] = []
        cells.append(cell)
    return {**document, "cells": cells} if cells else document


class Places:
    """Finds the position in the notebook of each executed cell, in the order in which the cells ran.

    A cell id of the notebook's own identifies a cell with certainty. If the client sends no id, or an id that no file
    can contain (VS Code's, or JupyterLab's for a notebook older than nbformat 4.5), the position is that of the next
    cell with the same text, otherwise of an earlier one.

    Parameters
    ----------
    document : dict
        The notebook's JSON.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.cells: list[dict[str, Any]] = document.get("cells", [])
        self._code = [index for index, cell in enumerate(self.cells) if cell.get("cell_type") == "code"]
        self._ids = {self.cells[index]["id"]: index for index in self._code if "id" in self.cells[index]}
        self._handles: dict[str, int] = {}  # position by an id that only the client knows
        self._after = -1

    def find(self, cell_id: str | None, source: str) -> int | None:
        """Return the position of the next executed cell among all cells.

        Parameters
        ----------
        cell_id : str or None
            The id that the client sent.
        source : str
            The executed text.

        Returns
        -------
        int or None
            None if the notebook does not contain the cell.
        """
        if cell_id in self._ids:
            place: int | None = self._ids[cell_id]
        elif cell_id and self._ids and ":" not in cell_id:  # a cell that was added after the notebook was saved
            return None
        elif cell_id in self._handles:
            place = self._handles[cell_id]
        else:
            place = self._alike(source)
            if cell_id and place is not None:
                self._handles[cell_id] = place
        self._after = self._after if place is None else place
        return place

    def _alike(self, source: str) -> int | None:
        taken = set(self._handles.values())
        same = [
            index
            for index in self._code
            if index not in taken and cell_source(self.cells[index]).strip() == source.strip()
        ]
        return next((index for index in same if index > self._after), same[0] if same else None)

    def rank(self, place: int) -> int:
        """Return how many code cells are above a position.

        Parameters
        ----------
        place : int
            Position among all cells, from 0.
        """
        return sum(index < place for index in self._code)


def cell_source(cell: dict[str, Any]) -> str:
    """Return a cell's source as one string.

    Parameters
    ----------
    cell : dict
        The cell's JSON.
    """
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def tags_of_cell(cell: dict[str, Any]) -> set[str]:
    """Return a cell's tags; an empty set if its metadata contain no valid list of tags.

    Parameters
    ----------
    cell : dict
        The cell's JSON.
    """
    tags = cell.get("metadata", {}).get("tags", [])
    return {tag for tag in tags if isinstance(tag, str)} if isinstance(tags, list) else set()


def literals(source: str) -> dict[str, Any]:
    """Return the literal values that a parameters cell assigns at top level, by name.

    Parameters
    ----------
    source : str
        The cell's text.
    """
    return {name: value for name, _, value in assignments(source) if value is not UNKNOWN}


def chosen_experiment(document: dict[str, Any], values: dict[str, Any]) -> str | None:
    """Return the experiment that a notebook chooses with ``mlflow.set_experiment`` before it uses or looks up any.

    The run is created in it at once. A cell that looks up the experiment before it chooses it must not find what
    tracking has created, so nothing is returned then.

    Parameters
    ----------
    document : dict
        The notebook's JSON.
    values : dict
        Values of the variables that may be passed to ``set_experiment``.

    Returns
    -------
    str or None
        None if there is no such call, or if its argument is neither a string nor a variable with a known value.
    """
    known = dict(values)
    for cell in document.get("cells", []):
        for statement in _statements(cell) if cell.get("cell_type") == "code" else ():
            for name, call in _mlflow_calls(statement):
                if name == "mlflow.set_experiment":
                    return _first_text(call, known)
                if "experiment" in name or not name.rpartition(".")[2].startswith(NEUTRAL):
                    return None
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
                known |= {
                    target.id: statement.value.value
                    for target in statement.targets
                    if isinstance(target, ast.Name) and target.id not in values
                }
    return None


def _statements(cell: dict[str, Any]) -> list[ast.stmt]:
    lines = cell_source(cell).splitlines()
    return statements("\n".join("" if line.lstrip()[:1] in {"%", "!"} else line for line in lines))


def _mlflow_calls(statement: ast.stmt) -> list[tuple[str, ast.Call]]:
    """Return a statement's calls of mlflow functions, and of all calls about experiments, in the text's order."""
    calls = [(ast.unparse(node.func), node) for node in ast.walk(statement) if isinstance(node, ast.Call)]
    matching = [(name, call) for name, call in calls if name.startswith("mlflow.") or "experiment" in name]
    return sorted(matching, key=lambda one: (one[1].lineno, one[1].col_offset))


def _first_text(call: ast.Call, known: dict[str, Any]) -> str | None:
    given = next((word.value for word in call.keywords if word.arg == "experiment_name"), None)
    argument = call.args[0] if call.args else given
    value = argument.value if isinstance(argument, ast.Constant) else None
    if isinstance(argument, ast.Name):
        value = known.get(argument.id)
    return value if isinstance(value, str) and value else None


def only_assigns(source: str) -> bool:
    """Return whether a cell only assigns literal values.

    Parameters
    ----------
    source : str
        The cell's text.
    """
    body = statements(source)
    plain = all(isinstance(statement, ast.Assign | ast.AnnAssign) for statement in body)
    return bool(body) and plain and all(value is not UNKNOWN for _, _, value in assignments(source))
