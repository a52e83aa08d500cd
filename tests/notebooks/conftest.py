"""Runs nbval on notebooks in a folder of their own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest


@pytest.fixture
def nbval(root, tmp_path) -> Callable[[nbformat.NotebookNode], tuple[list[str], list[str]]]:
    """Executes a notebook in a copy of the project's layout: names of the cells that passed, that failed."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(root / "notebooks" / "conftest.py", folder)
    for entry in root.iterdir():
        if entry.name != "notebooks" and not entry.name.startswith("."):
            (tmp_path / entry.name).symlink_to(entry)

    def run(notebook: nbformat.NotebookNode) -> tuple[list[str], list[str]]:
        path, report = folder / "notebook.ipynb", tmp_path / "report.xml"
        nbformat.write(notebook, path)
        ran = _pytest(path, report)
        assert report.exists(), ran.stdout + ran.stderr
        passed, failed = [], []
        for case in ElementTree.parse(report).iter("testcase"):
            assert case.find("skipped") is None and case.find("error") is None, ran.stdout
            (passed if case.find("failure") is None else failed).append(case.get("name"))
        return passed, failed

    return run


def _pytest(notebook: Path, report: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=600",
               "-p", "no:cacheprovider", f"--junit-xml={report}", str(notebook)]
    untracked = {**os.environ, "POKEBATTLE_TRACKING": "off", "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=notebook.parent, env=untracked, capture_output=True, text=True)
