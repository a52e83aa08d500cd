"""Check out a commit in a separate folder, and apply a run's uncommitted changes to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pokebattle.errors import UserError
from pokebattle.paths import checkout


class WorktreeError(UserError):
    """A commit or its changes cannot be restored. The message is one line."""


@contextlib.contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """Check out a commit in a temporary folder. Files, index and branch of the checkout stay unchanged.

    Parameters
    ----------
    commit : str

    Yields
    ------
    Path
        The folder, which is deleted afterwards.

    Raises
    ------
    WorktreeError
        If the package does not run from a checkout, the checkout does not contain the commit, or git fails.
    """
    root = checkout()
    if root is None:
        raise WorktreeError("this package does not run from a checkout with commits")
    if _git(root, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise WorktreeError(f"commit {commit[:12]} is missing here: `git fetch` a branch that contains it")
    with tempfile.TemporaryDirectory(prefix="pokebattle-again-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / "checkout"
        added = _git(root, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(folder), commit)
        if added is None:
            raise WorktreeError(f"git cannot check out commit {commit[:12]}")
        try:
            yield folder
        finally:
            _git(root, "worktree", "remove", "--force", str(folder))


def apply_patch(folder: Path, patch: str) -> list[str]:
    """Apply the uncommitted changes of a run.

    Parameters
    ----------
    folder : Path
        A checkout of the run's commit.
    patch : str
        Content of the run's `code.patch`.

    Returns
    -------
    list of str
        Files that the patch names but does not contain.

    Raises
    ------
    WorktreeError
        If the patch is incomplete or does not apply.
    """
    lines = patch.splitlines(keepends=True)
    if cut := [line for line in lines if line.startswith("# cut:")]:
        raise WorktreeError(f"code.patch is incomplete ({cut[0][2:].strip()})")
    named = [line[2:].strip() for line in lines if line.startswith(("# in no commit:", "# notebook that no commit"))]
    start = next((number for number, line in enumerate(lines) if line.startswith("diff --git ")), None)
    if start is not None and (fault := _apply(folder, "".join(lines[start:]))):
        raise WorktreeError(f"code.patch does not apply to the commit ({fault})")
    return named


def _apply(folder: Path, text: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "apply", "--whitespace=nowarn"],
        input=text,
        text=True,
        capture_output=True,
        check=False,
        env=_environment(),
    )
    return " ".join(done.stderr.split())[:200] if done.returncode else ""


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, env=_environment()
    )
    return done.stdout if done.returncode == 0 else None


def _environment() -> dict[str, str]:
    """Return the environment without git's variables, which can point to another repository (as inside a hook)."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
