"""Show a study in MLflow: every finished trial becomes a run. Optuna's storage remains the authoritative record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nbtrack import processes, run, trials
from nbtrack.mlflow_rest import MlflowRest, ServerError
from nbtrack.server import answers
from nbtrack.tags import BEST, EXECUTION, STUDY, TRIAL
from pokebattle.tuning import storage

METRICS = ("rounds", "predict_us", "fit_seconds", "log_loss")  # the last one colours the parallel coordinates
CURVE = "log_loss_by_round"
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class TrialRuns:
    """Send a study's trials to MLflow through the current run. Does nothing if nothing is tracked.

    Parameters
    ----------
    study : optuna.Study
        With the user attributes key (its name in MLflow) and identity, see `search.open_search`.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.key = str(study.user_attrs["key"])
        self.run = run()
        self._sent: set[int] = set()

    def note(self) -> None:
        """Send the trials of this execution that have ended since the last call. Takes less than 1 ms per trial."""
        if self.run is None:
            return
        for trial in self.study.get_trials(deepcopy=False, states=tuple(STATES)):
            if trial.number not in self._sent and trial.user_attrs.get("execution") == self.run.execution_id:
                self.run.log_trial(described(trial, self.study))
                self._sent.add(trial.number)

    def repair(self) -> None:
        """Send trials of earlier executions that are missing in MLflow, and delete duplicate runs."""
        if self.run is not None and answers(self.run.uri):
            repair(MlflowRest(self.run.uri, trials.TIMEOUT), self.study, self._deliver)

    def _deliver(self, trial: Mapping[str, Any], parent: Mapping[str, Any] | None) -> bool:
        assert self.run is not None
        return self.run.log_trial(trial, parent["info"]["run_id"] if parent else "")

    def record_best(self, best: Mapping[str, Any], default_log_loss: float) -> str:
        """Write the result of the search to the notebook's run.

        Parameters
        ----------
        best : mapping
            The best settings, from `search.Search.best`.
        default_log_loss : float
            Log-loss of the version's own settings, in nats per battle.

        Returns
        -------
        str
            Links to the trials in MLflow, or the reason why there are none.
        """
        current = self.run
        if current is None:
            return "tracking is off: the trials are in the study alone"
        figures = {
            "best_log_loss": self.study.best_value,
            "default_log_loss": default_log_loss,
            "n_trials": sum(map(storage.counts, self.study.get_trials(deepcopy=False))),
        }
        current.log_metrics(figures)
        current.set_tags({STUDY: self.key, BEST: json.dumps(best)})
        try:
            settled = current.wait_until_delivered()
            runs = trials.of_study(MlflowRest(current.uri, trials.TIMEOUT), self.key) if settled else {}
        except (OSError, ServerError):
            settled = False
        if not settled:
            return f"{current.uri} does not answer now: `python -m pokebattle sync` delivers the trials later"
        place = current.experiment_id  # the server's id, known by now
        first = trials.shown_first([copies[0] for copies in runs.values()], METRICS[-1])
        whole = len(first) == len(runs)
        chosen = (
            f"tags.`{STUDY}` = '{self.key}' AND tags.`{TRIAL}` != ''"
            if whole
            else (f"attributes.run_id IN ({','.join(repr(run) for run in first)})")
        )
        name, state = trials.shared_view_tag(
            self.key, chosen, list(self.study.user_attrs["identity"]["search"]), METRICS
        )
        current.set_experiment_tag(name, state)
        shown = f"{len(runs)} trials" if whole else f"{len(first)} of {len(runs)} trials, the best and a sample"
        links = {
            "parallel coordinates": trials.view_link(current.uri, place, self.key),
            "side by side": trials.compare_link(current.uri, place, first),
        }
        note = " · ".join(f"[{name}]({link})" for name, link in links.items())
        shown += f" of study {self.study.study_name}"
        current.describe("trials", f"{shown}: {note}")
        return "\n".join([shown, *(f"{name}: {link}" for name, link in links.items())])


def described(trial: FrozenTrial, study: optuna.Study) -> dict[str, Any]:
    """Return the description of a trial for MLflow, with the same keys for every state of the trial.

    Parameters
    ----------
    trial : FrozenTrial
        A finished trial.
    study : optuna.Study
    """
    space = study.user_attrs["identity"]["search"]
    choices = {name: searched.get("choices") for name, searched in space.items()}
    began, ended = (
        int(moment.timestamp() * 1000) if moment else 0 for moment in (trial.datetime_start, trial.datetime_complete)
    )
    return {
        "study": study.user_attrs["key"],
        "number": trial.number,
        "name": f"trial {trial.number}",
        "state": STATES[trial.state],
        "params": {
            name: trials.label(trial.params.get(name, ""), values) if name in trial.params else ""
            for name, values in choices.items()
        },
        "metrics": {name: trial.user_attrs.get(name) for name in METRICS},
        "curve": CURVE,
        "steps": sorted(trial.intermediate_values.items()),
        "began": began or ended,
        "ended": ended,
    }


def repair(
    rest: MlflowRest, study: optuna.Study, deliver: Callable[[dict[str, Any], Mapping[str, Any] | None], object]
) -> tuple[int, int]:
    """Compare a study with its runs: report trials without a run, and delete duplicate runs except the first.

    Parameters
    ----------
    rest : MlflowRest
        The server.
    study : optuna.Study
    deliver : callable
        Called with each missing trial and the run of the notebook that created it (None if the server has no such run).

    Returns
    -------
    missing, doubled : int
        Number of missing trials, and of deleted runs.

    Raises
    ------
    OSError, ServerError
        If the server does not answer, or refuses a request.
    """
    key = str(study.user_attrs["key"])
    runs = trials.of_study(rest, key)
    doubled = [run["info"]["run_id"] for copies in runs.values() for run in copies[1:]]
    for run_id in doubled:
        rest.call("POST", "runs/delete", run_id=run_id)
    missing = [
        trial
        for trial in study.get_trials(deepcopy=False, states=tuple(STATES))
        if trial.number not in runs and _left_alone(trial)
    ]
    parents: dict[str, Mapping[str, Any] | None] = {}
    for trial in missing:
        execution = trial.user_attrs.get("execution", "")
        if execution and execution not in parents:
            parents[execution] = next(rest.search_runs(f"tags.`{EXECUTION}` = '{execution}'"), None)
        deliver(described(trial, study), parents.get(execution))
    return len(missing), len(doubled)


def repair_all(uri: str) -> tuple[int, int, int]:
    """Repair the runs of all studies in the storage of this machine, without a notebook.

    Parameters
    ----------
    uri : str
        Address of the MLflow server.

    Returns
    -------
    missing, doubled, orphans : int
        Number of trials delivered, of duplicate runs deleted, and of trials that could not be delivered because the
        run of their notebook is not on the server.

    Raises
    ------
    OSError, ServerError
        If the server does not answer, or refuses a request.
    UnavailableError
        If the storage does not answer.
    """
    rest, orphans, sums = MlflowRest(uri, trials.TIMEOUT), 0, [0, 0]

    def deliver(trial: Mapping[str, Any], parent: Mapping[str, Any] | None) -> None:
        nonlocal orphans
        orphans += parent is None
        if parent:
            trials.deliver(rest, trial, parent)

    kept = storage.connect(storage.url_of(""))
    for name in optuna.get_all_study_names(kept):
        study = optuna.load_study(study_name=name, storage=kept)
        if "key" in study.user_attrs:
            sums = [total + count for total, count in zip(sums, repair(rest, study, deliver), strict=True)]
    return sums[0] - orphans, sums[1], orphans


def _left_alone(trial: FrozenTrial) -> bool:
    """Return whether the process of a trial is not running on this machine, so that it cannot deliver the trial."""
    worker = trial.user_attrs.get("worker")
    return not worker or processes.state_of(worker) != "alive"
