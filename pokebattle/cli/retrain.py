"""``python -m pokebattle retrain --version v3``: train, gate, Staging, gate, Production, and a report."""

import argparse
import os
import sys
import traceback
from pathlib import Path

from nbtrack import server
from nbtrack.executions import closed_run
from nbtrack.files import read_json
from nbtrack.provenance import code_version
from nbtrack.settings import tracking_uri
from pokebattle.cli import train
from pokebattle.cli.promote import say
from pokebattle.params import known_version
from pokebattle.paths import project
from pokebattle.registry import retraining


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--version", default="v3", help="a file in params/ (v3)")
    parser.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        dest="parameters",
        metavar=("NAME", "VALUE"),
        help="any setting of params/*.yaml or of train.ipynb, as papermill takes it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report to build/retrain.md, and to the job's summary under GitHub.

    0 when the model is in Production, or has passed its gates where no shared server is named; 1 when a gate refuses
    it; 2 when something did not work.
    """
    known_version(arguments.version)  # refused before a server is started
    told = retraining.Retraining(arguments.version)
    try:
        _retrain(told, arguments.parameters)
    except Exception as error:  # the report contains any error
        traceback.print_exc()
        told.outcome, told.reason = retraining.BROKEN, f"{type(error).__name__}: {error}"
    text, file = told.markdown(), project() / "build" / "retrain.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, "utf-8")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as page:
            page.write(text)
    out = sys.stdout if told.exit_code == 0 else sys.stderr
    out.write(f"{told.params}: {told.outcome}. {told.reason}\nreport: {os.path.relpath(file)}\n")
    return told.exit_code


def _retrain(told: retraining.Retraining, parameters: list[list[str]]) -> None:
    for name in [name for name, value in os.environ.items() if name.startswith("MLFLOW_") and not value]:
        del os.environ[name]  # GitHub sets secrets that a repository does not have to ""
    shared = "MLFLOW_TRACKING_URI" in os.environ
    if not shared:
        server.start(own=True)
    elif not server.answers(tracking_uri()):
        told.reason = f"No MLflow server answers at {tracking_uri()}."
        return
    os.environ["POKEBATTLE_TRACKING"] = "on"
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    output = project() / "build" / "retrain.ipynb"
    output.parent.mkdir(exist_ok=True)
    output.unlink(missing_ok=True)
    code = train.execute(output, [["version", told.params], ["register_model", "True"], *parameters])
    executed = read_json(output).get("metadata", {}).get("pokebattle", {}).get("execution", "")
    told.run = closed_run(executed) if executed else {}
    if code or told.run.get("status") != "FINISHED":
        run = f"its run is {told.run.get('status') or told.run.get('away') or 'open'}" if told.run else "it has no run"
        told.reason = f"train.ipynb ended with exit code {code}; {run}."
        return
    commit, _ = code_version(project()) or ("", False)
    retraining.advance(told, shared, retraining.reason(commit), tell=say)
