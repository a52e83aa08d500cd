"""``python -m nbtrack server start|stop|status``."""

import click

from nbtrack import server, spool
from nbtrack.cli import Choice
from nbtrack.settings import tracking_uri


@click.command("server")
@click.argument(
    "action",
    type=Choice(["start", "stop", "status"]),
    metavar="ACTION",
    help="start, stop or status; the exit code of status is 1 if no server answers.",
)
@click.option("--own", is_flag=True, help="Start one even if another program's server answers.")
@click.option("--background", is_flag=True, help="Do not wait until the server answers.")
def command(action: str, own: bool, background: bool) -> int:
    """Start, stop or show the local MLflow server."""
    if action == "stop":
        click.echo(f"stopped the MLflow server at {uri}" if (uri := server.stop()) else "no MLflow server to stop")
        return 0
    if action == "status":
        running = server.answers(tracking_uri())
        click.echo(f"{tracking_uri()}: {'an MLflow server answers' if running else 'no MLflow server answers'}")
        return 0 if running else 1
    uri, remarks = server.start(not background, own)
    spool.call_drainer()
    for remark in remarks:
        click.echo(remark)
    click.echo(f"MLflow {'is starting' if background and not server.answers(uri) else 'is running'} at {uri}")
    return 0
