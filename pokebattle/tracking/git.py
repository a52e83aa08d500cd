"""The commit a notebook ran from, and whether anything that counts had changed since."""

import json
import subprocess
from pathlib import Path


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def code_version(folder: Path) -> tuple[str, bool] | None:
    """Return commit and dirty flag of the checkout that holds ``folder``; None outside of one.

    Dirty means that a tracked file differs from the commit; a notebook of which only outputs differ does not count.
    """
    commit, top = _git(folder, "rev-parse", "HEAD"), _git(folder, "rev-parse", "--show-toplevel")
    if commit is None or top is None:
        return None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no", "-z") or ""
    changed = [entry[3:] for entry in status.split("\0") if len(entry) > 3]
    root = Path(top.strip())
    return commit.strip(), any(not _only_outputs_changed(root, path) for path in changed)


def _only_outputs_changed(root: Path, path: str) -> bool:
    if not path.endswith(".ipynb"):
        return False
    committed = _git(root, "show", f"HEAD:{path}")
    try:
        return committed is not None and _sources(committed) == _sources((root / path).read_text("utf-8"))
    except (OSError, ValueError, KeyError):
        return False


def _sources(notebook: str) -> list[tuple[str, str, tuple[str, ...]]]:
    cells = json.loads(notebook)["cells"]
    return [(cell["cell_type"], "".join(cell["source"]), tuple(cell["metadata"].get("tags", []))) for cell in cells]
