"""Unattended retraining: bring a training's run to Production, and report how far it came and why."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbtrack.executions import run_address
from pokebattle.registry import description, gates, promotion, stages
from pokebattle.registry.gate_report import Gate, Report
from pokebattle.registry.stages import PRODUCTION, STAGING, RegistryError

PROMOTED, STOPPED, REFUSED, FAILED = "promoted", "passed, not promoted", "refused by a gate", "failed"
EXIT_CODES = {PROMOTED: 0, STOPPED: 0, REFUSED: 1, FAILED: 2}
FIGURES = {"log_loss": ("log-loss", ".4f"), "excess_percent": ("excess, %", ".1f"), "accuracy": ("accuracy", ".3f")}
COLOUR = '%%{init: {"themeVariables": {"xyChart": {"plotColorPalette": "#4c78a8"}}}}%%'
POLICY = re.compile(r"(\w+)_excess_percent")


@dataclass
class Retraining:
    """The state of a retraining.

    Attributes
    ----------
    params : str
        The version in params/ that is trained.
    outcome : str
        A key of `EXIT_CODES`.
    reason : str
        The reason for the outcome, in one line.
    run : mapping
        The content of ``run.json`` of the training's run; empty before the run exists.
    name : str
        The registered model.
    version : int
        The registered version; 0 before it exists.
    reports : list of tuple of str and Report
        Purpose and report of each judgement.
    """

    params: str
    outcome: str = FAILED
    reason: str = "it was not finished"
    run: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    version: int = 0
    reports: list[tuple[str, Report]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Return 0 if everything was done, 1 if a gate refused the model, 2 if something did not work."""
        return EXIT_CODES[self.outcome]

    def markdown(self) -> str:
        """Return the report as Markdown, for the summary of a CI job.

        Such pages show neither local nor embedded images, but they show mermaid charts.
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


def advance(state: Retraining, shared: bool, why: str, on_gate: Callable[[Gate], object] | None = None) -> None:
    """Judge the version that a run has registered and promote it to Staging and Production, if the gates allow it.

    Errors of the registry and the server do not raise: they become the outcome.

    Parameters
    ----------
    state : Retraining
        With ``run``. Outcome, reason, version and reports are written to it.
    shared : bool
        Whether the registry is the team's. In other registries, stages have no meaning, so the version is only judged.
    why : str
        The reason, for the history.
    on_gate : callable, optional
        Called with every gate as soon as it is measured.
    """
    try:
        state.name, state.version = _registered(state.run)
        if not shared:
            with promotion.connected(state.name) as rest:
                report = gates.judge(rest, state.version, state.name, on_gate=on_gate)
            state.reports.append(("Gates", report))
            state.outcome, state.reason = (
                (STOPPED, "There is no shared server, so nothing was promoted.")
                if report.passed
                else (REFUSED, str(promotion.RefusedError(report)))
            )
            return
        for stage in (STAGING, PRODUCTION):
            _promote(state, stage, why, on_gate)
        state.outcome, state.reason = PROMOTED, f"It is in {PRODUCTION}."
    except promotion.RefusedError as error:
        state.outcome, state.reason = REFUSED, str(error)
    except (RegistryError, OSError) as error:
        state.outcome, state.reason = FAILED, str(error)


def _promote(state: Retraining, stage: str, why: str, on_gate: Callable[[Gate], object] | None) -> None:
    purpose = f"Gates before {stage}"
    try:
        outcome = promotion.promote(state.name, state.version, stage, why, on_gate=on_gate)
    except promotion.RefusedError as error:
        state.reports.append((purpose, error.report))
        raise
    if outcome.report:
        state.reports.append((purpose, outcome.report))


def _registered(run: Mapping[str, Any]) -> tuple[str, int]:
    """Return name and number of the newest version that a run has registered."""
    name = str(run["params"]["model_name"])
    with promotion.connected(name) as rest:
        versions = [
            version.number for version in stages.read(rest, name).versions.values() if version.run_id == run["run_id"]
        ]
    if not versions:
        raise RegistryError(
            f"run {run['run_id']} has registered no version of {name}: see `python -m pokebattle doctor`"
        )
    return name, max(versions)


def _results(metrics: Mapping[str, float]) -> list[str]:
    """Return a table of the metrics of the model, the baselines and the Bayes limit, and charts of them."""
    names = sorted(
        {
            key.removeprefix("baseline_").removesuffix("_log_loss")
            for key in metrics
            if key.startswith("baseline_") and key.endswith("_log_loss")
        }
    )
    keys = {"model": {"accuracy": "test_accuracy"} | {name: name for name in ("log_loss", "excess_percent")}}
    keys |= {name.replace("_", " "): {figure: f"baseline_{name}_{figure}" for figure in FIGURES} for name in names}
    keys["Bayes limit"] = {"log_loss": "bayes_log_loss", "accuracy": "bayes_accuracy"}
    named = {
        predictor: {figure: metrics[key] for figure, key in of.items() if key in metrics}
        for predictor, of in keys.items()
    }
    named = {predictor: figures_of for predictor, figures_of in named.items() if figures_of}
    rows = [
        [
            predictor,
            *(
                format(figures_of[figure], form) if figure in figures_of else ""
                for figure, (_, form) in FIGURES.items()
            ),
        ]
        for predictor, figures_of in named.items()
    ]
    parts = [
        "## Result on the test part",
        description.table(("predictor", *(title for title, _ in FIGURES.values())), rows),
    ]
    losses = {predictor: figures_of["log_loss"] for predictor, figures_of in named.items() if "log_loss" in figures_of}
    parts.append(chart("Log-loss, nats per battle", losses))
    excess = {
        match[1].replace("_", " "): value
        for key, value in metrics.items()
        if (match := POLICY.fullmatch(key)) and not key.startswith("baseline_")
    }
    if excess:
        parts.append(
            description.table(("policy", "excess of the model, %"), [(n, f"{v:.1f}") for n, v in excess.items()])
        )
        parts.append(chart("Excess of the model by policy, %", excess))
    return parts


def chart(title: str, bars: Mapping[str, float]) -> str:
    """Return a bar chart as a mermaid code block, for example for pages on GitHub.

    Parameters
    ----------
    title : str
    bars : mapping of str to float
        Values by label. Negative values are drawn as 0.
    """
    values = [max(value, 0.0) for value in bars.values()]
    labels = ", ".join(f'"{name}"' for name in bars)
    lines = [
        COLOUR,
        "xychart-beta horizontal",
        f'    title "{title}"',
        f"    x-axis [{labels}]",
        f"    y-axis 0 --> {max(values) * 1.05 or 1.0:.4g}",
        f"    bar [{', '.join(f'{value:.4g}' for value in values)}]",
    ]
    return "\n".join(["```mermaid", *lines, "```"])


def reason(commit: str) -> str:
    """Return the reason of an automatic promotion, for the history: the commit and, on GitHub, the job's address.

    Parameters
    ----------
    commit : str
        Hash of the commit; "" if unknown.
    """
    job = [os.environ.get(name, "") for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")]
    where = ", {}/{}/actions/runs/{}".format(*job) if all(job) else ""
    return f"retrained from commit {commit[:10] or 'unknown'}{where}"
