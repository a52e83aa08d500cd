"""``python -m pokebattle sync``: deliver what waits, and say what was done."""

import argparse
import shutil
import sys
from collections import Counter

from pokebattle.tracking import health
from pokebattle.tracking.journal import execution_folder, read_json, run_address
from pokebattle.tracking.settings import tracking_uri
from pokebattle.tracking.shipping import spool
from pokebattle.tracking.shipping.rest import ServerError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--forget", metavar="EXECUTION", help="remove what was set aside of an execution")
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
        folder = execution_folder(arguments.forget)
        if not (folder / "aside.jsonl").is_file():
            sys.stderr.write(f"Error: {arguments.forget}: nothing of such an execution is set aside\n")
            return 1
        (folder / "aside.jsonl").unlink()
        shutil.rmtree(folder / "files", ignore_errors=True)
        say(f"{arguments.forget}: forgotten what was set aside\n")
        return 0
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
    return 0 if set(counts) <= {"delivered"} else 1
