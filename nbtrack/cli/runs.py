"""``python -m nbtrack runs``: this machine's recent executions."""

import time
from pathlib import Path
from typing import Any

import click

from nbtrack import spool
from nbtrack.executions import run_address
from nbtrack.health import recent

MAIN_METRICS = ("excess_percent", "log_loss", "accuracy")  # the first of these that the run has is shown


@click.command("runs")
@click.option(
    "-n", "count", type=click.IntRange(min=0), default=20, show_default=True, metavar="COUNT", help="How many."
)
def command(count: int) -> int:
    """List the latest executions of this machine.

    The newest comes first, with begin, status, notebook, version, main metric and link. What a sender left behind is
    delivered afterwards.
    """
    spool.call_drainer()
    rows = [_row(record) for record in recent(count)]
    if not rows:
        click.echo("no execution yet")
        return 0
    rows.insert(0, ("began", "status", "notebook", "version", "metric", "run"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[5]]).rstrip())
    return 0


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["time"] / 1000))
    metrics = record.get("metrics") or {}
    name = next((name for name in MAIN_METRICS if name in metrics), next(iter(metrics), ""))
    metric = f"{name} {metrics[name]:.4g}" if name else "-"
    notebook = Path(record["notebook"]).name or record["executor"]
    reason = record.get("away") or record.get("refused") or "waits"
    link = run_address(record) if record.get("run_id") else f"({reason})"
    return began, record["state"], notebook, str((record.get("params") or {}).get("version", "-")), metric, link
