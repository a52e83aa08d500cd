"""The commit that a notebook ran from, what had changed since, and the packages that it ran with."""

import difflib
import getpass
import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbtrack import env_vars

DIFF_LIMIT = 1 << 20  # characters of a patch (2**20)
SOURCES = ("*.py", "*.js", "*.yaml", "*.yml", "*.toml")  # code and settings, which a run may depend on
LOCKS = ("requirements.lock", "uv.lock", "poetry.lock", "pixi.lock", "conda-lock.yml", "environment.yml")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def code_version(folder: Path) -> tuple[str, bool] | None:
    """Return commit and dirty flag of the checkout that contains ``folder``; None outside a checkout.

    Dirty means that a tracked file differs from the commit, or that code or settings are in no commit. A
    notebook whose code cells are the committed ones does not count.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    tuple of (str, bool) or None
    """
    commit = head(folder)
    return (commit, bool(changed_files(folder, commit))) if commit else None


def head(folder: Path) -> str:
    """Return the commit of the checkout that contains ``folder``; an empty string outside a checkout.

    Parameters
    ----------
    folder : Path
    """
    return (_git(folder, "rev-parse", "HEAD") or "").strip()


def checkout(folder: Path) -> Path | None:
    """Return the root of the checkout that contains ``folder``; None outside a checkout.

    Parameters
    ----------
    folder : Path
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    return None if top is None else Path(top.strip())


def changed_files(folder: Path, commit: str) -> list[Path]:
    """Return the files that make the checkout around ``folder`` dirty, compared with a commit.

    Parameters
    ----------
    folder : Path
    commit : str

    Returns
    -------
    list of Path
        Absolute paths; empty outside a checkout.
    """
    root = checkout(folder)
    if root is None:
        return []
    return [root / path for path in _changed(root, commit) + _unknown(root)]


def is_committed(file: Path) -> bool:
    """Return whether the current commit of the checkout around ``file`` contains it, in any state.

    Parameters
    ----------
    file : Path
    """
    return bool(_git(file.parent, "ls-tree", "HEAD", "--", file.name))


def code_diff(folder: Path, commit: str = "HEAD", but: Path | None = None) -> str:
    """Return a checkout's differences from a commit as a patch.

    Changed notebooks, and files that are in no commit, are only named, as notebooks contain outputs. `cells_diff`
    returns the differences of the executed notebook.

    Parameters
    ----------
    folder : Path
        Any folder of the checkout.
    commit : str
    but : Path, optional
        The executed notebook, which is not named.

    Returns
    -------
    str
        At most `DIFF_LIMIT` characters of patch, then a note that it is cut; the names of changed notebooks and new
        files come first and are not counted. Empty outside a checkout.
    """
    root = checkout(folder)
    if root is None:
        return ""
    patch = _git(root, "diff", commit, "--no-color", "--no-ext-diff", "--", ".", ":(exclude)*.ipynb") or ""
    if len(patch) > DIFF_LIMIT:
        patch = f"{patch[:DIFF_LIMIT]}\n# cut: the patch has {len(patch)} characters\n"
    changed = [path for path in _changed(root, commit) if path.endswith(".ipynb") and root / path != but]
    named = [f"# changed notebook: {path}\n" for path in changed]
    named += [f"# in no commit: {path}\n" for path in _unknown(root)]
    return "".join(named) + patch


def committed_cells(notebook: Path, commit: str) -> list[dict[str, Any]] | None:
    """Return the code cells of a notebook in a commit; None if the commit does not contain a valid notebook there.

    Parameters
    ----------
    notebook : Path
    commit : str
    """
    committed = _git(notebook.parent, "show", f"{commit}:./{notebook.name}")
    try:
        cells = json.loads(committed or "")["cells"]
        return [cell for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError):
        return None


def cells_diff(notebook: Path, committed: Sequence[str], ran: Sequence[str]) -> str:
    """Return the differences between the committed and the executed text of a notebook's code cells as a patch.

    Parameters
    ----------
    notebook : Path
        Names the notebook in the patch.
    committed, ran : sequence of str
        The cells' texts.

    Returns
    -------
    str
        Unified diff: at most `DIFF_LIMIT` characters of patch, then a note that it is cut.
    """
    name = (_git(notebook.parent, "rev-parse", "--show-prefix") or "").strip() + notebook.name
    before, after = (
        [line for source in sources for line in ["# %%", *source.rstrip().split("\n")]] for sources in (committed, ran)
    )
    lines = difflib.unified_diff(before, after, f"a/{name} (code cells)", f"b/{name} (code cells)", lineterm="")
    patch = "".join(f"{line}\n" for line in lines)
    return patch if len(patch) <= DIFF_LIMIT else f"{patch[:DIFF_LIMIT]}\n# the rest is in the executed notebook\n"


def lock_digest(folder: Path) -> str:
    """Return name and SHA-256 of the nearest lock or environment file at or above ``folder``, up to the checkout's top.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    str
        ``NAME sha256:DIGEST``; empty if there is no such file.
    """
    for parent in (folder, *folder.parents):
        for name in LOCKS:
            if (parent / name).is_file():
                return f"{name} sha256:{hashlib.sha256((parent / name).read_bytes()).hexdigest()}"
        if (parent / ".git").exists():
            break
    return ""


def installed(prefix: Path) -> list[str]:
    """Return the packages of an environment as ``name==version``, sorted, read from their ``.dist-info`` folders.

    Parameters
    ----------
    prefix : Path
        The environment's ``sys.prefix``.
    """
    folders = prefix.glob("lib/python3*/site-packages/*.dist-info")
    names = (folder.name.removesuffix(".dist-info").partition("-") for folder in folders)
    return sorted({f"{name.replace('_', '-').lower()}=={version}" for name, _, version in names})


def _changed(root: Path, commit: str) -> list[str]:
    changed = (_git(root, "diff", "--name-only", "--no-renames", "-z", commit) or "").split("\0")[:-1]
    return [path for path in changed if not _only_outputs_changed(root, path, commit)]


def _unknown(root: Path) -> list[str]:
    """Return files with code or settings that are neither committed nor ignored."""
    return (_git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *SOURCES) or "").split("\0")[:-1]


def _only_outputs_changed(root: Path, path: str, commit: str) -> bool:
    if not path.endswith(".ipynb"):
        return False
    committed = _git(root, "show", f"{commit}:{path}")
    try:
        return committed is not None and _sources(committed) == _sources((root / path).read_text("utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sources(notebook: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return what is executed of a notebook: text and tags of its code cells."""
    code = [cell for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), tuple(cell["metadata"].get("tags", []))) for cell in code]


def user_name() -> str:
    """Return the server account, else the user of this machine, or ``unknown`` if the system has none."""
    if account := os.environ.get(env_vars.USERNAME):
        return account
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
