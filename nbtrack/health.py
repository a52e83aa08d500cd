"""Check whether tracking works here, for the commands `doctor`, `sync` and `runs`."""

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from nbtrack import artifact_stores, env_vars, processes, server, spool
from nbtrack.executions import executions_dir
from nbtrack.files import read_json
from nbtrack.journal import spool_size
from nbtrack.mlflow_rest import MlflowRest, ServerError, tags_of
from nbtrack.sender.run_writer import HEARTBEAT
from nbtrack.settings import destination_of, enabled, invalid_settings, spool_limit, switched_on, tracking_uri
from nbtrack.tags import CAUSE, EXECUTION, KERNEL, OLD_KERNEL, SEEN

STALE = 3 * HEARTBEAT  # seconds without a heartbeat after which a run of another host is called stale


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`.

    Attributes
    ----------
    subject : str
        What was checked.
    ok : bool
    text : str
        What was found.
    fix : str
        How to fix it; empty if there is nothing to do.
    """

    subject: str
    ok: bool
    text: str
    fix: str = ""


def examine() -> list[Finding]:
    """Check everything that a tracked execution needs."""
    findings = [_switch(), *_settings(), _kernels(), *_other_kernels(), _papermill(), _spool()]
    return [*findings, *_server(), *_waiting(), *_set_aside()]


def _switch() -> Finding:
    if switched_on():
        remark = "" if enabled() else f", but inactive: {tracking_uri()} is not an http(s) server"
        return Finding("tracking", True, f"on{remark}")
    return Finding("tracking", False, "off", f"unset POKEBATTLE_TRACKING (it is {os.environ[env_vars.TRACKING]!r})")


def _settings() -> list[Finding]:
    return [Finding("setting", False, line, "correct or unset it") for line in invalid_settings()]


def _kernels() -> Finding:
    if not _loads_extension(Path(sys.prefix)):
        folder = Path(sys.prefix) / "etc" / "ipython"
        return Finding("kernels", False, f"{folder} does not load the extension", "install the package again")
    return Finding("kernels", True, "every kernel of this environment loads the extension")


def _loads_extension(prefix: Path) -> bool:
    """Return whether the kernels of an environment load the extension."""
    config = read_json(prefix / "etc" / "ipython" / "ipython_kernel_config.json").get("InteractiveShellApp", {})
    return "nbtrack.kernel" in config.get("extra_extensions", [])


def _other_kernels() -> list[Finding]:
    """List the installed kernels that do not load the extension."""
    from jupyter_client.kernelspec import KernelSpecManager

    findings = []
    for name, known in sorted(KernelSpecManager().get_all_specs().items()):
        spec = known["spec"]
        program = Path((spec.get("argv") or [""])[0])
        # a bare name is this environment's own Python: jupyter_client replaces it
        loads = spec.get("language") == "python" and (
            program.name == str(program) or _loads_extension(_prefix(program))
        )
        if not loads:
            text = (
                f"{name} ({spec.get('display_name', name)}) does not load the extension: papermill records its "
                "executions without what happens in the kernel, other executions are not tracked"
            )
            findings.append(Finding("kernel", True, text))
    return findings


def _prefix(program: Path) -> Path:
    """Return the environment that a program belongs to."""
    return program.absolute().parent.parent


def _papermill() -> Finding:
    named = [entry.value for entry in entry_points(group="papermill.engine") if entry.name == "nbtrack"]
    if named:
        return Finding("papermill", True, "uses the tracked engine")
    return Finding("papermill", False, "the engine is not installed", "install the package again")


def _spool() -> Finding:
    root = executions_dir()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        fix = "set POKEBATTLE_STATE to a writable folder"
        return Finding("spool", False, f"{root}: {existing} is not writable ({error.strerror})", fix)
    if not root.is_dir():
        return Finding("spool", True, f"{root} is empty")
    size, limit = spool_size(root), spool_limit()
    text = f"{root}: {size / 2**20:.1f} MB of at most {limit / 2**20:.0f} MB used"
    if root.stat().st_mode & 0o077:
        return Finding("spool", False, f"{text}, and others can read it", f"chmod 700 {root}")
    if size > 0.9 * limit:
        return Finding("spool", False, text, "`python -m nbtrack sync`, or raise POKEBATTLE_SPOOL_MB")
    return Finding("spool", True, text)


def _server() -> list[Finding]:
    uri = tracking_uri()
    try:
        rest = MlflowRest(uri, timeout=10.0)
        rest.call("POST", "experiments/search", max_results=1)
    except ValueError as error:
        return [Finding("server", False, str(error), "correct MLFLOW_TRACKING_URI")]
    except ServerError as error:
        fix = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" if error.denied else "check its log"
        return [Finding("server", False, f"{uri}: {error}", fix)]
    except OSError as error:
        fix = "run `make server` (for a team's server, `make shared`), or set MLFLOW_TRACKING_URI"
        return [Finding("server", False, f"{uri} does not answer ({error})", fix)]
    remark = server.foreign_server_note(uri)
    answers = Finding("server", True, f"{uri} answers{f', {remark}' if remark else ''}")
    return [answers, *_artifacts(rest), *_open_runs(rest)]


def _artifacts(rest: MlflowRest) -> list[Finding]:
    """Check whether this machine can store the latest experiment's artifacts, if the server does not store them."""
    latest = rest.call("POST", "experiments/search", max_results=1, order_by=["creation_time DESC"])
    places = [one.get("artifact_location", "") for one in latest.get("experiments", [])]
    problems = [why for place in places if (why := artifact_stores.problem(place))]
    fix = "start the server with --artifacts-destination, or give this machine credentials for that store"
    return [Finding("artifacts", False, why, fix) for why in problems]


def _open_runs(rest: MlflowRest) -> list[Finding]:
    """Find runs that are open on the server although no process writes to them."""
    waiting = {one.start["execution"]: one for one in spool.waiting()}
    findings = []
    for run in rest.search_runs(f"attributes.status = 'RUNNING' and tags.`{EXECUTION}` != ''"):
        tags = tags_of(run)
        if tags[EXECUTION] not in waiting:
            findings += _open_run(run["info"], tags)
    return findings


def _open_run(info: dict[str, Any], tags: dict[str, str]) -> list[Finding]:
    kernel = _kernel(tags)
    state, name = processes.state_of(kernel), f"run {info['run_id']} ({info.get('run_name')})"
    if state == "ended":
        return [
            Finding(
                "open run",
                False,
                f"{name} was started on this host; its kernel and its record are gone",
                f"`python -m nbtrack sync --close {info['run_id']}`",
            )
        ]
    heartbeat = float(tags.get(SEEN) or info["start_time"]) / 1000
    if state == "elsewhere" and time.time() - heartbeat > STALE:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(heartbeat))
        return [
            Finding(
                "stale run",
                True,
                f"{name} on {kernel['host']} has sent no heartbeat since {since}",
                f"`python -m nbtrack sync` on {kernel['host']}",
            )
        ]
    return []


def _kernel(tags: dict[str, str]) -> dict[str, Any]:
    """Return the identity of a run's kernel from the run's tags."""
    old = {key: tags.get(tag, "") for key, tag in OLD_KERNEL.items()}
    identity = {key: value for key, value in old.items() if value} | json.loads(tags.get(KERNEL) or "{}")
    pid, started = identity.get("pid", "0"), identity.get("started", "")
    return {
        "host": identity.get("host"),
        "boot": identity.get("boot"),
        "pid": int(pid),
        "started": int(started) if started.isdigit() else started,
    }


def _waiting() -> list[Finding]:
    findings = []
    for one in spool.waiting():
        what = Path(one.start["notebook"]).name or one.start["executor"]
        name = f"{one.folder.name} ({what}) for {destination_of(one.start)}"
        if one.state == "refused":
            fix = _fix_refused(one)
            findings.append(Finding("refused", False, f"{name}: {one.reason}", fix))
        elif one.state == "elsewhere":
            findings.append(Finding("waiting", True, f"{name}: {one.start['kernel']['host']} has to deliver it"))
        elif one.state == "ended":
            findings.append(Finding("waiting", False, f"{name}: {one.reason or _who_delivers(one)}", _fix(one)))
        else:
            findings.append(Finding("running", True, name + (f", waits: {one.reason}" if one.reason else "")))
    return findings


def _fix_refused(one: spool.Waiting) -> str:
    again = "`python -m nbtrack sync`"
    discard = f"`python -m nbtrack sync --forget {one.folder.name}` discards it"
    if one.reason.startswith("HTTP 403"):
        return f"ask an administrator for the role team, then {again}"
    if one.reason.startswith("run "):
        return discard if "for good" in one.reason else f"fix this, then {again}; or {discard}"
    return f"fix this, then {again}"


def _who_delivers(one: spool.Waiting) -> str:
    with spool.locked(one.folder / "lock") as free:
        return "no process is delivering it" if free else "being delivered"


def _fix(one: spool.Waiting) -> str:
    """Return how to deliver a waiting execution."""
    uri, again = destination_of(one.start), "`python -m nbtrack sync`"
    if one.reason.startswith("HTTP"):
        return (
            f"check the server's log, then {again}; an item that fails for a minute while others succeed is set aside"
        )
    if uri != tracking_uri():
        return f"{again} once a server answers at {uri}: MLFLOW_TRACKING_URI named it when the notebook ran"
    return f"{again} once the server answers"


def _set_aside() -> list[Finding]:
    findings = []
    for file in sorted(executions_dir().glob("*/aside.jsonl")):
        lines = file.read_text("utf-8").splitlines()
        first = json.loads(lines[0])
        discard = f"`python -m nbtrack sync --forget {file.parent.name}` discards it"
        fix = f"the server rejected it; check the error, then {discard}"
        if any('"file"' in line or '"call"' in line for line in lines):
            retry = "`python -m nbtrack sync` retries it"
            denied = "HTTP 403" in first["error"]
            fix = f"{retry} once you have permission" if denied else f"check the error, then {retry}"
            fix = f"{fix}; {discard}"
        text = f"{file.parent.name}: {len(lines)}, the first {first['what'][:200]} ({first['error'][:300]})"
        findings.append(Finding("set aside", False, text, fix))
    return findings


def recent(count: int) -> list[dict[str, Any]]:
    """Return the records of the latest executions on this machine, newest first.

    Parameters
    ----------
    count : int
        Maximum number of records.

    Returns
    -------
    list of dict
        Each as in ``run.json``, with its ``state``.
    """
    records: list[dict[str, Any]] = []
    for folder in sorted(executions_dir().glob("2*"), reverse=True):
        if len(records) == count:
            break
        if record := read_json(folder / "run.json"):
            records.append(record)
    waiting = {one.start["execution"]: one for one in spool.waiting()}
    for record in records:
        one = waiting.get(record.get("execution", ""))
        record["state"] = record.get("status") or (one.state.upper() if one else "UNKNOWN")
    return records


def close_stranded(run_id: str) -> str:
    """Mark a run as KILLED whose kernel on this host has ended and whose record is gone.

    Parameters
    ----------
    run_id : str

    Returns
    -------
    str
        What was done, or why nothing was done.

    Raises
    ------
    ServerError, OSError
        As `MlflowRest.call`.
    """
    rest = MlflowRest(tracking_uri())
    run = rest.call("GET", "runs/get", run_id=run_id)["run"]
    tags = tags_of(run)
    if run["info"]["status"] != "RUNNING":
        return f"run {run_id} is {run['info']['status']} already"
    kernel = _kernel(tags)
    state = processes.state_of(kernel)
    if state != "ended":
        where = f"only {kernel['host']} can tell whether its kernel still runs"
        return f"run {run_id} was not closed: {where if state == 'elsewhere' else 'its kernel is alive'}"
    rest.log_batch(run_id, tags={CAUSE: "the kernel has ended, and its record on the machine is lost"})
    rest.call("POST", "runs/update", run_id=run_id, status="KILLED", end_time=int(time.time() * 1000))
    return f"run {run_id} is KILLED"
