"""Locations of a project's files. Standard library only: the sender runs without site-packages."""

import os
from pathlib import Path

from nbtrack import env_vars


def checkout() -> Path | None:
    """Return the root of the checkout that this package runs from, or None if the package is installed."""
    root = Path(__file__).parents[1]
    return root if (root / "pyproject.toml").is_file() else None


def project() -> Path:
    """Return the folder of `params/` and `build/`: the checkout, else the working directory."""
    return checkout() or Path.cwd()


def state_dir() -> Path:
    """Return the folder for servers, journals, caches and installations.

    ``POKEBATTLE_STATE``, else ``.pokebattle`` in the checkout, else ``pokebattle`` in the user's XDG state folder.
    """
    if named := os.environ.get(env_vars.STATE):
        return Path(named).expanduser().absolute()
    if root := checkout():
        return root / ".pokebattle"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "pokebattle"
