"""Executes a notebook as JupyterLab does, with a console beside it that uses the same kernel all the time.

``python beside.py NOTEBOOK`` sends the cells one by one. The console's requests go to a subshell of the kernel; half of
them fail. It exits with 1 when a cell failed.
"""

import os
import sys
import threading
from itertools import cycle
from pathlib import Path

import nbformat
from conftest import LabKernel, Tracked

REQUESTS = ("print('of the console')", "1 / 0", "import mlflow; mlflow.active_run()", "raise KeyError('console')")


def console(kernel: LabKernel, ended: threading.Event) -> None:
    """Send requests to a subshell until the notebook has ended."""
    subshell = kernel.subshell()
    for source in cycle(REQUESTS):
        if ended.is_set():
            return
        kernel.wait(kernel.send(source, subshell=subshell, store_history=False))


def main(path: Path) -> int:
    """Execute the notebook; return how many cells failed."""
    ended = threading.Event()
    notebook = LabKernel(Tracked(path.parent, os.environ["MLFLOW_TRACKING_URI"]), path)
    user = threading.Thread(target=console, args=(notebook.beside(), ended))
    user.start()
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    replies = [notebook.wait(notebook.send(cell.source, cell.id)) for cell in cells]
    ended.set()
    user.join()
    notebook.client.shutdown()
    notebook.manager.finish_shutdown()
    return sum(reply["content"]["status"] != "ok" for reply in replies)


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]).absolute())))
