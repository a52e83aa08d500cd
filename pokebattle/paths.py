"""Locations of the project's files."""

from pathlib import Path

from nbtrack.paths import checkout, project, state_dir

__all__ = ["checkout", "project", "state_dir", "studies_file"]


def studies_file() -> Path:
    """Return the SQLite file of this checkout's studies, used unless ``POKEBATTLE_STORAGE`` is set."""
    return state_dir() / "studies.db"
