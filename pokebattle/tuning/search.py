"""A search: one Optuna study of a version's settings, which several processes and machines can continue."""

from __future__ import annotations

import ast
import inspect
import json
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from textwrap import dedent
from typing import Any

import cloudpickle
import numpy as np
import optuna
import pandas as pd
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from nbtrack import processes, run
from pokebattle.datasets import BattleSet
from pokebattle.errors import UserError, did_you_mean
from pokebattle.model import BattleWinner
from pokebattle.params import SEARCHABLE, Params, ParamsError
from pokebattle.tuning import storage
from pokebattle.tuning.inner_folds import InnerFolds
from pokebattle.tuning.trial_runs import STATES, TrialRuns

POLL = 0.5  # seconds between two checks of the workers
FAILURES = 5  # consecutive failed trials that end a search


class TuningError(UserError):
    """A search cannot continue."""


@dataclass(frozen=True)
class Goal:
    """The condition that ends a search.

    Parameters
    ----------
    n_trials : int
        Number of trials in the study.
    stop_after : int, default 0
        Number of trials since the best one; 0 for no limit.
    """

    n_trials: int
    stop_after: int = 0

    def reached(self, study: optuna.Study) -> bool:
        """Return whether no further trial should begin.

        Parameters
        ----------
        study : optuna.Study
            Trials that are running in any process count towards `n_trials`.
        """
        trials = study.get_trials(deepcopy=False)
        if sum(storage.counts(trial) or trial.state == TrialState.RUNNING for trial in trials) >= self.n_trials:
            return True
        judged = [trial for trial in trials if storage.counts(trial)]
        if len(judged) >= FAILURES and all("error" in trial.user_attrs for trial in judged[-FAILURES:]):
            return True
        values = [trial.value if trial.state == TrialState.COMPLETE else float("inf") for trial in judged]
        if not self.stop_after or not values:
            return False
        return len(values) - 1 - int(np.argmin(values)) >= self.stop_after  # type: ignore[arg-type]

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Stop the optimisation in this process if the goal is reached (a callback of `Study.optimize`)."""
        if self.reached(study):
            study.stop()


@dataclass
class Task:
    """The objective as executed by one process: it records the owner and the error of a trial.

    Parameters
    ----------
    objective : callable
        Returns the value of a trial.
    interval : int
        Number of trees between two values that a trial reports.
    random_state : int
    execution : str
        Id of the tracked execution; "" without tracking.
    """

    objective: Callable[[Trial], float]
    interval: int
    random_state: int
    execution: str = ""

    def __getstate__(self) -> dict[str, Any]:
        # A function of a notebook cannot be imported by other processes: cloudpickle sends its code.
        return self.__dict__ | {"objective": cloudpickle.dumps(self.objective)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"objective": cloudpickle.loads(state["objective"])}

    def owner(self) -> dict[str, Any]:
        """Return the user attributes of every trial that this process starts."""
        return {"worker": processes.identity(os.getpid()), "execution": self.execution}

    def __call__(self, trial: Trial) -> float:
        """Return the objective's value, and record an error as user attribute of the trial.

        Parameters
        ----------
        trial : Trial

        Raises
        ------
        Exception
            As the objective does.
        """
        try:
            return self.objective(trial)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            raise


@dataclass
class Search:
    """An open study, see `open_search`.

    Attributes
    ----------
    study : optuna.Study
    kept : PatientStorage
        The storage of the study.
    url : str
        Address of the storage.
    folds : InnerFolds
        They judge the trials.
    notes : list of str
        Remarks for the reader: whether the study is new or continued, and related studies.
    """

    study: optuna.Study
    kept: storage.PatientStorage
    url: str
    folds: InnerFolds
    notes: list[str] = field(default_factory=list)

    def run(
        self,
        n_trials: int,
        *,
        objective: Callable[[Trial], float] | None = None,
        workers: int = 1,
        minutes: float = 0.0,
        stop_after: int = 0,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Run trials until the study has enough, the time is over, or the user interrupts. Finished trials are kept.

        Parameters
        ----------
        n_trials : int
            Total number of trials in the study, including those of earlier runs and other machines.
        objective : callable, optional
            Returns the value of a trial, in nats per battle; by default the log-loss over `folds`.
        workers : int, default 1
            Number of processes. With 1, trials run in this process, and the same seed gives the same study.
        minutes : float, default 0
            Time after which no further trial begins; 0 for no limit.
        stop_after : int, default 0
            The search ends after this many trials without a new best one; 0 for no limit.
        progress : callable, optional
            Called with the number of trials since the last call.

        Raises
        ------
        TuningError
            If the study's trials have another objective, the last `FAILURES` trials have failed, or too many workers
            have crashed.
        """
        current = run()
        goal, projection = Goal(n_trials, stop_after), TrialRuns(self.study)
        execution = current.execution_id if current else ""
        task = Task(objective or self.folds, self.folds.interval, self.folds.params.random_state, execution)
        deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
        if objective:
            self._check_objective(objective)
        storage.release(self.study)
        projection.repair()
        done = 0

        def note() -> None:
            nonlocal done
            projection.note()
            before, done = done, sum(map(storage.counts, self.study.get_trials(deepcopy=False)))
            progress(done - before)

        note()
        try:
            if workers == 1:
                self._work(goal, task, deadline, note)
            else:
                self._employ(workers, goal, task, deadline, note)
        except KeyboardInterrupt:
            self.notes.append("interrupted: finished trials are kept; run again to continue")
        finally:
            storage.release(self.study)
            note()
        last = [trial for trial in self.study.get_trials(deepcopy=False) if storage.counts(trial)][-FAILURES:]
        if last and all("error" in trial.user_attrs for trial in last):
            raise TuningError(f"the last {len(last)} trials failed; the last one with {last[-1].user_attrs['error']}")

    def _check_objective(self, objective: Callable[[Trial], float]) -> None:
        """Raise TuningError if the study's trials have an objective with other code. Comments do not count."""
        code = ast.unparse(ast.parse(dedent(inspect.getsource(objective))))
        if self.study.user_attrs.get("objective", code) != code:
            raise TuningError(
                f"study {self.study.study_name} has trials of another objective, which cannot be compared: continue it "
                "with the old objective, or begin a new study in another storage, for example sqlite:///other.db"
            )
        self.study.set_user_attr("objective", code)

    def _work(self, goal: Goal, task: Task, deadline: float, note: Callable[[], None]) -> None:
        """Run trials in this process."""
        self.kept.owner = task.owner()
        while not goal.reached(self.study) and (left := deadline - time.monotonic()) > 0:
            began = len(self.study.get_trials(deepcopy=False))
            try:
                _optimize(self.study, task, goal, left, lambda *_: note())
            except KeyboardInterrupt:
                for trial in self.study.get_trials(states=(TrialState.FAIL,))[-1:]:
                    if trial.number >= began - 1 and "error" not in trial.user_attrs:
                        storage.retry(self.study, trial)
                raise
            except UpdateFinishedTrialError:  # the trial counted as lost, and another process has finished it
                continue

    def _employ(self, workers: int, goal: Goal, task: Task, deadline: float, note: Callable[[], None]) -> None:
        """Run trials in separate processes, and replace processes that were killed."""
        spawn, killed = multiprocessing.get_context("spawn"), 0
        crew: list[SpawnProcess] = []
        try:
            while True:
                more = not goal.reached(self.study) and (left := deadline - time.monotonic()) > 0
                while more and len(crew) < workers:
                    arguments = (self.url, self.study.study_name, task, goal, left)
                    crew.append(spawn.Process(target=_worker, args=arguments, daemon=True))
                    crew[-1].start()
                if not crew:
                    return
                wait([process.sentinel for process in crew], POLL)
                ended = [process for process in crew if process.exitcode is not None]
                crew = [process for process in crew if process.exitcode is None]
                if lost := [process.exitcode for process in ended if process.exitcode]:
                    killed += len(lost)
                    storage.release(self.study)
                    if killed > workers * FAILURES:
                        raise TuningError(f"{killed} workers were killed, the last with exit code {lost[-1]}")
                note()
        finally:
            for process in crew:
                process.terminate()
            for process in crew:
                process.join()

    # -- results ---------------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """Return the finished trials.

        Returns
        -------
        DataFrame
            Index trial; columns state, log_loss (nats per battle), rounds, steps, predict_us (microseconds per
            matchup), and one for each searched parameter.
        """
        rows = {
            trial.number: {
                "state": STATES[trial.state],
                **{name: trial.user_attrs.get(name) for name in ("log_loss", "rounds", "steps", "predict_us")},
                **trial.params,
            }
            for trial in self.study.get_trials(deepcopy=False, states=tuple(STATES))
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trial")

    def best(self) -> dict[str, Any]:
        """Return the best trial's settings for a version: floats with four significant digits, and `n_estimators`.

        `n_estimators` is the number of trees in the best round.
        """
        best = self.study.best_trial
        values = {
            name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in best.params.items()
        }
        return values | {"n_estimators": best.user_attrs["rounds"]}

    def compared(self) -> pd.DataFrame:
        """Compare the version's own settings with the best ones.

        Returns
        -------
        DataFrame
            Index parameter, and log_loss (nats per battle; missing if no trial had these settings); columns own and
            best.
        """
        best, own = self.best(), self.folds.defaults()
        reached = [
            trial.value
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.params == own
        ]
        columns = {
            "own": {"n_estimators": self.folds.params.n_estimators, **own, "log_loss": [*reached, np.nan][0]},
            "best": best | {"log_loss": self.study.best_value},
        }
        return pd.DataFrame(columns)

    def fit_best(self) -> BattleWinner:
        """Return a model with the best settings, fitted on the whole training part."""
        return self.folds.fit(self.best())

    def record_best(self) -> str:
        """Write the result to the notebook's run.

        Returns
        -------
        str
            Links to the trials in MLflow, or the reason why there are none.
        """
        return TrialRuns(self.study).record_best(self.best(), dict(self.compared()["own"])["log_loss"])


def open_search(params: Params, battles: BattleSet, url: str = "", name: str = "") -> Search:
    """Open the study that belongs to a version, its search space and its battles. Create it if there is none.

    Parameters
    ----------
    params : Params
        The version.
    battles : BattleSet
        The set whose training part the search uses.
    url : str
        Address of the storage, see `storage.url_of`.
    name : str
        An existing study to continue. By default the name is made from the version and a hash of version, search space,
        battles and fixed settings.

    Returns
    -------
    Search

    Raises
    ------
    ParamsError
        If there is no study `name`, or it belongs to a different search.
    UnavailableError
        If the storage does not answer.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = storage.url_of(url)
    kept = storage.connect(url)
    folds, identity = InnerFolds(params, battles), _identity(params, battles)
    own_name = f"{params.version}-{sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]}"
    known = {study.study_name: study for study in optuna.get_all_study_summaries(kept, include_best_trial=False)}
    if name and name not in known:
        near = did_you_mean(name, known, 0.3) or f"; the latest are {', '.join(list(known)[-3:]) or 'none'}"
        raise ParamsError(f"study: expected a study in the storage, got {name!r}{near}")
    if name and (what := _difference(known[name].user_attrs.get("identity", {}), identity)):
        raise ParamsError(
            f"study: expected a study of the same search as {params.version}, got {name!r}, whose {what} "
            f"differs; without a name, the study is {own_name}"
        )
    name, notes = name or own_name, []
    if name in known:
        notes.append(f"study {name} continues with {known[name].n_trials} trials")
    else:
        notes.append(f"study {name} is new")
        related = [
            summary
            for summary in known.values()
            if summary.user_attrs.get("identity", {}).get("version") == params.version
        ]
        for summary in related[-3:]:
            what = _difference(summary.user_attrs["identity"], identity)
            notes.append(
                f"study {summary.study_name} with {summary.n_trials} trials is not changed: its {what} differs"
            )
    study = _study(kept, name, identity, folds)
    study.sampler = NumberedSampler(params.random_state)
    return Search(study, kept, url, folds, notes)


def _identity(params: Params, battles: BattleSet) -> dict[str, Any]:
    """Return everything that must be equal for two trials to be comparable, and therefore to be in one study."""
    fixed = (*SEARCHABLE, "n_folds", "early_stopping_rounds", "random_state")
    settings = {name: getattr(params, name) for name in fixed if name not in params.search}
    space = {name: searched.model_dump(exclude_defaults=True) for name, searched in params.search.items()}
    return {"version": params.version, "search": space, "battles": battles.digest, "settings": settings}


def _difference(identity: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    return " and ".join(key for key in wanted if identity.get(key) != wanted[key])


def _study(
    kept: optuna.storages.BaseStorage, name: str, identity: Mapping[str, Any], folds: InnerFolds
) -> optuna.Study:
    """Create or load a study. The first trial of a new study has the version's own settings.

    If several processes do this at once, one creates the study, and the others wait for it.
    """
    pruner = _pruner(folds.interval)
    try:
        study = optuna.create_study(storage=kept, study_name=name, pruner=pruner)
    except DuplicatedStudyError:
        study = optuna.load_study(storage=kept, study_name=name, pruner=pruner)
        while "key" not in study.user_attrs:  # another process is still creating the study
            time.sleep(0.1)
        return study
    study.enqueue_trial(folds.defaults())
    study.set_user_attr("identity", identity)
    study.set_user_attr("key", f"{name}-{uuid.uuid4().hex[:6]}")
    return study


def _pruner(interval: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2 * interval)


class NumberedSampler(optuna.samplers.TPESampler):
    """Optuna's TPE sampler with a separate seed for each trial, whichever process runs it.

    With one seed per process, processes that start at the same time would draw the same trials, and a continued search
    would draw its first trials again.

    Parameters
    ----------
    seed : int
        The seed of a trial is this plus the trial's number.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Reset the random number generators to the trial's seed.

        Parameters
        ----------
        study : optuna.Study
        trial : FrozenTrial
        """
        for rng in (self._rng, self._random_sampler._rng):
            rng.rng.seed((self.seed + trial.number) % 2**32)
        super().before_trial(study, trial)


def _optimize(study: optuna.Study, task: Task, goal: Goal, left: float, *more: Callable[..., None]) -> None:
    timeout = None if left == float("inf") else left
    study.optimize(task, timeout=timeout, callbacks=[*more, goal], catch=(Exception,))


def _worker(url: str, name: str, task: Task, goal: Goal, left: float) -> None:
    """Run trials until the goal is reached; the main function of a worker, which ends with its parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kept = storage.connect(url)
    kept.owner = task.owner()
    study = optuna.load_study(
        storage=kept, study_name=name, pruner=_pruner(task.interval), sampler=NumberedSampler(task.random_state)
    )
    if not goal.reached(study):
        _optimize(study, task, goal, left)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        wait([parent.sentinel])
        os._exit(1)
