"""``python -m nbtrack sync``: deliver what waits, and say what was done."""

import shutil
from collections import Counter

import click

from nbtrack import health, spool
from nbtrack.errors import ServerError, UserError
from nbtrack.executions import execution_folder, run_address
from nbtrack.files import read_json
from nbtrack.plugins import functions
from nbtrack.settings import tracking_uri


@click.command("sync")
@click.option("--forget", metavar="EXECUTION", help="Discard the refused or set-aside items of one execution.")
@click.option("--close", metavar="RUN_ID", help="End a run of this machine whose kernel is gone, with its record.")
def command(forget: str | None, close: str | None) -> int:
    """Deliver what waits.

    This includes executions that the server refused before. The exit code is 1 if something still waits.
    """
    if close:
        click.echo(_close(close))
        return 0
    if forget:
        click.echo(f"{forget}: {_forget(forget)}")
        return 0
    results = spool.drain(retry_refused=True)
    again = spool.retry_aside()
    for folder, result in (results | again).items():
        record = read_json(folder / "run.json")
        where = f" as {run_address(record)}" if result == "delivered" and record.get("run_id") else ""
        click.echo(f"{folder.name}: {'is being delivered by another process' if result == 'busy' else result}{where}")
    results |= {folder: result for folder, result in again.items() if not result.startswith("set aside")}
    counts = Counter(result.partition(":")[0] for result in results.values())
    running = sum(one.state == "running" for one in spool.waiting())
    click.echo(f"{counts['delivered']} delivered, {len(results) - counts['delivered']} still wait, {running} running")
    _run_plugins()
    return 0 if set(counts) <= {"delivered"} else 1


def _run_plugins() -> None:
    """Let the plugins deliver what they keep themselves, such as a search's trials."""
    for after_sync in functions("after_sync"):
        try:
            lines = after_sync()
        except (OSError, ServerError) as error:
            raise UserError(f"trials at {tracking_uri()}: {error}") from error
        for line in lines:
            click.echo(line)


def _close(run_id: str) -> str:
    """End a run whose kernel is gone, and return what was done."""
    try:
        return health.close_stranded(run_id)
    except (OSError, ValueError, ServerError) as error:
        raise UserError(f"run {run_id} at {tracking_uri()}: {error}") from error


def _forget(execution: str) -> str:
    """Discard an execution that its server refuses, or its set-aside items, and return what was done."""
    folder = execution_folder(execution)
    if any(one.folder == folder and one.state == "refused" for one in spool.waiting()):
        shutil.rmtree(folder)
        return "discarded"
    if (folder / "aside.jsonl").is_file():
        (folder / "aside.jsonl").unlink()
        shutil.rmtree(folder / "files", ignore_errors=True)
        return "set-aside items discarded"
    raise UserError(f"{execution}: no refused or set-aside items of such an execution")
