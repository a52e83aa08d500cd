"""Execute a run again from its own record (commit, notebook, parameters) and compare the results.

The notebook runs in a worktree of the recorded commit, with that commit's package. This creates a new run, with the
notebook's experiment and name and the tag `REPRODUCES`, that registers nothing. The
environment (Python, packages and lock file) is not restored; differences are listed as drift.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nbtrack.cells import cell_source, is_untracked
from nbtrack.mlflow_rest import MlflowRest, ServerError, metrics_of, params_of, tags_of
from nbtrack.provenance import lock_digest
from nbtrack.secrets import MASK
from pokebattle.paths import project, state_dir
from pokebattle.registry import run_artifacts
from pokebattle.registry.stages import RegistryError, moment
from pokebattle.registry.worktree import WorktreeError, apply_patch, worktree
from pokebattle.tags import DRIFT, REPRODUCED, REPRODUCES, TUNED_FROM

SAME, DIFFERENT, IMPOSSIBLE = "same", "different", "impossible"
TIMES = ("seconds",)  # suffixes of metrics that measure time; they are not compared
FACTS = ("dataset_digest", "model_digest")  # parameters that are compared: digests of the data and of the model
PATIENCE = 180.0  # seconds to wait until the new run is closed
LONGEST = 3600.0  # seconds; the time limit for the notebook is this or ten times its first duration, if longer
SHOWN = 5  # differences shown in a line of text


@dataclass(frozen=True)
class Reproduction:
    """The result of executing a run again.

    Attributes
    ----------
    run_id, again : str
        Ids of the run and of the new run ("" if there is none).
    verdict : {"same", "different", "impossible"}
        "different" also if the run has neither metrics nor digests.
    compared : int
        Number of metrics (except times) and digests that either run has; one that is missing in a run differs. 0 if
        impossible.
    differences : tuple of str
        The metrics and digests that differ, with both values; or the reason why the run cannot be executed again.
    drift : tuple of str
        Everything that has changed: lock file, Python, packages, data, parameters, files that no commit contains.
    """

    run_id: str
    again: str
    verdict: str
    compared: int
    differences: tuple[str, ...]
    drift: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Return whether all metrics and digests are the same, to the last digit."""
        return self.verdict == SAME

    @property
    def text(self) -> str:
        """Return the verdict in one line."""
        drift = f"; drifted: {_shown(self.drift)}" if self.drift else ""
        if self.verdict == IMPOSSIBLE:
            return f"impossible: {_shown(self.differences)}{drift}"
        if self.same:
            return f"{self.compared} values, all the same{drift}"
        if not self.compared:
            return f"the run has no metrics or digests to compare{drift}"
        return f"{len(self.differences)} of {self.compared} values differ: {_shown(self.differences)}{drift}"


def reproduce(run_id: str, rest: MlflowRest) -> Reproduction:
    """Execute a run's notebook again from its record, compare the results, and write the verdict to the run.

    Parameters
    ----------
    run_id : str
    rest : MlflowRest
        The run's server. The new run goes there too.

    Returns
    -------
    Reproduction
        With the verdict "impossible" if the commit, the notebook or another part of the record is not available, or
        the notebook fails.

    Raises
    ------
    RegistryError
        If there is no such run, or it was not created by a tracked notebook.
    ServerError, OSError
        If the server does not answer, or refuses a request of this account.
    """
    try:
        run = rest.call("GET", "runs/get", run_id=run_id)["run"]
    except ServerError as error:
        if error.denied or not error.permanent:
            raise
        raise RegistryError(f"{rest.uri} has no run {run_id}") from None
    if "pokebattle.execution" not in tags_of(run):
        raise RegistryError(f"run {run_id} cannot be executed again: no tracked notebook created it")
    drift: list[str] = []
    again: dict[str, Any] | None = None
    try:
        again = _executed_again(run, rest, drift)
        verdict, compared, differences = _compared(run, again)
        drift += _environment_drift(run, again, rest)
    except (WorktreeError, FileNotFoundError) as error:
        verdict, compared, differences = IMPOSSIBLE, 0, [" ".join(str(error).split())]
    new = again["info"]["run_id"] if again else ""
    result = Reproduction(run_id, new, verdict, compared, tuple(differences), tuple(drift))
    _note(result, rest)
    return result


def _note(result: Reproduction, rest: MlflowRest) -> None:
    """Write the verdict to the run."""
    by = f" by run {result.again}" if result.again else ""
    tags = {REPRODUCED: f"{result.verdict} {moment()}{by}: {result.text}", DRIFT: "; ".join(result.drift) or "none"}
    rest.log_batch(result.run_id, tags={key: value[:5000] for key, value in tags.items()})


# -- executing -----------------------------------------------------------------------------------------


def _executed_again(run: dict[str, Any], rest: MlflowRest, drift: list[str]) -> dict[str, Any]:
    """Execute the notebook and return the new run. Append everything that could not be restored to ``drift``."""
    tags = tags_of(run)
    commit, source = tags.get("mlflow.source.git.commit", ""), Path(tags.get("mlflow.source.name", ""))
    if not commit:
        raise WorktreeError("the run has no commit")
    if source.suffix != ".ipynb":
        raise WorktreeError("the run has no notebook")
    with worktree(commit) as folder:
        if tags.get("pokebattle.git.dirty") == "true":
            drift += apply_patch(folder, run_artifacts.read(rest, run, "code.patch").decode("utf-8"))
        executed = run_artifacts.read_json(rest, run, source.name)
        notebook = _place(folder, source)
        if _differs(executed, notebook):
            drift.append(f"{source.name} differs from the commit")
            notebook.parent.mkdir(parents=True, exist_ok=True)
            notebook.write_text(json.dumps(_clean(executed)), "utf-8")
        given = _parameters(executed, tags)
        if masked := [name for name, value in given.items() if value == MASK]:
            raise WorktreeError(f"the parameter {masked[0]} was masked")
        _provide_version(folder, run, rest, drift)
        execution = _run(folder, notebook, given, run, rest.uri)
        again = _closed(rest, execution)
    rest.log_batch(again["info"]["run_id"], tags={REPRODUCES: run["info"]["run_id"]})
    return again


def _place(folder: Path, source: Path) -> Path:
    """Return the path in a worktree of a notebook that was recorded with another path."""
    parts = source.parts
    inside = [folder.joinpath(*parts[number:]) for number in range(1, len(parts))]
    return next((path for path in inside if path.is_file()), folder / "notebooks" / source.name)


def _clean(executed: Mapping[str, Any]) -> dict[str, Any]:
    """Return an executed notebook without outputs and injected parameters."""
    cells = []
    for cell in executed["cells"]:
        if "injected-parameters" in cell.get("metadata", {}).get("tags", []):
            continue
        emptied: dict[str, Any] = {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
        cells.append({**cell, **emptied})
    return {**executed, "cells": cells}


def _differs(executed: Mapping[str, Any], notebook: Path) -> bool:
    """Return whether the executed code differs from a notebook's. Untracked cells count as equal."""
    if not notebook.is_file():
        return True
    stored = json.loads(notebook.read_text("utf-8"))
    ran, has = (
        [cell_source(cell).strip() for cell in document["cells"] if cell["cell_type"] == "code"]
        for document in (_clean(executed), stored)
    )
    return len(ran) != len(has) or any(a != b and not is_untracked(a) for a, b in zip(ran, has, strict=True))


def _parameters(executed: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters for papermill: the recorded ones, a search by its run's id, and register_model False."""
    metadata = executed.get("metadata", {})
    given = dict(metadata.get("papermill", {}).get("parameters", {}))
    if source_run := tags.get(TUNED_FROM):
        given["tuned_from"] = source_run
    if (metadata.get("pokebattle") or {}).get("schema") == "params":
        given["register_model"] = False
    return given


def _provide_version(folder: Path, run: dict[str, Any], rest: MlflowRest, drift: list[str]) -> None:
    """Write the version's file from the run's recorded parameters, if the commit does not contain it."""
    try:
        recorded = run_artifacts.read_json(rest, run, "parameters.json")
    except FileNotFoundError:  # the notebook has no parameters
        return
    file = folder / "params" / f"{recorded.get('version')}.yaml"
    if "model_name" not in recorded or file.is_file():
        return
    sample = yaml.safe_load((folder / "params" / "sample.yaml").read_text("utf-8"))
    known = {name: value for name, value in recorded.items() if name in {*sample, "tables"}}
    file.write_text(yaml.safe_dump(known, allow_unicode=True, sort_keys=False), "utf-8")
    drift.append(f"params/{file.name} was not in the commit: it was written from the run's parameters")


def _run(folder: Path, notebook: Path, given: Mapping[str, Any], run: dict[str, Any], uri: str) -> str:
    """Execute a notebook in a worktree, with the worktree's package. Return the id of the execution."""
    out, state = folder.parent / "out.ipynb", folder.parent / "state"
    state.mkdir(mode=0o700)
    if (engine := state_dir() / "engine").is_dir():  # so that the engine is not installed again
        (state / "engine").symlink_to(engine)
    variables = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("POKEBATTLE_", "MLFLOW_RUN", "MLFLOW_EXPERIMENT", "GIT_", "PYTEST_"))
    }
    path = os.pathsep.join(filter(None, [str(folder), variables.get("PYTHONPATH")]))
    variables |= {"PYTHONPATH": path, "POKEBATTLE_STATE": str(state), "MLFLOW_TRACKING_URI": uri}
    command = [
        sys.executable,
        "-m",
        "papermill",
        "--no-progress-bar",
        str(notebook),
        str(out),
        "-y",
        yaml.safe_dump(dict(given)),
    ]
    info = run["info"]
    took = (int(info.get("end_time") or 0) - int(info["start_time"])) / 1000
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=max(LONGEST, 10 * took),
        )
    except subprocess.TimeoutExpired as error:
        raise WorktreeError(f"its notebook was stopped after {error.timeout:.0f} s") from None
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
        raise WorktreeError(f"its notebook failed: {last.strip()[:300]}")
    return str(json.loads(out.read_text("utf-8"))["metadata"]["pokebattle"]["execution"])


def _closed(rest: MlflowRest, execution: str) -> dict[str, Any]:
    """Wait until the run of an execution is closed, and return it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        run = next(rest.search_runs(f"tags.`pokebattle.execution` = '{execution}'"), None)
        if run and run["info"]["status"] not in {"RUNNING", "SCHEDULED"}:
            return run
        if time.monotonic() > deadline:
            raise WorktreeError(f"its new run was not closed in {PATIENCE:.0f} s")
        time.sleep(0.5)


# -- comparing -----------------------------------------------------------------------------------------


def _compared(run: dict[str, Any], again: dict[str, Any]) -> tuple[str, int, list[str]]:
    """Return the verdict, the number of compared metrics and digests, and those that differ."""
    before, after = (_comparable(one) for one in (run, again))
    differences = [
        f"{name} {before.get(name, 'missing')} → {after.get(name, 'missing')}"
        for name in sorted({*before, *after})
        if str(before.get(name)) != str(after.get(name))  # as text, because NaN is not equal to NaN
    ]
    return DIFFERENT if differences or not before else SAME, len({*before, *after}), differences


def _comparable(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run's metrics except times, and the digests of its data and its model."""
    metrics = {name: value for name, value in metrics_of(run).items() if not name.endswith(TIMES)}
    return metrics | {name: value for name, value in params_of(run).items() if name in FACTS}


def _environment_drift(run: dict[str, Any], again: dict[str, Any], rest: MlflowRest) -> list[str]:
    """List the differences in the environment, the parameters and the data."""
    before, after = tags_of(run), tags_of(again)
    drift = []
    lock, current_lock = before.get("pokebattle.lock", ""), lock_digest(project())
    if lock != current_lock:
        drift.append(f"lock: {lock[:40] or 'none'} → {current_lock[:40] or 'none'}")
    if (then := before.get("pokebattle.python")) and then != after.get("pokebattle.python"):
        drift.append(f"python: {then} → {after.get('pokebattle.python')}")
    drift += _package_drift(run, again, rest)
    recorded, now = params_of(run), params_of(again)
    meant = {"register_model", "tuned_from", *FACTS}
    others = [
        name for name in sorted(recorded) if recorded[name] != now.get(name) and "." not in name and name not in meant
    ]
    drift += [f"parameter {name}: {recorded[name]} → {now.get(name, 'missing')}" for name in others]
    if recorded.get("dataset_digest") != now.get("dataset_digest"):
        drift.append(f"data: {recorded.get('dataset_digest')} → {now.get('dataset_digest')}")
    return drift


def _package_drift(run: dict[str, Any], again: dict[str, Any], rest: MlflowRest) -> list[str]:
    try:
        before, after = (
            dict(line.split("==") for line in run_artifacts.read(rest, one, "packages.txt").decode().split())
            for one in (run, again)
        )
    except FileNotFoundError:  # the run is older than this record
        return []
    return [
        f"{name}: {before.get(name, 'missing')} → {after.get(name, 'missing')}"
        for name in sorted({*before, *after} - {"pokebattle"})
        if before.get(name) != after.get(name)
    ]


def _shown(lines: tuple[str, ...]) -> str:
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more
