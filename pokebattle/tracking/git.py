"""The commit a notebook ran from, what had changed since, and the packages that it ran with."""

import hashlib
import json
import subprocess
from pathlib import Path

DIFF_LIMIT = 1 << 20  # bytes
SOURCES = ("*.py", "*.js", "*.yaml", "*.yml", "*.toml")  # code and settings, which a run may depend on
LOCKS = ("requirements.lock", "uv.lock", "poetry.lock", "pixi.lock", "conda-lock.yml", "environment.yml")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def code_version(folder: Path) -> tuple[str, bool] | None:
    """Return commit and dirty flag of the checkout that holds ``folder``; None outside of one.

    Dirty means that a tracked file differs from the commit, or that code or settings are in no commit; a notebook of
    which only outputs differ does not count.
    """
    commit, top = _git(folder, "rev-parse", "HEAD"), _git(folder, "rev-parse", "--show-toplevel")
    if commit is None or top is None:
        return None
    root = Path(top.strip())
    return commit.strip(), bool(_changed(root) or _unknown(root))


def is_committed(file: Path) -> bool:
    """Tell whether the commit of the checkout around ``file`` holds it, in whatever state."""
    return bool(_git(file.parent, "ls-tree", "HEAD", "--", file.name))


def code_diff(folder: Path) -> str:
    """Return what differs from the commit as a patch; of changed notebooks and of what no commit holds the names alone.

    Notebooks hold outputs; the one that was executed is on its run in any case. At most 1 MB.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        return ""
    root = Path(top.strip())
    patch = _git(root, "diff", "HEAD", "--no-color", "--no-ext-diff", "--", ".", ":(exclude)*.ipynb") or ""
    if len(patch) > DIFF_LIMIT:
        patch = f"{patch[:DIFF_LIMIT]}\n# cut: the patch has {len(patch)} characters\n"
    named = [f"# changed notebook: {path}\n" for path in _changed(root) if path.endswith(".ipynb")]
    named += [f"# in no commit: {path}\n" for path in _unknown(root)]
    return "".join(named) + patch


def lock_digest(folder: Path) -> str:
    """Return name and SHA-256 of the nearest file at or above ``folder`` that pins an environment; else nothing."""
    for parent in (folder, *folder.parents):
        for name in LOCKS:
            if (parent / name).is_file():
                return f"{name} sha256:{hashlib.sha256((parent / name).read_bytes()).hexdigest()}"
        if (parent / ".git").exists():
            break
    return ""


def installed(prefix: Path) -> list[str]:
    """Return the packages of an environment as ``name==version``, sorted, by what their installers have left there."""
    folders = prefix.glob("lib/python3*/site-packages/*.dist-info")
    found = (folder.name.removesuffix(".dist-info").partition("-") for folder in folders)
    return sorted({f"{name.replace('_', '-').lower()}=={version}" for name, _, version in found})


def _changed(root: Path) -> list[str]:
    status = _git(root, "status", "--porcelain", "--untracked-files=no", "-z") or ""
    changed = [entry[3:] for entry in status.split("\0") if len(entry) > 3]
    return [path for path in changed if not _only_outputs_changed(root, path)]


def _unknown(root: Path) -> list[str]:
    """Return code and settings that are neither in a commit nor ignored."""
    return (_git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *SOURCES) or "").split("\0")[:-1]


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
