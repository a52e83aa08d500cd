"""``python -m pokebattle retrain --version v3``: train, gate, Staging, gate, Production, and a report."""

import os
import traceback
from pathlib import Path

import click

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


@click.command("retrain")
@click.option("--version", default="v3", show_default=True, metavar="VERSION", help="A file in params/.")
@train.parameters_option
def command(version: str, parameters: tuple[tuple[str, str], ...]) -> int:
    """Train, judge and promote a version unattended, and write a report.

    The report is build/retrain.md; on GitHub Actions, it also goes to the job's summary. The exit code is 0 if the
    model is in Production, or has passed its gates and no shared server is named; 1 if a gate refuses it; 2 if
    something did not work.
    """
    known_version(version)  # refused before a server is started
    state = retraining.Retraining(version)
    try:
        _retrain(state, parameters)
    except Exception as error:  # the report contains any error
        traceback.print_exc()
        state.outcome, state.reason = retraining.FAILED, f"{type(error).__name__}: {error}"
    text, file = state.markdown(), project() / "build" / "retrain.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, "utf-8")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as page:
            page.write(text)
    message = f"{state.params}: {state.outcome}. {state.reason}\nreport: {os.path.relpath(file)}"
    click.echo(message, err=state.exit_code != 0)
    return state.exit_code


def _retrain(state: retraining.Retraining, parameters: tuple[tuple[str, str], ...]) -> None:
    for name in [name for name, value in os.environ.items() if name.startswith("MLFLOW_") and not value]:
        del os.environ[name]  # GitHub sets secrets that a repository does not have to ""
    shared = "MLFLOW_TRACKING_URI" in os.environ
    if not shared:
        server.start(own=True)
    elif not server.answers(tracking_uri()):
        state.reason = f"No MLflow server answers at {tracking_uri()}."
        return
    os.environ["POKEBATTLE_TRACKING"] = "on"
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    output = project() / "build" / "retrain.ipynb"
    output.parent.mkdir(exist_ok=True)
    output.unlink(missing_ok=True)
    code = train.execute(output, [("version", state.params), ("register_model", "True"), *parameters])
    executed = read_json(output).get("metadata", {}).get("pokebattle", {}).get("execution", "")
    state.run = closed_run(executed) if executed else {}
    if code or state.run.get("status") != "FINISHED":
        run = (
            f"its run is {state.run.get('status') or state.run.get('away') or 'open'}" if state.run else "it has no run"
        )
        state.reason = f"train.ipynb ended with exit code {code}; {run}."
        return
    commit, _ = code_version(project()) or ("", False)
    retraining.advance(state, shared, retraining.reason(commit), on_gate=say)
