"""Promote versions from None to Staging and from Staging to Production, and roll Production back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbtrack.mlflow_rest import MlflowRest
from nbtrack.provenance import user_name
from pokebattle.registry import stages
from pokebattle.registry.promotion_lock import hold_lock
from pokebattle.registry.stages import ARCHIVED, NONE, PRODUCTION, STAGING, Model, RegistryError, connected
from pokebattle.registry.transitions import Writer, repair
from pokebattle.tags import PENDING

if TYPE_CHECKING:
    from pokebattle.registry.gate_report import Gate, Report

FROM = {STAGING: (NONE, ARCHIVED), PRODUCTION: (STAGING,)}  # stages from which a version can be promoted
PROBE = "no-version-has-this-alias"


class RefusedError(RegistryError):
    """The gates refuse a version.

    Parameters
    ----------
    report : Report
        The complete report, also available as attribute `report`.
    """

    def __init__(self, report: Report) -> None:
        reasons = "; ".join(
            f"{gate.name}: {gate.value}{f', expected {gate.bound}' if gate.bound else ''}" for gate in report.refused
        )
        super().__init__(f"{report.name} version {report.version} is refused by {reasons}")
        self.report = report


class MeanwhileError(RegistryError):
    """The stages have changed since the move was planned."""


@dataclass(frozen=True)
class Plan:
    """An allowed move, with the state of the registry at the time of planning.

    Attributes
    ----------
    name : str
        The registered model.
    version : int
    stage : str
        The target stage.
    was : str
        The present stage.
    holders : mapping of str to int or None
        The version in Staging and the version in Production.
    kind : {"promotion", "rollback"}
    """

    name: str
    version: int
    stage: str
    was: str
    holders: Mapping[str, int | None]
    kind: str = "promotion"

    def __str__(self) -> str:
        out = self.holders[self.stage]
        archived = f"; version {out}, which is in {self.stage}, is archived" if out is not None else ""
        return f"{self.name} version {self.version}: {self.was} → {self.stage}{archived}"


@dataclass(frozen=True)
class Outcome:
    """The result of a promotion or rollback.

    Attributes
    ----------
    changed : bool
        Whether stages were changed.
    text : str
        A message for the user.
    report : Report, optional
        The report of the gates, if they were measured.
    repaired : sequence of str
        The inconsistencies that were repaired (with `dry_run`: found).
    """

    changed: bool
    text: str
    report: Report | None = None
    repaired: Sequence[str] = ()


def promote(
    name: str,
    version: int,
    stage: str,
    why: str = "",
    dry_run: bool = False,
    *,
    on_gate: Callable[[Gate], object] | None = None,
) -> Outcome:
    """Judge a version and move it to the next stage.

    Parameters
    ----------
    name : str
        The registered model.
    version : int
    stage : {"Staging", "Production"}
    why : str
        The reason, for the history.
    dry_run : bool, default False
        Judge the version and report what would happen, but change nothing.
    on_gate : callable, optional
        Called with every gate as soon as it is measured.

    Returns
    -------
    Outcome

    Raises
    ------
    RegistryError
        If the order of the stages does not allow the move, the gates refuse the version (`RefusedError`), another
        promotion is running (`promotion_lock.BusyError`) or has finished in the meantime (`MeanwhileError`), the
        server does not answer, or this account lacks the permission.
    """
    from pokebattle.registry.gates import judge

    with connected(name) as rest:
        model = stages.read_with(rest, name, version)
        if model.version(version).stage == stage:
            repaired = complete(rest, name, dry_run)
            return Outcome(False, f"{name} version {version} is in {stage} already", repaired=repaired)
        planned = plan(model, version, stage)
        if not dry_run:
            check_permission(rest, name)
        report = judge(rest, version, name, on_gate=on_gate, record=not dry_run)
        if dry_run:
            verdict = str(planned) if report.passed else str(RefusedError(report))
            return Outcome(False, f"{verdict} (dry run: no stage was changed)", report)
        if not report.passed:
            raise RefusedError(report)
        repaired = move(rest, planned, why or "all gates passed", report.file)
    return Outcome(True, str(planned), report, repaired)


def rollback(name: str, why: str, dry_run: bool = False) -> Outcome:
    """Return Production to the previous version.

    The files of that version are checked first. Its gates are not measured again.

    Parameters
    ----------
    name : str
        The registered model.
    why : str
        The reason, for the history.
    dry_run : bool, default False
        Report what would happen, but change nothing.

    Returns
    -------
    Outcome

    Raises
    ------
    RegistryError
        As in `promote`; or if there is no version in Production or none before it.
    ForeignModelError
        If the previous version's files are not the registered ones.
    """
    from pokebattle.registry import model_files

    with connected(name) as rest:
        model = stages.read(rest, name)
        if not dry_run:
            check_permission(rest, name)
        planned = plan_back(model)
        model_files.check(rest, model.version(planned.version), name)
        if dry_run:
            return Outcome(False, f"{planned} (dry run: no stage was changed)")
        repaired = move(rest, planned, why)
    return Outcome(True, str(planned), repaired=repaired)


def plan(model: Model, version: int, stage: str) -> Plan:
    """Plan the move of a version to a stage.

    Parameters
    ----------
    model : Model
    version : int
    stage : {"Staging", "Production"}

    Raises
    ------
    RegistryError
        If there is no such version, or the order of the stages does not allow the move.
    """
    was = model.version(version).stage
    if was not in FROM[stage]:
        orders = {
            (NONE, PRODUCTION): "Staging comes before Production",
            (ARCHIVED, PRODUCTION): "Staging comes before Production; `rollback` returns to the version before",
            (
                PRODUCTION,
                STAGING,
            ): "promote another version in its place, or return to the version before with `rollback`",
        }
        raise RegistryError(
            f"{model.name} version {version} is in {was} and cannot go to {stage}: "
            f"{orders.get((was, stage), 'the order is None, Staging, Production')}"
        )
    return Plan(model.name, version, stage, was, _holders(model))


def plan_back(model: Model) -> Plan:
    """Plan the move of the previous version back to Production.

    Parameters
    ----------
    model : Model

    Raises
    ------
    RegistryError
        If there is no version in Production, or none before it.
    """
    now = model.holder(PRODUCTION)
    if now is None:
        raise RegistryError(f"{model.name} has no version in Production: there is nothing to roll back")
    line: list[int] = []  # versions promoted to Production and not rolled back, oldest first
    for event in model.events():
        if event["to"] == PRODUCTION:
            if event["kind"] == "rollback":
                while line and line[-1] != event["version"]:
                    line.pop()
            else:
                line.append(event["version"])
    before = [number for number in line if number in model.versions]
    while before and before[-1] == now:
        before.pop()
    if not before:
        raise RegistryError(f"{model.name} version {now} is the first in Production: there is no version before")
    return Plan(model.name, before[-1], PRODUCTION, model.versions[before[-1]].stage, _holders(model), "rollback")


def move(rest: MlflowRest, planned: Plan, why: str, report: str = "", user: str = "") -> list[str]:
    """Carry out a planned move: stage, alias, tags, history and descriptions.

    Parameters
    ----------
    rest : MlflowRest
    planned : Plan
    why : str
        The reason, for the history.
    report : str
        The report's artifact on the version's run; "" without one.
    user : str
        User name for the history; by default the current user's.

    Returns
    -------
    list of str
        The inconsistencies that had to be repaired first.

    Raises
    ------
    BusyError
        If another process is changing the stages of this model.
    MeanwhileError
        If the stages have changed since the move was planned.
    OSError, ServerError
        If the server does not answer, or refuses a change.
    """
    user = user or user_name()
    with hold_lock(rest, planned.name, user) as allowed:
        writer = Writer(rest, planned.name, allowed)
        repaired = repair(writer)
        model = stages.read(rest, planned.name)
        now = Plan(
            planned.name,
            planned.version,
            planned.stage,
            model.version(planned.version).stage,
            _holders(model),
            planned.kind,
        )
        if now != planned:
            last = model.events()[-1:]
            author = f" by {last[0]['by']} at {last[0]['when']}" if last else ""
            raise MeanwhileError(
                f"the stages of {planned.name} were changed meanwhile{author}: {_shown(now.holders)}, "
                f"and not {_shown(planned.holders)} as when version {planned.version} was judged; "
                "judge the version again"
            )
        archived = [version.number for version in model.within(planned.stage) if version.number != planned.version]
        event = {
            "version": planned.version,
            "from": planned.was,
            "to": planned.stage,
            "by": user,
            "when": stages.moment(),
            "why": why,
            "kind": planned.kind,
            "archived": archived,
            "report": report,
        }
        writer.tag(planned.version, PENDING, json.dumps(event, ensure_ascii=False))
        writer.transition(planned.version, planned.stage)
        repair(writer)
    return repaired


def complete(rest: MlflowRest, name: str, dry_run: bool = False) -> list[str]:
    """Repair inconsistencies that a killed promotion or a change by hand has left.

    Parameters
    ----------
    rest : MlflowRest
    name : str
        The registered model.
    dry_run : bool, default False
        Only find them.

    Returns
    -------
    list of str
        The inconsistencies that were found.

    Raises
    ------
    RegistryError, OSError, ServerError
        As in `move` and `stages.read`.
    """
    disagreements = stages.read(rest, name).disagreements()
    if disagreements and not dry_run:
        with hold_lock(rest, name, user_name()) as allowed:
            repair(Writer(rest, name, allowed))
    return disagreements


def check_permission(rest: MlflowRest, name: str) -> None:
    """Check that this account may change stages, before minutes are spent on the gates.

    It requests a change without effect: the deletion of an alias that does not exist.

    Parameters
    ----------
    rest : MlflowRest
    name : str
        The registered model.

    Raises
    ------
    ServerError
        If this account may not change stages.
    """
    rest.call("DELETE", "registered-models/alias", name=name, alias=PROBE)


def _holders(model: Model) -> dict[str, int | None]:
    return {stage: model.holder(stage) for stage in (STAGING, PRODUCTION)}


def _shown(holders: Mapping[str, int | None]) -> str:
    return ", ".join(
        f"{stage} {'is empty' if number is None else f'contains version {number}'}" for stage, number in holders.items()
    )
