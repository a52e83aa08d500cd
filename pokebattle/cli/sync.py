"""``python -m pokebattle sync``: deliver what waits, and say what was done."""

import argparse
import os
import shutil
import sys
from collections import Counter
from importlib.util import find_spec

from pokebattle.places import studies_file
from pokebattle.tracking import health
from pokebattle.tracking.journal import execution_folder, read_json, run_address
from pokebattle.tracking.settings import tracking_uri
from pokebattle.tracking.shipping import spool
from pokebattle.tracking.shipping.rest import ServerError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--forget", metavar="EXECUTION", help="remove what was set aside or refused of one")
    parser.add_argument("--close", metavar="RUN", help="end a run that this host began and has lost the record of")


def run(arguments: argparse.Namespace) -> int:
    """Deliver, also what a server refused before; 1 while something still waits."""
    say = sys.stdout.write
    if arguments.close:
        try:
            say(health.close_stranded(arguments.close) + "\n")
        except (OSError, ValueError, ServerError) as error:
            sys.stderr.write(f"Error: run {arguments.close} at {tracking_uri()}: {error}\n")
            return 1
        return 0
    if arguments.forget:
        return _forget(arguments.forget)
    results = spool.drain(retry_refused=True)
    again = spool.retry_aside()
    for folder, result in (results | again).items():
        record = read_json(folder / "run.json")
        where = f" as {run_address(record)}" if result == "delivered" and record.get("run_id") else ""
        say(f"{folder.name}: {'is being delivered by another process' if result == 'busy' else result}{where}\n")
    results |= {folder: result for folder, result in again.items() if not result.startswith("set aside")}
    counts = Counter(result.partition(":")[0] for result in results.values())
    running = sum(one.state == "running" for one in spool.waiting())
    say(f"{counts['delivered']} delivered, {len(results) - counts['delivered']} still wait, {running} running\n")
    try:
        for line in _mend_trials():
            say(line + "\n")
    except (OSError, ServerError) as error:
        sys.stderr.write(f"Error: trials at {tracking_uri()}: {error}\n")
        return 1
    return 0 if set(counts) <= {"delivered"} else 1


def _forget(execution: str) -> int:
    """Remove what was set aside of an execution, or one that its server refuses."""
    folder = execution_folder(execution)
    if any(one.folder == folder and one.state == "refused" for one in spool.waiting()):
        shutil.rmtree(folder)
        sys.stdout.write(f"{execution}: forgotten\n")
    elif (folder / "aside.jsonl").is_file():
        (folder / "aside.jsonl").unlink()
        shutil.rmtree(folder / "files", ignore_errors=True)
        sys.stdout.write(f"{execution}: forgotten what was set aside\n")
    else:
        sys.stderr.write(f"Error: {execution}: nothing of such an execution is set aside or refused\n")
        return 1
    return 0


def _mend_trials() -> list[str]:
    """Compare the studies that this machine uses with their runs, if there are any; say what was mended."""
    if not os.environ.get("POKEBATTLE_STORAGE") and not studies_file().is_file():
        return []
    if find_spec("optuna") is None:
        return ["trials are not looked at: optuna is not installed"]
    from pokebattle.tuning.projection import mend

    missing, doubled, orphans = mend(tracking_uri())
    left = f", {orphans} wait for the run of their notebook" if orphans else ""
    return [f"{missing} trials made up for, {doubled} removed that were there twice{left}"]
