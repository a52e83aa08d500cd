#!/usr/bin/env bash
# Guess: a cell that raises under %%capture fails in every executor alike, and later cells do not run.
#
# Seen (IPython 9.18.1, ipykernel 7.4.0, nbclient 0.11.0, papermill 2.7.0): the kernel sends an error output but replies
# "ok". So nbclient succeeds and returns a notebook with an error output in it. papermill, which uses nbclient, executes
# all later cells as well, side effects included, and raises PapermillExecutionError for the first cell only then.
# Without %%capture both stop at the cell.
#
# Usage: bash findings/capture_hides_failure.sh    (Python 3.11 or newer, network for pip; exits with 1 when it changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check \
    ipython==9.18.1 ipykernel==7.4.0 nbclient==0.11.0 papermill==2.7.0 nbformat==5.10.4
cat > check.py <<'PYTHON'
import os
import sys
from pathlib import Path

import nbclient
import nbformat
import papermill

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["JUPYTER_PATH"] = f"{sys.prefix}/share/jupyter"


def written(first: str) -> str:
    cells = [nbformat.v4.new_code_cell(first), nbformat.v4.new_code_cell("open('later', 'w').close()")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), "in.ipynb")
    return "in.ipynb"


def outcome(execute) -> tuple[str, bool]:
    Path("later").unlink(missing_ok=True)
    try:
        execute()
        said = "succeeds"
    except (nbclient.exceptions.CellExecutionError, papermill.exceptions.PapermillExecutionError) as error:
        said = type(error).__name__
    return said, Path("later").exists()


def by_nbclient(path: str) -> None:
    notebook = nbformat.read(path, 4)
    nbclient.NotebookClient(notebook).execute()
    print("  output of the first cell:", [output.output_type for output in notebook.cells[0].outputs])


def by_papermill(path: str) -> None:
    papermill.execute_notebook(path, "out.ipynb", progress_bar=False)


seen = {}
for first in ("1 / 0", "%%capture\n1 / 0"):
    for execute in (by_nbclient, by_papermill):
        seen[first.split()[0], execute.__name__] = outcome(lambda: execute(written(first)))
for (first, executor), (said, later) in seen.items():
    print(f"{first:>10} {executor:<13} {said:<25} later cell ran: {later}")
assert seen == {
    ("1", "by_nbclient"): ("CellExecutionError", False),
    ("1", "by_papermill"): ("PapermillExecutionError", False),
    ("%%capture", "by_nbclient"): ("succeeds", True),
    ("%%capture", "by_papermill"): ("PapermillExecutionError", True),
}, "the behaviour has changed"
PYTHON
env/bin/python check.py
