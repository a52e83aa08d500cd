"""``python -m nbtrack runs``: this machine's recent executions."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from nbtrack.executions import run_address
from nbtrack.health import recent

MAIN_METRICS = ("excess_percent", "log_loss", "accuracy")  # the first of these that the run has is shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("-n", type=_count, default=20, metavar="COUNT", help="how many (20)")


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected how many executions, got {text!r}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Write a table, newest first: begin, status, notebook, version, main metric, link."""
    rows = [_row(record) for record in recent(arguments.n)]
    if not rows:
        sys.stdout.write("no execution yet\n")
        return 0
    rows.insert(0, ("began", "status", "notebook", "version", "metric", "run"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        sys.stdout.write("  ".join([*cells, row[5]]).rstrip() + "\n")
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
