"""``python -m nbtrack doctor``: check everything that a tracked execution needs."""

import click

from nbtrack import spool
from nbtrack.health import examine


@click.command("doctor")
def command() -> int:
    """Check tracking: is it on, where do runs go, what waits, what is wrong, how to repair it.

    What a sender left behind is delivered afterwards. The exit code is 1 if something is wrong.
    """
    findings = examine()
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'BAD '} {finding.subject:<10} {finding.text}")
        if finding.fix:
            click.echo(f"{'':16}{'to fix: ' if not finding.ok else ''}{finding.fix}")
    spool.call_drainer()
    return 0 if all(finding.ok for finding in findings) else 1
