"""Locations of the project's files."""

from pathlib import Path

from nbtrack.paths import checkout, project, state_dir

__all__ = ["PARAMS", "STORAGE", "checkout", "project", "state_dir", "studies_file"]

# Variables of the environment that only this package reads; `nbtrack.settings` has the others.
PARAMS = "POKEBATTLE_PARAMS"  # the folder of the versions
STORAGE = "POKEBATTLE_STORAGE"  # address of the studies' storage


def studies_file() -> Path:
    """Return the SQLite file of this checkout's studies, used unless ``POKEBATTLE_STORAGE`` is set."""
    return state_dir() / "studies.db"
