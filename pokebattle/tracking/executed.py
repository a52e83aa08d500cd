"""Puts an execution's notebook together again from its journal."""

import base64
from typing import Any

from pokebattle.tracking.context import cell_source

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
MINIMAL = {"cells": [], "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}


class ExecutedCell:
    """One execution of one cell: its source, its outputs as nbformat stores them, its end."""

    def __init__(self, event: dict[str, Any]) -> None:
        self.id, self.source, self.started = event.get("cell_id"), event["source"], event["time"]
        self.outputs: list[dict[str, Any]] = []
        self.count: int | None = None
        self.ended: int | None = None
        self.seconds: float | None = None
        self.ok = False
        self.error: dict[str, Any] | None = None
        self._clear_later = False

    def end(self, event: dict[str, Any]) -> None:
        """Note how the execution ended."""
        self.count, self.ended, self.seconds = event["execution_count"], event["time"], event["seconds"]
        self.ok = event["ok"]
        if not self.ok and self.error is None:
            self.error = {"ename": event["error"] or "Error", "evalue": "", "traceback": []}

    def output(self, kind: str, content: dict[str, Any]) -> None:
        """Take in one message, as a client that shows the cell would."""
        if kind == "clear_output":
            self._clear_later = bool(content.get("wait"))
            if not self._clear_later:
                self.outputs.clear()
            return
        if kind == "update_display_data":
            self._update(content)
            return
        if self._clear_later:
            self.outputs.clear()
            self._clear_later = False
        if kind == "stream" and self.outputs and self.outputs[-1].get("name") == content["name"]:
            self.outputs[-1]["text"] += content["text"]
            return
        if kind == "error":
            self.error = {key: content[key] for key in ("ename", "evalue", "traceback")}
        transient = content.get("transient") or {}
        output = {"output_type": kind, **{key: value for key, value in content.items() if key != "transient"}}
        if transient.get("display_id"):
            output["transient"] = transient
        self.outputs.append(output)

    def _update(self, content: dict[str, Any]) -> None:
        display_id = (content.get("transient") or {}).get("display_id")
        for output in self.outputs:
            if output.get("transient", {}).get("display_id") == display_id:
                output["data"], output["metadata"] = content["data"], content.get("metadata", {})


def executed_notebook(document: dict[str, Any], executed: list[ExecutedCell]) -> dict[str, Any]:
    """Return the notebook with what its cells gave.

    An executed cell that the document does not hold (it was injected, edited or added) stands where it ran;
    of a cell that ran more than once the last time counts.
    """
    notebook = {**MINIMAL, **document, "cells": [dict(cell) for cell in document.get("cells", [])]}
    for cell in notebook["cells"]:
        if cell.get("cell_type") == "code":
            cell["outputs"], cell["execution_count"] = [], None
    position = -1
    for run in executed:
        found = _find(notebook["cells"], run, position)
        if found is None:
            found = position + 1
            notebook["cells"].insert(found, {"cell_type": "code", "id": f"ran-{found}-{run.started}", "metadata": {}})
        position = found
        cell = notebook["cells"][found]
        cell["source"], cell["execution_count"] = run.source, run.count
        cell["outputs"] = [{k: v for k, v in output.items() if k != "transient"} for output in run.outputs]
        if run.seconds is not None:
            cell["metadata"] = {**cell.get("metadata", {}), "seconds": run.seconds}
    return notebook


def _find(cells: list[dict[str, Any]], run: ExecutedCell, after: int) -> int | None:
    """Return the index of the cell that was run: by id, else the next one of the same text, else any."""
    candidates = [index for index, cell in enumerate(cells) if cell.get("cell_type") == "code"]
    if run.id:
        return next((index for index in candidates if cells[index].get("id") == run.id), None)
    same = [index for index in candidates if cell_source(cells[index]).strip() == run.source.strip()]
    return next((index for index in same if index > after), same[0] if same else None)


def figures(notebook: dict[str, Any]) -> dict[str, bytes]:
    """Return the pictures among the outputs, named by the cell that drew them."""
    found: dict[str, bytes] = {}
    for index, cell in enumerate(notebook["cells"]):
        for output in cell.get("outputs", []):
            if encoded := output.get("data", {}).get("image/png"):
                name = f"cell_{index:02d}.png"
                while name in found:
                    name = name.replace(".png", "_next.png")
                found[name] = base64.b64decode(encoded)
    return found
