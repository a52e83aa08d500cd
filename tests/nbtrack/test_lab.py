"""A person's way: open the notebook in a real JupyterLab in a real browser, run all cells."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guard import guarded
from playwright.sync_api import Page, sync_playwright
from waiting import wait_for

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAB = [
    "--no-browser",
    "--ServerApp.ip=127.0.0.1",
    "--IdentityProvider.token=",
    "--allow-root",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
]


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def lab(tracked: Any) -> Iterator[str]:
    """Address of a JupyterLab on the test's folder, tracked on the test server."""
    port = free_port()
    home = {f"JUPYTER_{name}_DIR": str(tracked.folder / "jupyter" / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.port={port}", *LAB]
    with (tracked.folder / "lab.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=tracked.folder, env=tracked.env | home, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/api", timeout=2).close()
            return True
        return False

    with guarded(process.pid):
        wait_for(answers, "JupyterLab", 90)
        yield url
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
    process.wait()


@pytest.fixture
def page(require: Callable[[str], str]) -> Iterator[Page]:
    """A page of Debian's chromium."""
    chromium = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser.new_page(viewport={"width": 1400, "height": 1000})
        browser.close()


def run_all(page: Page, url: str, notebook: str) -> None:
    """Open a notebook in Lab, run all its cells and wait until the kernel is idle again."""
    page.goto(f"{url}/lab/tree/{notebook}", timeout=90_000)
    page.wait_for_function("window.jupyterapp && window.jupyterapp.restored", timeout=90_000)
    page.evaluate("() => window.jupyterapp.restored")
    page.wait_for_function(
        """() => {
            const panel = window.jupyterapp.shell.currentWidget;
            return panel && panel.sessionContext && panel.sessionContext.session?.kernel?.status === 'idle';
        }""",
        timeout=90_000,
    )
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        """() => {
            const panel = window.jupyterapp.shell.currentWidget;
            const cells = [...panel.content.model.cells].filter(cell => cell.type === 'code');
            return cells.every(cell => cell.executionCount) &&
                panel.sessionContext.session.kernel.status === 'idle';
        }""",
        timeout=240_000,
    )


def test_run_all_in_jupyterlab_is_one_run(tracked: Any, lab: str, page: Page, root: Path) -> None:
    shutil.copy(root / "notebooks" / "train.ipynb", tracked.folder)
    run_all(page, lab, "train.ipynb")
    page.screenshot(path=str(tracked.folder / "lab.png"))
    experiment = tracked.client.get_experiment_by_name("battle_winner_sample")
    by_hand = "tags.`pokebattle.executor` = 'jupyterlab'"
    (running,) = tracked.client.search_runs([experiment.experiment_id], filter_string=by_hand)
    assert running.info.status == "RUNNING"  # the kernel lives, and may run more cells
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")

    (run,) = [run for run in tracked.runs("battle_winner_sample") if run.info.run_id == running.info.run_id]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "training_sample")
    assert run.data.tags["mlflow.source.name"].endswith("train.ipynb")
    assert {"log_loss", "excess_percent", "test_accuracy"} <= set(run.data.metrics)
    assert {given.dataset.name for given in run.inputs.dataset_inputs} == {"v3", "v3-test"}
    ran = tracked.artifact(run, "cells.json")
    executed = tracked.artifact(run, "train.ipynb")
    code = [cell for cell in executed["cells"] if cell["cell_type"] == "code"]
    assert len(ran) == len(code) and all(cell["ok"] for cell in ran)
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"])
