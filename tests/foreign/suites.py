"""The test suites of papermill, nbclient, nbval and mlflow pass with the product as without it.

``python tests/foreign/suites.py [SUITE ...]`` runs each suite twice, in the same environment without the product
(`environments.py`) and in this one, tracked on a real MLflow server. It names each test that passes in one of them only
and exits with 1 if there is one.

Where the tests come from, none of which is committed: papermill, nbclient and nbval have them in their source
distribution of the installed version, which pip brings. mlflow's has none: ``FOREIGN_MLFLOW`` names a checkout of
mlflow, of the installed version or near it (a test that fails without the product proves nothing and is only counted).
``FOREIGN_PAPERMILL``, ``FOREIGN_NBCLIENT`` and ``FOREIGN_NBVAL`` do the same for the others. What the suites need
beyond the lock is in ``tests/foreign/requirements.txt`` and is installed into a folder that both environments see.

The suites of papermill, nbclient and nbval execute notebooks, whose kernels are tracked. mlflow's tests run in the
process of pytest, where nothing is tracked. So they run in a kernel, as the only cell of a notebook, and on the tracked
server instead of SQLite: their calls of mlflow go through the product's stand-ins, as a notebook's own code does.
Each file gets a fresh kernel. Both environments do the same. ``ON_PURPOSE`` names the tests that differ on purpose.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click
import nbformat
from environments import ROOT, served, variables, without_product
from nbformat.v4 import new_code_cell, new_notebook

BUILD = ROOT / "build" / "foreign"
LONGEST = 3600  # seconds for one suite in one environment
OPTIONS = ("-q", "-p", "no:cacheprovider", "--timeout=120", "--color=no")


# first words of rows of the table in docs/mlflow-in-notebooks.md
PARENT = "A run that a cell starts without a parent has the tag"
MOMENT = "Points of one series that are logged within one millisecond"
PLACE = "If no experiment is chosen, runs go to the notebook's experiment"
ON_PURPOSE = {
    "test_get_experiment_id_with_no_active_experiments_returns_zero": PLACE,
    "test_get_experiment_by_id_with_is_in_databricks_job": PLACE,
    "test_get_experiment_id_in_databricks_detects_notebook_id_by_default": PLACE,
    "test_start_run_defaults": PARENT,
    "test_start_run_defaults_databricks_notebook": PARENT,
    "test_start_run_creates_new_run_with_user_specified_tags": PARENT,
    "test_start_run_with_description": PARENT,
    "test_get_parent_run": PARENT,
    "test_log_batch": PARENT,
    "test_set_tags": PARENT,
    "test_log_metrics_uses_millisecond_timestamp_resolution_client": MOMENT,
    "test_log_metrics_uses_millisecond_timestamp_resolution_fluent": MOMENT,
}


@dataclass(frozen=True)
class Suite:
    """A package's tests: where they are in its sources, and pytest's options for them."""

    name: str
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()
    in_kernel: bool = False


SUITES = {
    suite.name: suite
    for suite in (
        Suite("papermill", ("papermill/tests",)),
        Suite("nbclient", ("tests",), ("-W", "default", "-o", "log_cli=false")),  # its own `nowarn`
        Suite("nbval", ("tests",)),
        Suite(
            "mlflow",
            (
                "tests/tracking/fluent/test_fluent.py",
                "tests/tracking/test_client.py",
                "tests/tracking/test_tracking.py",
            ),
            ("-p", "on_server"),
            in_kernel=True,
        ),
    )
}


def sources(suite: Suite) -> Path:
    """Return the folder of a suite's sources.

    Raises
    ------
    click.ClickException
        There are none to be had.
    """
    if named := os.environ.get(f"FOREIGN_{suite.name.upper()}"):
        return Path(named).resolve()
    release = f"{suite.name}-{version(suite.name)}"
    folder = BUILD / "sources"
    if not (folder / release).is_dir():
        python = getattr(sys, "_base_executable", sys.executable)  # has pip
        command = [
            python,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            suite.name,
            "--dest",
            str(folder),
            release.replace("-", "=="),
        ]
        subprocess.run(command, check=True)
        with tarfile.open(folder / f"{release}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    missing = [name for name in suite.tests if not (folder / release / name).exists()]
    if missing:
        raise click.ClickException(
            f"{suite.name}: its source distribution has no {missing[0]}: "
            f"FOREIGN_{suite.name.upper()} has to name a checkout of it"
        )
    return folder / release


def extras() -> Path:
    """Install what the suites need beyond the lock; return the folder."""
    folder, wanted = BUILD / "extras", ROOT / "tests" / "foreign" / "requirements.txt"
    if not (folder / "done").is_file() or (folder / "done").read_text() != wanted.read_text():
        python = getattr(sys, "_base_executable", sys.executable)
        command = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--upgrade",
            "--no-deps",
            "--target",
            str(folder),
            "-r",
            str(wanted),
        ]
        subprocess.run(command, check=True)
        (folder / "done").write_text(wanted.read_text())
    return folder


def outcomes(suite: Suite, prefix: Path, env: dict[str, str], folder: Path) -> dict[str, str]:
    """Run a suite in an environment; return what became of each test: ``passed``, or why not."""
    by_test: dict[str, str] = {}
    for part in suite.tests:
        report = folder / "report.xml"
        report.unlink(missing_ok=True)
        words = [*OPTIONS, *suite.options, f"--junitxml={report}", f"--basetemp={folder / 'temporary'}", part]
        with (BUILD / f"{suite.name}-{'plain' if prefix.name == 'plain' else 'tracked'}.log").open("a") as log:
            if suite.in_kernel:
                notebook = str(in_notebook(folder, words))
                command = [str(prefix / "bin" / "papermill"), notebook, str(folder / "out.ipynb"), "--log-output"]
            else:
                command = [str(prefix / "bin" / "pytest"), *words]
            subprocess.run(
                command, cwd=sources(suite), env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=LONGEST
            )
        if not report.is_file():
            raise click.ClickException(f"{suite.name}: pytest left no report of {part}, see {log.name}")
        by_test |= {_name(case): _outcome(case) for case in ElementTree.parse(report).iter("testcase")}
    return by_test


def in_notebook(folder: Path, words: list[str]) -> Path:
    """Write a notebook whose cells run pytest in their own process."""
    first = "import os, sys\nsys.path[:0] = [os.getcwd()]\nimport mlflow, pytest"
    cells = [new_code_cell(first), new_code_cell(f"print(int(pytest.main({json.dumps(words)})))")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "suite.ipynb")
    return folder / "suite.ipynb"


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname')}::{case.get('name')}"


def _outcome(case: ElementTree.Element) -> str:
    faults = [child for child in case if child.tag in {"failure", "error", "skipped"}]
    return "; ".join(f"{child.tag}: {(child.get('message') or '')[:300]}" for child in faults) or "passed"


def compare(suite: Suite) -> int:
    """Run a suite in both environments, say what differs, return how many tests do."""
    both = []
    for tracked in (False, True):
        with served() as (state, uri), tempfile.TemporaryDirectory(prefix="suites-") as temporary:
            folder = Path(temporary)
            prefix = Path(sys.prefix) if tracked else without_product(folder)
            env = variables(prefix, state, uri, extras(), Path(__file__).parent) | {"FOREIGN_SERVER": uri}
            both.append(outcomes(suite, prefix, env, folder))
    plain, ours = both
    apart = {
        name for name in plain.keys() | ours.keys() if (plain.get(name) == "passed") != (ours.get(name) == "passed")
    }
    meant = {name for name in apart if name.rpartition("::")[2] in ON_PURPOSE}
    passed = [sum(outcome == "passed" for outcome in side.values()) for side in both]
    click.echo(
        f"{suite.name} {version(suite.name)}: {len(plain)} tests, {passed[0]} pass without the product, {passed[1]} "
        f"with it, {len(apart - meant)} differ, {len(meant)} on purpose"
    )
    for name in sorted(apart - meant):
        click.echo(f"  {name}\n    without: {plain.get(name, 'not run')}\n    with: {ours.get(name, 'not run')}")
    return len(apart - meant)


@click.command()
@click.argument("suites", nargs=-1, type=click.Choice(list(SUITES)))
def main(suites: tuple[str, ...]) -> None:
    """Compare what passes of foreign test suites with and without the product."""
    BUILD.mkdir(parents=True, exist_ok=True)
    chosen = [SUITES[name] for name in suites or SUITES]
    for suite in chosen:
        sources(suite)  # what is missing is said before anything runs
    sys.exit(bool(sum([compare(suite) for suite in chosen])))


if __name__ == "__main__":
    main()
