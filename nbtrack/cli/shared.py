"""``python -m nbtrack shared start|stop|status|env|serve``: the team's server without Docker."""

import os

import click

from nbtrack.cli import Choice
from nbtrack.team import settings as s
from nbtrack.team import write_env


@click.command("shared")
@click.argument(
    "action",
    type=Choice(["start", "stop", "status", "env", "serve"]),
    metavar="ACTION",
    help="start, stop, status, env or serve; env writes .env with random secrets, serve runs MLflow in the foreground "
    "with the settings of the environment alone, the exit code of status is 1 if a part fails.",
)
def command(action: str) -> int:
    """Start, stop or show the team's server without Docker."""
    return {"start": _start, "stop": _stop, "status": _status, "env": _env, "serve": _serve}[action]()


def _env() -> int:
    click.echo(write_env.write())
    return 0


def _start() -> int:
    from nbtrack.team import local_services

    uri, remarks = local_services.start()
    for remark in remarks:
        click.echo(remark)
    accounts = f"the accounts and their passwords are in {s.env_file()}"
    open_to_all = "MLFLOW_ENABLE_AUTH is off: anyone who reaches the port has full access"
    click.echo(f"MLflow is running at {uri}; {accounts if s.with_accounts(s.load()) else open_to_all}")
    return 0


def _stop() -> int:
    from nbtrack.team import local_services

    stopped = local_services.stop()
    click.echo(f"stopped {' and '.join(stopped)}; data stay in {s.folder()}" if stopped else "nothing to stop")
    return 0


def _status() -> int:
    from nbtrack.team import local_services

    parts = local_services.status()
    for part in parts:
        click.echo(f"{'ok  ' if part.well else 'BAD '} {part.name:<10} {part.text}")
    return 0 if all(part.well for part in parts) else 1


def _serve() -> int:
    from nbtrack.team.serve import serve

    serve(dict(os.environ))
    return 0
