"""``python -m pokebattle reproduce RUN_ID``: execute a run again from its own record and compare the figures."""

import click

from nbtrack.executions import run_address
from pokebattle.registry import promotion, reproduction


@click.command("reproduce")
@click.argument("run_id", help="A run of a tracked notebook.")
def command(run_id: str) -> int:
    """Execute a run again from its own record and compare the metrics.

    The exit code is 1 if metrics differ or the run cannot be executed again.
    """
    with promotion.connected("its runs") as rest:
        outcome = reproduction.reproduce(run_id, rest)
        experiment = rest.call("GET", "runs/get", run_id=outcome.again)["run"]["info"] if outcome.again else {}
    click.echo(f"{outcome.verdict}: {outcome.compared} metrics compared")
    for line in outcome.differences:
        click.echo(f"differs  {line}")
    for line in outcome.drift:
        click.echo(f"drifted  {line}")
    if outcome.again:
        click.echo(f"run: {run_address({'uri': rest.uri, **experiment})}")
    return 0 if outcome.same else 1
