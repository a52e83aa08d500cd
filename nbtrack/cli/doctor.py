"""``python -m nbtrack doctor``: is tracking on, where do runs go, what waits, what is wrong, how to mend it."""

import argparse
import sys

from nbtrack.health import examine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments: none."""


def run(arguments: argparse.Namespace) -> int:
    """Write one line for each finding; 1 when something is wrong."""
    findings = examine()
    for finding in findings:
        sys.stdout.write(f"{'ok  ' if finding.well else 'BAD '} {finding.subject:<10} {finding.text}\n")
        if finding.mend:
            sys.stdout.write(f"{'':16}{'to mend: ' if not finding.well else ''}{finding.mend}\n")
    return 0 if all(finding.well for finding in findings) else 1
