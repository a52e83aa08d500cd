"""``python -m pokebattle gate 3``: judge a registered version, and write the report to its page."""

import click

from pokebattle.cli.promote import model_name_option, say
from pokebattle.registry import gates, promotion
from pokebattle.registry.stages import parse_version


@click.command("gate")
@click.argument("version", help="The registered version: 3 or battle_winner/3.")
@model_name_option
def command(version: str, model_name: str) -> int:
    """Judge a registered version by the gates of promotion.

    The report is written to the version's page, and no stage changes. The exit code is 1 if the version is refused.
    """
    name, number = parse_version(version, model_name)
    with promotion.connected(name) as rest:
        report = gates.judge(rest, number, name, on_gate=say)
    for line in (*report.notes, report.battles, f"{report.name} version {report.version}: {report.verdict}"):
        if line:
            click.echo(line)
    return 0 if report.passed else 1
