"""An execution's commit, uncommitted changes and packages."""

import contextlib
import functools
import json
import platform
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from nbtrack.cells import INJECTED, cell_source, tags_of_cell, without_secrets
from nbtrack.files import read_json, write_atomically
from nbtrack.provenance import (
    cells_diff,
    changed_files,
    checkout,
    code_diff,
    committed_cells,
    head,
    installed,
    is_committed,
    lock_digest,
)
from nbtrack.secrets import MASK, Masker
from nbtrack.sender.executed_notebook import ExecutedCell

PIECE = re.compile(r"^(?=diff --git |# )", re.MULTILINE)  # where a file's part of a patch begins
FILE = re.compile(r"(?:diff --git a/.* b/|# in no commit: )(?P<path>.*)")
NOT_SHOWN = "# not shown: something in it is masked"


class Provenance:
    """Which code was executed, according to git.

    Parameters
    ----------
    folder : Path
        The execution's folder, which stores what was found when the execution began.
    start : dict
        The journal's first event.
    masker : Masker
        Masks secrets in patches.
    """

    def __init__(self, folder: Path, start: dict[str, Any], masker: Masker) -> None:
        self.file, self.masker = folder / "code.json", masker
        path = Path(start["notebook"])
        self.path = path if path.is_absolute() else None  # otherwise it may be an address
        self.notebook = self.path.resolve() if self.path and self.path.suffix == ".ipynb" else None
        self.place = self.path.parent if self.path else Path(start["cwd"])
        self.prefix = start.get("prefix")
        self.used: dict[str, set[str]] = {}

    @functools.cached_property
    def at_start(self) -> dict[str, Any]:
        """Commit, dirty flag, lock, Python, packages and ``diff`` (without the notebook) when the execution began.

        The notebook itself is judged by the cells that ran: its file may lack cells that run and contain cells that do
        not.
        """
        if known := read_json(self.file):
            return known
        commit = head(self.place)
        changed = changed_files(self.place, commit) if commit else []
        unknown = bool(commit and self.path and not is_committed(self.path))
        recorded = {
            "commit": commit,
            "dirty": bool(changed) or unknown,
            "unknown": unknown,
            "diff": self._diff(commit, changed),
            "lock": lock_digest(self.place),
            "later": {},
            "python": platform.python_version() if self.prefix else "",
            "packages": installed(Path(self.prefix)) if self.prefix else [],
        }
        self._keep(recorded)
        return recorded

    def _keep(self, recorded: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the disk is full
            write_atomically(self.file, json.dumps(recorded))

    def _diff(self, commit: str, changed: Sequence[Path]) -> str:
        """Return the patch of all differences except the notebook's."""
        if not any(path != self.notebook for path in changed):
            return ""
        return self.masker.text(code_diff(self.place, commit, self.notebook)) or "# something differs\n"

    def recheck(self, attempt: int) -> None:
        """Record the differences from the commit when an attempt begins: modules may have been edited and reloaded.

        Parameters
        ----------
        attempt : int
            The attempt, from 1.
        """
        later = self.at_start.setdefault("later", {})
        if self.at_start.get("commit") and str(attempt) not in later:
            changed = changed_files(self.place, self.at_start["commit"])
            later[str(attempt)] = self._diff(self.at_start["commit"], changed)
            self._keep(self.at_start)

    @functools.cached_property
    def committed(self) -> list[dict[str, Any]] | None:
        """The code cells of the committed notebook, without those marked ``# no-track``; None if no commit has it."""
        commit = self.at_start.get("commit")
        cells = committed_cells(self.notebook, commit) if self.notebook and commit else None
        return None if cells is None else without_secrets({"cells": cells}).get("cells", [])

    def use(self, pattern: str, paths: Iterable[str]) -> None:
        """Let changes of the files that match a pattern count only if they are among these.

        Parameters
        ----------
        pattern : str
            Absolute path with wildcards.
        paths : iterable of str
            Absolute paths. Those of earlier calls with the same pattern count, too.
        """
        self.used.setdefault(pattern, set()).update(paths)

    def _of_used_files(self, diff: str) -> str:
        """Return a patch without the files that match a pattern of `use` and are not used."""
        top = checkout(self.place) if self.used and diff else None
        if top is None:
            return diff
        kept = []
        for piece in PIECE.split(diff):
            path = FILE.match(piece)
            file = str(top / path["path"]) if path else ""
            if all(file in used or not fnmatch(file, pattern) for pattern, used in self.used.items()):
                kept.append(piece)
        return "".join(kept)

    def contains(self, source: str) -> bool:
        """Return whether the committed notebook contains a cell that ran; true if there is no committed notebook.

        Parameters
        ----------
        source : str
            The executed text.
        """
        return self.committed is None or any(_same(source, cell_source(cell)) for cell in self.committed)

    def that_ran(self, cells: Sequence[tuple[dict[str, Any], ExecutedCell | None]], attempt: int) -> tuple[bool, str]:
        """Return whether the executed code differs from the commit, and the patch.

        Parameters
        ----------
        cells : list of tuple
            The notebook's cells with their last executions.
        attempt : int
            The last attempt.

        Returns
        -------
        dirty : bool
        patch : str
        """
        recorded = self.at_start
        if not recorded.get("commit"):
            return False, ""
        diff = self._of_used_files(str(recorded.get("later", {}).get(str(attempt), recorded["diff"])))
        if recorded.get("unknown") and self.path:
            return True, f"# notebook that no commit holds: {self.path.name}\n{diff}"
        if self.notebook is None or self.committed is None:
            return bool(diff), diff
        patch = self.masker.text(cells_diff(self.notebook, *_texts(self.committed, cells)))
        return bool(patch or diff), patch + diff


def _texts(
    committed: Sequence[dict[str, Any]], cells: Sequence[tuple[dict[str, Any], ExecutedCell | None]]
) -> tuple[list[str], list[str]]:
    """Return the texts of the committed cells and of those that ran, without secrets.

    A cell that did not run counts as unchanged. What is masked in an executed cell may be unmasked in the committed
    one.
    """
    before, after = [cell_source(cell) for cell in committed], []
    ids = {cell["id"]: number for number, cell in enumerate(committed) if "id" in cell}
    for cell, run in cells:
        if cell.get("cell_type") != "code" or INJECTED in tags_of_cell(cell):
            continue
        number = ids.get(cell.get("id"), -1)
        source = run.source if run else before[number] if number >= 0 else cell_source(cell)
        same = next((text for text in before if _same(source, text)), None)
        if MASK in source and same is None and number >= 0:
            before[number] = NOT_SHOWN
        if run or same is not None:
            after.append(source if same is None else same)
    return before, after


def _same(ran: str, committed: str) -> bool:
    """Return whether two texts are equal except where the executed one is masked."""
    ran, committed = ran.strip(), committed.strip()
    if MASK not in ran:
        return ran == committed
    return re.fullmatch(".*".join(map(re.escape, ran.split(MASK))), committed, re.DOTALL) is not None
