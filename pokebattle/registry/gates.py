"""Judge a registered version by the gates that it has to pass before it is promoted.

The bounds are under `gates` in params/*.yaml. Those of the current checkout apply, not those of the version's own run.
A gate that does not apply to a version passes, and the report says so. A gate that could not be measured, because the
model or its battles are not available, does not pass.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nbtrack.mlflow_rest import MlflowRest, ServerError
from pokebattle.registry import description, stages
from pokebattle.registry.gate_report import Gate, Report
from pokebattle.registry.transitions import Writer
from pokebattle.tags import GATES

FOLDER = "gates"  # artifact folder for reports on the version's run


def judge(
    rest: MlflowRest, version: int, name: str, *, on_gate: Callable[[Gate], object] | None = None, record: bool = True
) -> Report:
    """Measure all gates of a registered version.

    Before the gate part is opened, this is recorded on the version's run, even with `record=False`.

    Parameters
    ----------
    rest : MlflowRest
        The server of the registry.
    version : int
    name : str
        The registered model.
    on_gate : callable, optional
        Called with every gate as soon as it is measured.
    record : bool, default True
        Whether to write the report to the version's page and to its run.

    Raises
    ------
    RegistryError
        If there is no such version, or its run lacks the record of its parameters.
    ServerError, OSError
        If the server does not answer, or refuses a request of this account.
    """
    from pokebattle.registry.gate_checks import GateChecks

    model = stages.read_with(rest, name, version)
    with tempfile.TemporaryDirectory() as folder:
        checks = GateChecks(rest, model, model.version(version), Path(folder))
        gates = []
        for gate in checks.measured():
            gates.append(gate)
            if on_gate:
                on_gate(gate)
        report = Report(name, version, stages.moment(), tuple(gates), checks.judged_on)
    return _recorded(report, rest, checks.run) if record else report


def _recorded(report: Report, rest: MlflowRest, run: dict[str, Any]) -> Report:
    """Write a report to the version's run and, if this account may, to the version's page."""
    from pokebattle.registry.run_artifacts import write_json

    file = f"{FOLDER}/{report.name}_{report.version}_{report.when.replace(':', '')}.json"
    write_json(rest, run, file, {"passed": report.passed, **asdict(report), "file": file})
    writer = Writer(rest, report.name, lambda: None)
    try:
        version = stages.read(rest, report.name).version(report.version)
        text = description.of_version(version.description, version.events, report.markdown())
        writer.tag(report.version, GATES, f"{report.when}: {report.verdict}")
        writer.describe(report.version, text)
    except ServerError as error:
        if not error.denied:
            raise
        return replace(
            report,
            file=file,
            notes=(f"the version's page was not changed: this account may not (HTTP {error.status})",),
        )
    return replace(report, file=file)
