"""Where the project's files lie. Standard library only: the shipper runs without site-packages."""

import os
from pathlib import Path


def checkout() -> Path | None:
    """Return the root of the checkout that this package runs from; None when it is installed."""
    root = Path(__file__).parents[1]
    return root if (root / "pyproject.toml").is_file() else None


def project() -> Path:
    """Return the folder that versions are read from and builds are written to: the checkout, else the working one."""
    return checkout() or Path.cwd()


def state_dir() -> Path:
    """Return the folder for servers, journals, caches and installs.

    ``POKEBATTLE_STATE``, else ``.pokebattle`` in the checkout, else the user's XDG state folder.
    """
    if named := os.environ.get("POKEBATTLE_STATE"):
        return Path(named).expanduser().absolute()
    if root := checkout():
        return root / ".pokebattle"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "pokebattle"


def studies_file() -> Path:
    """Return the file of the searches of this checkout, unless ``POKEBATTLE_STORAGE`` names a database."""
    return state_dir() / "studies.db"
