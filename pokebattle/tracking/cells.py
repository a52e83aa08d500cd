"""What a notebook and the text of its cells say, wherever they are read."""

import re
from typing import Any

from pokebattle.assignments import UNKNOWN, assignments

NO_TRACK = "# no-track"
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # the colours of a traceback


def wants_tracking(document: dict[str, Any]) -> bool:
    """Tell whether a notebook's metadata does not say ``{"pokebattle": {"track": false}}``."""
    metadata = document.get("metadata", {})
    own = metadata.get("pokebattle")
    switch = own.get("track") if isinstance(own, dict) else metadata.get("pokebattle.track")
    return switch is not False


def is_untracked(source: str) -> bool:
    """Tell whether a cell's first line is ``# no-track``."""
    lines = source.lstrip().splitlines()
    return bool(lines) and lines[0].strip().lower() == NO_TRACK


def without_secrets(document: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook without outputs and without the text of cells that are not to be tracked."""
    cells = []
    for cell in document.get("cells", []):
        hidden = cell.get("cell_type") == "code" and is_untracked(cell_source(cell))
        cell = {**cell, "source": NO_TRACK} if hidden else dict(cell)
        cell.pop("attachments", None)
        if "outputs" in cell:
            cell["outputs"] = []
        cells.append(cell)
    return {**document, "cells": cells} if cells else document


def cell_source(cell: dict[str, Any]) -> str:
    """Return a cell's source as one string."""
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def literals(source: str) -> dict[str, Any]:
    """Return what a parameters cell assigns at top level, as far as it is literal."""
    return {name: value for name, _, value in assignments(source) if value is not UNKNOWN}
