"""Retraining that nobody watches: from a training's run to Production, and the report of how far it came and why."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pokebattle.registry import gates, page, promotion, stages
from pokebattle.registry.report import Gate, Report
from pokebattle.registry.stages import PRODUCTION, STAGING, RegistryError
from pokebattle.tracking.journal import run_address

PROMOTED, STOPPED, REFUSED, BROKEN = "promoted", "stopped after the gate", "refused by a gate", "broken"
EXIT_CODES = {PROMOTED: 0, STOPPED: 0, REFUSED: 1, BROKEN: 2}
FIGURES = {"log_loss": ("log-loss", ".4f"), "excess_percent": ("excess, %", ".1f"), "accuracy": ("accuracy", ".3f")}
COLOUR = '%%{init: {"themeVariables": {"xyChart": {"plotColorPalette": "#4c78a8"}}}}%%'
POLICY = re.compile(r"(\w+)_excess_percent")


@dataclass
class Retraining:
    """How far a retraining has come.

    Attributes
    ----------
    params : str
        The version of params/ that is trained.
    outcome : str
        One of `EXIT_CODES`.
    reason : str
        Why it is that, in one line.
    run : mapping
        What ``run.json`` says of the training's run; empty before there is one.
    name, version
        The registered model.
    reports : list
        Of each judgement what it was for, and the gates' report.
    """

    params: str
    outcome: str = BROKEN
    reason: str = "it was not finished"
    run: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    version: int = 0
    reports: list[tuple[str, Report]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when all was done that could be, 1 when a gate refused the model, 2 when something did not work."""
        return EXIT_CODES[self.outcome]

    def markdown(self) -> str:
        """Return the report for a job's summary.

        Such pages show neither local pictures nor embedded ones, but they draw mermaid's charts.
        """
        what = f"{self.name} version {self.version}" if self.version else "no version was registered"
        parts = [f"# Retraining of {self.params}: {self.outcome}", f"{what}. {self.reason}"]
        if self.run.get("run_id"):
            parts.append(f"Run: {run_address(dict(self.run))} ({self.run.get('status', 'open')})")
        if metrics := self.run.get("metrics"):
            parts += _results(metrics)
        for purpose, report in self.reports:
            parts += [f"## {purpose}", report.markdown()]
        return "\n\n".join(parts) + "\n"


def advance(told: Retraining, shared: bool, why: str, tell: Callable[[Gate], object] | None = None) -> None:
    """Bring the version that a run has registered as far as its gates let it.

    Parameters
    ----------
    told : Retraining
        With ``run``; what happens is noted in it.
    shared : bool
        The registry is the team's; in any other no stage is worth anything, so it is judged and nothing more.
    why : str
        The reason, for the history.
    tell : callable, optional
        Hears of every gate as soon as it is measured.
    """
    try:
        told.name, told.version = _registered(told.run)
        if not shared:
            with promotion.connected(told.name) as rest:
                report = gates.judge(rest, told.version, told.name, tell=tell)
            told.reports.append(("Gates", report))
            told.outcome, told.reason = (STOPPED, "There is no shared server, so nothing was promoted.") \
                if report.passed else (REFUSED, str(promotion.RefusedError(report)))
            return
        for stage in (STAGING, PRODUCTION):
            _promote(told, stage, why, tell)
        told.outcome, told.reason = PROMOTED, f"It is in {PRODUCTION}."
    except promotion.RefusedError as error:
        told.outcome, told.reason = REFUSED, str(error)
    except (RegistryError, OSError) as error:
        told.outcome, told.reason = BROKEN, str(error)


def _promote(told: Retraining, stage: str, why: str, tell: Callable[[Gate], object] | None) -> None:
    purpose = f"Gates before {stage}"
    try:
        outcome = promotion.promote(told.name, told.version, stage, why, tell=tell)
    except promotion.RefusedError as error:
        told.reports.append((purpose, error.report))
        raise
    if outcome.report:
        told.reports.append((purpose, outcome.report))


def _registered(run: Mapping[str, Any]) -> tuple[str, int]:
    """Return name and number of the version that a run has registered."""
    name = str(run["params"]["model_name"])
    with promotion.connected(name) as rest:
        found = [version.number for version in stages.read(rest, name).versions.values()
                 if version.run_id == run["run_id"]]  # fmt: skip
    if not found:
        raise RegistryError(f"run {run['run_id']} has registered no version of {name}: `python -m pokebattle doctor`")
    return name, max(found)


def _results(metrics: Mapping[str, float]) -> list[str]:
    """Return a table of the model beside the rules and the limit, and charts of the same figures."""
    names = sorted({key.removeprefix("baseline_").removesuffix("_log_loss") for key in metrics
                    if key.startswith("baseline_") and key.endswith("_log_loss")})  # fmt: skip
    keys = {"model": {"accuracy": "test_accuracy"} | {name: name for name in ("log_loss", "excess_percent")}}
    keys |= {name.replace("_", " "): {figure: f"baseline_{name}_{figure}" for figure in FIGURES} for name in names}
    keys["Bayes limit"] = {"log_loss": "bayes_log_loss", "accuracy": "bayes_accuracy"}
    named = {who: {figure: metrics[key] for figure, key in of.items() if key in metrics} for who, of in keys.items()}
    named = {who: found for who, found in named.items() if found}
    rows = [[who, *(format(found[figure], form) if figure in found else "" for figure, (_, form) in FIGURES.items())]
            for who, found in named.items()]  # fmt: skip
    parts = ["## Result on the test part", page.table(("predictor", *(title for title, _ in FIGURES.values())), rows)]
    losses = {who: found["log_loss"] for who, found in named.items() if "log_loss" in found}
    parts.append(chart("Log-loss, nats a battle", losses))
    excess = {found[1].replace("_", " "): value for key, value in metrics.items()
              if (found := POLICY.fullmatch(key)) and not key.startswith("baseline_")}  # fmt: skip
    if excess:
        parts.append(page.table(("policy", "excess of the model, %"), [(n, f"{v:.1f}") for n, v in excess.items()]))
        parts.append(chart("Excess of the model by policy, %", excess))
    return parts


def chart(title: str, bars: Mapping[str, float]) -> str:
    """Return a bar chart that pages with mermaid draw, as GitHub's do; what is below 0 has no bar."""
    values = [max(value, 0.0) for value in bars.values()]
    labels = ", ".join(f'"{name}"' for name in bars)
    lines = [COLOUR, "xychart-beta horizontal", f'    title "{title}"', f"    x-axis [{labels}]",
             f"    y-axis 0 --> {max(values) * 1.05 or 1.0:.4g}",
             f"    bar [{', '.join(f'{value:.4g}' for value in values)}]"]  # fmt: skip
    return "\n".join(["```mermaid", *lines, "```"])


def reason(commit: str) -> str:
    """Return why a version is promoted, for the history: the commit, and the job that did it where there is one."""
    found = [os.environ.get(name, "") for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")]
    where = ", {}/{}/actions/runs/{}".format(*found) if all(found) else ""
    return f"retrained from commit {commit[:10] or 'unknown'}{where}"

