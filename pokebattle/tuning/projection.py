"""A study in MLflow: every trial that has ended is a run, made from the storage, which alone counts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pokebattle.tracking import processes, trials
from pokebattle.tracking.kernel.extension import current
from pokebattle.tracking.server import answers
from pokebattle.tracking.shipping.rest import MlflowRest, ServerError
from pokebattle.tuning import storage

METRICS = ("rounds", "predict_us", "fit_seconds", "log_loss")  # the last one colours the lines
CURVE = "log_loss_by_round"
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
STANDSTILL = 5.0  # seconds without progress after which the links are not waited for


class Projection:
    """Tells the execution under way of a study's trials; without one nothing happens.

    Parameters
    ----------
    study : optuna.Study
        Its attributes name it in MLflow, and what it searches.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.key = str(study.user_attrs["key"])
        self.execution = current()
        self._told: set[int] = set()

    def note(self) -> None:
        """Write down the trials of this execution that have ended since: below a millisecond each."""
        if self.execution is None:
            return
        for trial in self.study.get_trials(deepcopy=False, states=tuple(STATES)):
            if trial.number not in self._told and trial.user_attrs.get("execution") == self.execution.id:
                self.execution.emit("trial", **told(trial, self.study))
                self._told.add(trial.number)

    def repair(self) -> None:
        """Make up for what is missing in MLflow, or there twice, of the trials of earlier executions."""
        if self.execution is not None and answers(self.execution.uri):
            repair(MlflowRest(self.execution.uri, trials.TIMEOUT), self.study, self._tell)

    def _tell(self, trial: Mapping[str, Any], parent: Mapping[str, Any] | None) -> bool:
        assert self.execution is not None
        below = {"parent": parent["info"]["run_id"]} if parent else {}
        return self.execution.emit("trial", **trial, **below)

    def publish(self, best: Mapping[str, Any], default_log_loss: float) -> str:
        """Put what was found on the notebook's run; return the links to the trials, or why there are none."""
        execution = self.execution
        if execution is None:
            return "tracking is off: the trials are in the study alone"
        figures = {"best_log_loss": self.study.best_value, "default_log_loss": default_log_loss,
                   "n_trials": sum(map(storage.counts, self.study.get_trials(deepcopy=False)))}  # fmt: skip
        execution.emit("metrics", values=figures)
        execution.emit("tags", values={trials.STUDY: self.key, trials.BEST: json.dumps(best)})
        try:
            settled = self._delivered()
            runs = trials.of_study(MlflowRest(execution.uri, trials.TIMEOUT), self.key) if settled else {}
        except (OSError, ServerError):
            settled = False
        if not settled:
            return f"{execution.uri} does not answer now: `python -m pokebattle sync` delivers the trials later"
        place = execution.run()["experiment_id"]  # the server's, which it has by now
        first = trials.shown_first([found[0] for found in runs.values()], METRICS[-1])
        whole = len(first) == len(runs)
        chosen = f"tags.`{trials.STUDY}` = '{self.key}' AND tags.`{trials.TRIAL}` != ''" if whole else (
            f"attributes.run_id IN ({','.join(repr(run) for run in first)})")  # fmt: skip
        name, state = trials.view(self.key, chosen, list(self.study.user_attrs["identity"]["search"]), METRICS)
        body = {"experiment_id": place, "key": name, "value": state}
        execution.emit("call", method="POST", path="/api/2.0/mlflow/experiments/set-experiment-tag", body=body)
        shown = f"{len(runs)} trials" if whole else f"{len(first)} of {len(runs)} trials, the best and a sample"
        links = {"parallel coordinates": trials.view_link(execution.uri, place, self.key),
                 "side by side": trials.compare_link(execution.uri, place, first)}  # fmt: skip
        note = " · ".join(f"[{name}]({link})" for name, link in links.items())
        shown += f" of study {self.study.study_name}"
        execution.describe("trials", f"{shown}: {note}")
        return "\n".join([shown, *(f"{name}: {link}" for name, link in links.items())])

    def _delivered(self) -> bool:
        """Wait, as long as the server is getting on, until it has all trials; tell whether it has."""
        assert self.execution is not None
        progress, seen, since = self.execution.progress, -1, time.monotonic()
        while not self.execution.settled():
            if progress.offset != seen:
                seen, since = progress.offset, time.monotonic()
            away = progress.facts.get("away") or progress.facts.get("refused")
            if away or time.monotonic() - since > STANDSTILL:
                return False
            time.sleep(0.1)
        return True


def told(trial: FrozenTrial, study: optuna.Study) -> dict[str, Any]:
    """Return what MLflow is told of a trial: under the same keys whatever became of it."""
    space = study.user_attrs["identity"]["search"]
    choices = {name: searched.get("choices") for name, searched in space.items()}
    began, ended = (int(moment.timestamp() * 1000) if moment else 0
                    for moment in (trial.datetime_start, trial.datetime_complete))  # fmt: skip
    return {
        "study": study.user_attrs["key"], "number": trial.number, "name": f"trial {trial.number}",
        "state": STATES[trial.state],
        "params": {name: trials.label(trial.params.get(name, ""), values) if name in trial.params else ""
                   for name, values in choices.items()},
        "metrics": {name: trial.user_attrs.get(name) for name in METRICS},
        "curve": CURVE, "steps": sorted(trial.intermediate_values.items()), "began": began or ended, "ended": ended,
    }  # fmt: skip


def repair(
    rest: MlflowRest, study: optuna.Study, tell: Callable[[dict[str, Any], Mapping[str, Any] | None], object]
) -> tuple[int, int]:  # fmt: skip
    """Compare a study with its runs: tell of trials that have none, delete the later ones where there are several.

    Parameters
    ----------
    rest : MlflowRest
        The server.
    tell : callable
        Called with each missing trial and the run of the notebook that made it, None where the server has none.

    Returns
    -------
    missing, doubled : int

    Raises
    ------
    OSError, ServerError
        The server does not answer, or refuses.
    """
    key = str(study.user_attrs["key"])
    runs = trials.of_study(rest, key)
    doubled = [run["info"]["run_id"] for found in runs.values() for run in found[1:]]
    for run_id in doubled:
        rest.call("POST", "runs/delete", run_id=run_id)
    missing = [trial for trial in study.get_trials(deepcopy=False, states=tuple(STATES))
               if trial.number not in runs and _left_alone(trial)]  # fmt: skip
    parents: dict[str, Mapping[str, Any] | None] = {}
    for trial in missing:
        execution = trial.user_attrs.get("execution", "")
        if execution and execution not in parents:
            found = trials.search(rest, f"tags.`{trials.EXECUTION}` = '{execution}'")
            parents[execution] = found[0] if found else None
        tell(told(trial, study), parents.get(execution))
    return len(missing), len(doubled)


def mend(uri: str) -> tuple[int, int, int]:
    """Repair the runs of all studies in the storage of this machine, without a notebook.

    Returns
    -------
    missing, doubled, orphans : int
        Trials made up for, runs deleted, and trials left out since the run of their notebook is not on the server.

    Raises
    ------
    OSError, ServerError
        The server does not answer, or refuses.
    """
    rest, orphans, sums = MlflowRest(uri, trials.TIMEOUT), 0, [0, 0]

    def tell(trial: Mapping[str, Any], parent: Mapping[str, Any] | None) -> None:
        nonlocal orphans
        orphans += parent is None
        if parent:
            trials.deliver(rest, trial, parent)

    kept = storage.connect(storage.url_of(""))
    for name in optuna.get_all_study_names(kept):
        study = optuna.load_study(study_name=name, storage=kept)
        if "key" in study.user_attrs:
            sums = [total + count for total, count in zip(sums, repair(rest, study, tell), strict=True)]
    return sums[0] - orphans, sums[1], orphans


def _left_alone(trial: FrozenTrial) -> bool:
    """Tell whether the process that made a trial has ended or is elsewhere, so that nobody here is at delivering it."""
    worker = trial.user_attrs.get("worker")
    return not worker or processes.state_of(worker) != "alive"
