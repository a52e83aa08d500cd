"""The way of a version from None to Staging to Production, and back to the version before."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.error import URLError

from pokebattle.registry import stages
from pokebattle.registry.claim import claim
from pokebattle.registry.moves import Writer, mend
from pokebattle.registry.stages import ARCHIVED, NONE, PENDING, PRODUCTION, STAGING, Model, RegistryError
from pokebattle.tracking.context import user_name
from pokebattle.tracking.shipping.rest import MlflowRest, ServerError

if TYPE_CHECKING:
    from pokebattle.registry.report import Gate, Report

NAME = "battle_winner"
FROM = {STAGING: (NONE, ARCHIVED), PRODUCTION: (STAGING,)}  # where a version must be to be promoted
PROBE = "no-version-has-this-alias"


class RefusedError(RegistryError):
    """A version that its gates refuse; `report` holds the whole of it."""

    def __init__(self, report: Report) -> None:
        reasons = "; ".join(f"{gate.name}: {gate.value}, expected {gate.bound}" for gate in report.refused)
        super().__init__(f"{report.name} version {report.version} is refused by {reasons}")
        self.report = report


class MeanwhileError(RegistryError):
    """The stages are not what they were when the gates were measured."""


@dataclass(frozen=True)
class Plan:
    """A move that is allowed, as the registry stood when it was planned.

    Attributes
    ----------
    version : int
    stage : str
        Where it is to go.
    was : str
        Where it is.
    holders : mapping of str to int or None
        Which version is in Staging, which in Production.
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
        archived = f"; version {out}, which is in {self.stage}, goes to the archive" if out is not None else ""
        return f"{self.name} version {self.version}: {self.was} → {self.stage}{archived}"


@dataclass(frozen=True)
class Outcome:
    """What became of a promotion: whether stages were changed, what there is to say, and the gates' report."""

    changed: bool
    text: str
    report: Report | None = None
    mended: Sequence[str] = ()


def promote(
    name: str, version: int, stage: str, why: str = "", dry_run: bool = False, *,
    tell: Callable[[Gate], object] | None = None,
) -> Outcome:  # fmt: skip
    """Judge a version and move it to the next stage.

    Parameters
    ----------
    name : str
        The registered model.
    version : int
    stage : {"Staging", "Production"}
    why : str
        The reason, for those who read the history.
    dry_run : bool, default False
        Judge, and say what would happen.
    tell : callable, optional
        Hears of every gate as soon as it is measured.

    Raises
    ------
    RegistryError
        If the order of stages forbids it, the gates refuse it (`RefusedError`), somebody else is promoting
        (`claim.BusyError`) or has meanwhile (`MeanwhileError`), or this account may not.
    """
    from pokebattle.registry.gates import judge

    with connected(name) as rest:
        model = stages.read_with(rest, name, version)
        if model.version(version).stage == stage:
            mended = complete(rest, name, dry_run)
            return Outcome(False, f"{name} version {version} is in {stage} already", mended=mended)
        planned = plan(model, version, stage)
        if not dry_run:
            check_permission(rest, name)
        report = judge(rest, version, name, tell=tell, record=not dry_run)
        if dry_run:
            verdict = str(planned) if report.passed else str(RefusedError(report))
            return Outcome(False, f"{verdict} (dry run: nothing was changed)", report)
        if not report.passed:
            raise RefusedError(report)
        mended = move(rest, planned, why or "its gates let it pass", report.file)
    return Outcome(True, str(planned), report, mended)


def rollback(name: str, why: str, dry_run: bool = False) -> Outcome:
    """Return Production to the version that was there before.

    Its files are checked before; it is not judged anew.

    Raises
    ------
    RegistryError
        As in `promote`; if there is no version before.
    """
    from pokebattle.registry import files

    with connected(name) as rest:
        model = stages.read(rest, name)
        if not dry_run:
            check_permission(rest, name)
        planned = plan_back(model)
        files.check(rest, model.version(planned.version), name)
        if dry_run:
            return Outcome(False, f"{planned} (dry run: nothing was changed)")
        mended = move(rest, planned, why)
    return Outcome(True, str(planned), mended=mended)


def plan(model: Model, version: int, stage: str) -> Plan:
    """Return the move of a version to a stage, if the order of stages allows it."""
    was = model.version(version).stage
    if was not in FROM[stage]:
        orders = {
            (NONE, PRODUCTION): "Staging comes before Production",
            (ARCHIVED, PRODUCTION): "Staging comes before Production; `rollback` goes back to the version before",
            (PRODUCTION, STAGING): "another version is promoted in its place, or `rollback` goes back",
        }
        raise RegistryError(f"{model.name} version {version} is in {was} and cannot go to {stage}: "
                            f"{orders.get((was, stage), 'the order is None, Staging, Production')}")  # fmt: skip
    return Plan(model.name, version, stage, was, _holders(model))


def plan_back(model: Model) -> Plan:
    """Return the move that brings the version before back to Production."""
    now = model.holder(PRODUCTION)
    if now is None:
        raise RegistryError(f"{model.name} has no version in Production: there is nothing to roll back")
    line: list[int] = []  # the versions that came to Production and were not taken back, oldest first
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


def move(rest: MlflowRest, planned: Plan, why: str, report: str = "", who: str = "") -> list[str]:
    """Make a planned move: stage, alias, tags, history and pages; return what had to be mended before.

    Raises
    ------
    BusyError
        If somebody else is changing stages of this model.
    MeanwhileError
        If somebody has changed them since the move was planned.
    ServerError
        As the server answers.
    """
    who = who or user_name()
    with claim(rest, planned.name, who) as allowed:
        writer = Writer(rest, planned.name, allowed)
        mended = mend(writer)
        model = stages.read(rest, planned.name)
        now = Plan(planned.name, planned.version, planned.stage, model.version(planned.version).stage,
                   _holders(model), planned.kind)  # fmt: skip
        if now != planned:
            last = model.events()[-1:]
            whose = f" by {last[0]['by']} at {last[0]['when']}" if last else ""
            raise MeanwhileError(f"the stages of {planned.name} were changed meanwhile{whose}: {_shown(now.holders)}, "
                                 f"and not {_shown(planned.holders)} as when version {planned.version} was judged; "
                                 "judge it again")  # fmt: skip
        archived = [version.number for version in model.within(planned.stage) if version.number != planned.version]
        event = {"version": planned.version, "from": planned.was, "to": planned.stage, "by": who,
                 "when": stages.moment(), "why": why, "kind": planned.kind, "archived": archived,
                 "report": report}  # fmt: skip
        writer.tag(planned.version, PENDING, json.dumps(event, ensure_ascii=False))
        writer.transition(planned.version, planned.stage)
        mend(writer)
    return mended


def complete(rest: MlflowRest, name: str, dry_run: bool = False) -> list[str]:
    """Mend what a killed promotion or somebody's hand has left; return what was not as it should be."""
    said = stages.read(rest, name).disagreements()
    if said and not dry_run:
        with claim(rest, name, user_name()) as allowed:
            mend(Writer(rest, name, allowed))
    return said


def check_permission(rest: MlflowRest, name: str) -> None:
    """Ask the server for a change that changes nothing, before minutes are spent on gates.

    Raises
    ------
    ServerError
        If this account may not change stages.
    """
    rest.call("DELETE", "registered-models/alias", name=name, alias=PROBE)


@contextlib.contextmanager
def connected(name: str) -> Iterator[MlflowRest]:
    """Connect to the server of this checkout; what it refuses is said in one line.

    Parameters
    ----------
    name : str
        What is asked for, a registered model or "its runs".

    Raises
    ------
    RegistryError
        If no server answers, it refuses something, or goes away.
    """
    rest = stages.connect()
    try:
        yield rest
    except ServerError as error:
        raise _explained(error, rest, name) from None
    except (ConnectionError, TimeoutError, URLError) as error:
        raise RegistryError(f"{rest.uri} does not answer any more ({error}): once it does, the same command goes on "
                            "from where the registry is") from None  # fmt: skip


def _explained(error: ServerError, rest: MlflowRest, name: str) -> RegistryError:
    if error.status == 401:
        return RegistryError(f"{rest.uri} wants a name and a password: set MLFLOW_TRACKING_USERNAME and "
                             "MLFLOW_TRACKING_PASSWORD")  # fmt: skip
    if error.denied:
        return RegistryError(f"{user_name()} may not change the stages of {name} at {rest.uri}: that needs the role of "
                             f"a promoter (HTTP {error.status})")  # fmt: skip
    return RegistryError(f"{rest.uri}: {' '.join(str(error).split())}")


def _holders(model: Model) -> dict[str, int | None]:
    return {stage: model.holder(stage) for stage in (STAGING, PRODUCTION)}


def _shown(holders: Mapping[str, int | None]) -> str:
    return ", ".join(f"{stage} {'holds none' if number is None else f'holds version {number}'}"
                     for stage, number in holders.items())  # fmt: skip
