"""Reconstructs an execution's notebook from its journal, one cell at a time."""

import base64
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from nbtrack import events
from nbtrack.cells import Places
from nbtrack.files import to_json

KERNELSPEC = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
MINIMAL: dict[str, Any] = {"cells": [], "metadata": KERNELSPEC, "nbformat": 4, "nbformat_minor": 5}

Mask = Callable[[Any], Any]
Entry = dict[str, Any]  # a ``cell`` of the notebook and its last ``run``


class ExecutedCell:
    """One execution of a cell: its source, the positions of its outputs in the journal, how it ended.

    Parameters
    ----------
    event : mapping
        A `CellStart`, or what is known of it.
    """

    def __init__(self, event: Mapping[str, Any]) -> None:
        self.id, self.source, self.started = event.get("cell_id"), event["source"], event["time"]
        self.untracked = bool(event.get("untracked"))
        self.beside = bool(event.get("beside"))  # a subshell's request, not one of the notebook's cells
        self.may_fail = bool(event.get("may_fail"))
        self.key: str | int = self.id or ""  # the same for all executions of one cell of the notebook
        self.left_to = 0  # the attempt that its results belong to, if it is not the last one
        self.output_offsets: list[int] = []
        self.displays: set[str] = set()  # ids of outputs that a later cell may update
        self.count: int | None = event.get("execution_count")  # the number that the front end shows
        self.ended: int | None = None
        self.seconds: float | None = None
        self.ok = False
        self.error: dict[str, Any] | None = None

    def note_output(self, offset: int, event: events.Output) -> None:
        """Record the position of an output, and keep its error if it is one.

        Parameters
        ----------
        offset : int
            Byte in the journal.
        event : Output
        """
        self.output_offsets.append(offset)
        if display_id := (event["content"].get("transient") or {}).get("display_id"):
            self.displays.add(display_id)
        if event["output"] == "error":
            self.error = {key: event["content"].get(key) for key in ("ename", "evalue", "traceback")}

    def end(self, event: events.CellEnd) -> None:
        """Record how the execution ended.

        Parameters
        ----------
        event : CellEnd
        """
        self.ended, self.seconds = event["time"], event["seconds"]
        self.count = self.count if event["execution_count"] is None else event["execution_count"]
        self.ok = event["ok"]
        self.source = event.get("source", self.source)  # without secrets that the cell itself has added
        if not self.ok and self.error is None:
            self.error = {"ename": event["error"] or "Error", "evalue": "", "traceback": []}

    @property
    def failed(self) -> bool:
        """Whether it ended with an unexpected error."""
        orderly = self.error and self.error["ename"] == "SystemExit" and self.error["evalue"] in {"", "0"}
        return self.ended is not None and not (self.ok or self.may_fail or orderly)

    def outputs(self, journal: BinaryIO) -> list[dict[str, Any]]:
        """Return the outputs in nbformat's form, combined as a client that shows the cell combines them.

        Parameters
        ----------
        journal : file object
            The journal, open in binary mode.
        """
        shown: list[dict[str, Any]] = []
        clear_later = False
        for offset in self.output_offsets:
            journal.seek(offset)
            event = json.loads(journal.readline())
            kind, content = event["output"], event["content"]
            if kind == "clear_output":
                clear_later = bool(content.get("wait"))
                if not clear_later:
                    shown.clear()
            elif kind == "update_display_data":
                _update(shown, content)
            else:
                if clear_later:
                    shown.clear()
                    clear_later = False
                _add(shown, kind, content)
        for output in shown:
            output.pop("transient", None)
            if isinstance(text := output.get("text"), list):
                output["text"] = "".join(text)
        return shown


def _add(outputs: list[dict[str, Any]], kind: str, content: dict[str, Any]) -> None:
    if kind == "stream":
        if outputs and outputs[-1].get("name") == content["name"]:
            outputs[-1]["text"].append(content["text"])
        else:
            outputs.append({"output_type": "stream", "name": content["name"], "text": [content["text"]]})
        return
    output = {"output_type": kind, **content}
    if not (content.get("transient") or {}).get("display_id"):
        output.pop("transient", None)
    outputs.append(output)


def _update(outputs: list[dict[str, Any]], content: dict[str, Any]) -> None:
    display_id = (content.get("transient") or {}).get("display_id")
    for output in outputs:
        if output.get("transient", {}).get("display_id") == display_id:
            output["data"], output["metadata"] = content["data"], content.get("metadata", {})


class ExecutedNotebook:
    """The notebook with the outputs of its cells, written without keeping more than one cell's outputs in memory.

    An executed cell that the document does not contain (it was injected, edited or added) is placed where it ran. If a
    cell ran more than once, its last execution counts.

    Parameters
    ----------
    folder : Path
        The execution's folder.
    document : dict
        The notebook as it was when the execution began.
    executed : list of ExecutedCell
        In the order in which they ran.
    mask : function
        Masks secrets in any part of a notebook.
    """

    def __init__(self, folder: Path, document: dict[str, Any], executed: list[ExecutedCell], mask: Mask) -> None:
        self.folder, self.executed, self.mask = folder, executed, mask
        self.document = {**MINIMAL, **document}
        self.cells: list[tuple[dict[str, Any], ExecutedCell | None]] = []
        self._fill()

    def _fill(self) -> None:
        """Assign every executed cell to its position."""
        places, with_ids = Places(self.document), self.document["nbformat_minor"] >= 5
        saved: list[Entry] = [{"cell": cell} for cell in self.document["cells"]]
        entries, before = list(saved), -1
        added: dict[str | None, Entry] = {}
        for run in self.executed:
            place = places.find(run.id, run.source)
            entry: Entry | None = added.get(run.id) if place is None else saved[place]
            if entry is None:
                name = {"id": f"ran-{before + 1}-{run.started}"} if with_ids else {}
                entry = {"cell": {"cell_type": "code", **name, "metadata": {}}}
                entries.insert(before + 1, entry)
                if run.id:
                    added[run.id] = entry
            entry["run"] = run
            before = next(index for index, other in enumerate(entries) if other is entry)
        self.cells = [(entry["cell"], entry.get("run")) for entry in entries]

    @property
    def ran_again(self) -> bool:
        """Whether a cell ran more than once, so that the notebook does not show all outputs."""
        return sum(run is not None for _, run in self.cells) < len(self.executed)

    def in_order(self) -> "ExecutedNotebook":
        """Return a notebook with every execution of every cell, in the order of execution."""
        every = ExecutedNotebook(self.folder, {**self.document, "cells": []}, [], self.mask)
        every.cells = [
            ({"cell_type": "code", "id": f"ran-{turn}", "metadata": {}}, run) for turn, run in enumerate(self.executed)
        ]
        return every

    def cells_with_outputs(self) -> Iterator[dict[str, Any]]:
        """Yield the notebook's cells with their outputs, secrets masked."""
        with (self.folder / "journal.jsonl").open("rb") as journal:
            for cell, run in self.cells:
                # papermill's record of the cell, which it completes as it runs; "seconds" has the same information
                metadata = {key: value for key, value in cell.get("metadata", {}).items() if key != "papermill"}
                filled = {**cell, "metadata": metadata}
                if cell.get("cell_type") == "code":
                    filled |= {"outputs": [], "execution_count": None}
                if run:
                    filled |= {"source": run.source, "execution_count": run.count, "outputs": run.outputs(journal)}
                    if run.seconds is not None:
                        metadata["seconds"] = run.seconds
                yield self.mask(filled)

    def chunks(self) -> Iterator[bytes]:
        """Yield the notebook's file in pieces."""
        rest = self.mask({key: value for key, value in self.document.items() if key != "cells"})
        yield b'{\n "cells": ['
        for number, cell in enumerate(self.cells_with_outputs()):
            text = to_json(cell, indent=1, ensure_ascii=False)
            yield (",\n" if number else "\n").encode() + text.encode("utf-8", "replace")
        yield b"\n ],\n" + to_json(rest, indent=1, ensure_ascii=False)[2:].encode("utf-8", "replace") + b"\n"

    def figures(self) -> Iterator[tuple[str, bytes, int]]:
        """Yield the PNG images among the outputs.

        Yields
        ------
        name : str
            File name with the execution count of the cell that drew it.
        picture : bytes
        attempt : int
            The attempt that it belongs to; 0 for the last one.
        """
        drawn: Counter[int] = Counter()
        for (_, run), cell in zip(self.cells, self.cells_with_outputs(), strict=True):
            pictures = [output.get("data", {}).get("image/png") for output in cell.get("outputs", [])]
            for encoded in filter(None, pictures):
                count = cell.get("execution_count") or 0
                drawn[count] += 1
                name = f"cell_{count:02d}{f'_{drawn[count]}' if drawn[count] > 1 else ''}.png"
                with contextlib.suppress(ValueError, TypeError):  # a cell may output anything as a picture
                    picture = base64.b64decode(encoded if isinstance(encoded, str) else "".join(encoded))
                    yield name, picture, run.left_to if run else 0
