"""``python -m nbtrack sync``: deliver what waits, and say what was done."""

import argparse
import shutil
import sys
from collections import Counter

from nbtrack import health, spool
from nbtrack.executions import execution_folder, run_address
from nbtrack.files import read_json
from nbtrack.mlflow_rest import ServerError
from nbtrack.plugins import functions
from nbtrack.settings import tracking_uri


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
        for after_sync in functions("after_sync"):
            for line in after_sync():
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
