"""A search: one study of a version's settings, continued by whoever opens it, on one machine or on several."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from pokebattle import registry
from pokebattle.datasets import BattleSet
from pokebattle.params import SEARCHABLE, Params, ParamsError
from pokebattle.registry import Published
from pokebattle.tracking import processes
from pokebattle.tracking.kernel.extension import current
from pokebattle.tuning import storage
from pokebattle.tuning.objective import Objective
from pokebattle.tuning.projection import STATES, Projection

POLL = 0.5  # seconds between two looks at the workers' trials
FAILURES = 5  # trials that fail one after the other end a search


class TuningError(RuntimeError):
    """A search that cannot go on."""


@dataclass(frozen=True)
class Goal:
    """When a search has enough: so many trials in the study, or so many without a better one (0: never)."""

    n_trials: int
    stop_after: int = 0

    def reached(self, study: optuna.Study) -> bool:
        """Tell whether no further trial is to begin; one that another process is at counts."""
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
        """Stop the study's optimisation in this process, as its callback."""
        if self.reached(study):
            study.stop()


@dataclass
class Task:
    """The objective as a process carries it out: the trial says whose it is, and what went wrong."""

    objective: Objective
    execution: str = ""

    def owner(self) -> dict[str, Any]:
        """Return what is noted on every trial that this process begins."""
        return {"worker": processes.identity(os.getpid()), "execution": self.execution}

    def __call__(self, trial: Trial) -> float:
        """Return the objective's value."""
        try:
            return self.objective(trial)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            raise


@dataclass
class Search:
    """A study that is open.

    Attributes
    ----------
    study : optuna.Study
    kept : PatientStorage
        Where it is.
    url : str
        Of that storage.
    objective : Objective
    notes : list of str
        What a reader should know: whether it is new or goes on, and which others there are.
    """

    study: optuna.Study
    kept: storage.PatientStorage
    url: str
    objective: Objective
    notes: list[str] = field(default_factory=list)

    def run(
        self,
        n_trials: int,
        *,
        workers: int = 1,
        minutes: float = 0.0,
        stop_after: int = 0,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Make trials until the study has enough, the time is over or somebody interrupts; what is made is kept.

        Parameters
        ----------
        n_trials : int
            Trials that the study is to have, those of earlier runs and of other machines among them.
        workers : int
            Processes; one works in this process, where the same seed gives the same study.
        minutes : float
            Time budget, 0 for none: no trial begins afterwards.
        stop_after : int
            Trials without a better one after which the search ends, 0 for never.
        progress : callable
            Called with the number of trials that are new.

        Raises
        ------
        TuningError
            If trials fail one after the other, or workers end by themselves.
        """
        execution = current()
        goal, projection = Goal(n_trials, stop_after), Projection(self.study)
        task = Task(self.objective, execution.id if execution else "")
        deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
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
            self.notes.append("interrupted: what was done is kept, running again goes on")
        finally:
            storage.release(self.study)
            note()
        last = [trial for trial in self.study.get_trials(deepcopy=False) if storage.counts(trial)][-FAILURES:]
        if last and all("error" in trial.user_attrs for trial in last):
            raise TuningError(f"the last {len(last)} trials failed; the last one with {last[-1].user_attrs['error']}")

    def _work(self, goal: Goal, task: Task, deadline: float, note: Callable[[], None]) -> None:
        """Make trials in this process."""
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
            except UpdateFinishedTrialError:  # it was taken for lost, and is done by another process
                continue

    def _employ(self, workers: int, goal: Goal, task: Task, deadline: float, note: Callable[[], None]) -> None:
        """Make trials in processes of their own, and put another in the place of one that was killed."""
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
                        raise TuningError(f"{killed} workers have ended by themselves, the last with {lost[-1]}")
                note()
        finally:
            for process in crew:
                process.terminate()
            for process in crew:
                process.join()

    # -- what was found --------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """Return the trials that are done: index number; columns state, log_loss, rounds, steps, predict_us, values."""
        rows = {
            trial.number: {"state": STATES[trial.state], **{name: trial.user_attrs.get(name) for name in
                           ("log_loss", "rounds", "steps", "predict_us")}, **trial.params}
            for trial in self.study.get_trials(deepcopy=False, states=tuple(STATES))
        }  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trial")

    def best(self) -> dict[str, Any]:
        """Return the values of the best trial as a version holds them: four digits, the trees of its best round."""
        best = self.study.best_trial
        values = {name: float(f"{value:.4g}") if isinstance(value, float) else value
                  for name, value in best.params.items()}  # fmt: skip
        return values | {"n_estimators": best.user_attrs["rounds"]}

    def compared(self) -> pd.DataFrame:
        """Return the version's own values beside the best ones, and what a trial of each has reached."""
        best, own = self.best(), self.objective.defaults()
        reached = [trial.value for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
                   if trial.params == own]  # fmt: skip
        columns = {
            "own": {"n_estimators": self.objective.params.n_estimators, **own, "log_loss": [*reached, np.nan][0]},
            "best": best | {"log_loss": self.study.best_value},
        }
        return pd.DataFrame(columns)

    def publish(self) -> Published:
        """Fit the best values on the whole train part and keep that model; put all on the notebook's run.

        Returns
        -------
        Published
            Where the model is, and the links to the trials.
        """
        model = self.objective.fit(self.best())
        kept = registry.keep(model, self.objective.params)
        projection = Projection(self.study)
        return Published(kept, projection.publish(self.best(), dict(self.compared()["own"])["log_loss"]))


def open_search(params: Params, battles: BattleSet, url: str = "", name: str = "") -> Search:
    """Open the study of a version, its search space and its battles: a new one, or one that goes on.

    Parameters
    ----------
    params : Params
    battles : BattleSet
    url : str
        Address of the storage, see `storage.url_of`.
    name : str
        A study to go on with; without one it is named by the version and what it searches on what.

    Raises
    ------
    ParamsError
        If the storage is out of reach, or the study of that name searches something else.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = storage.url_of(url)
    kept = storage.connect(url)
    objective, identity = Objective(params, battles), _identity(params, battles)
    own_name = f"{params.version}-{sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]}"
    known = {one.study_name: one for one in optuna.get_all_study_summaries(kept, include_best_trial=False)}
    if name and name not in known:
        near = ", ".join(get_close_matches(name, known, 3, 0.3) or list(known)[-3:]) or "none"
        raise ParamsError(f"study: expected one that is in the storage, got {name!r}; there is {near}")
    if name and (other := _difference(known[name].user_attrs.get("identity", {}), identity)):
        raise ParamsError(f"study: expected one of the same search as {params.version}, got {name!r}, whose {other} "
                          f"differs; without a name the study is {own_name}")
    name, notes = name or own_name, []
    if name in known:
        notes.append(f"study {name} goes on with {known[name].n_trials} trials")
    else:
        notes.append(f"study {name} is new")
        related = [one for one in known.values() if one.user_attrs.get("identity", {}).get("version") == params.version]
        for one in related[-3:]:
            what = _difference(one.user_attrs["identity"], identity)
            notes.append(f"study {one.study_name} with {one.n_trials} trials stays as it is: its {what} differs")
    study = _study(kept, name, identity, objective)
    study.sampler = NumberedSampler(params.random_state)
    return Search(study, kept, url, objective, notes)


def _identity(params: Params, battles: BattleSet) -> dict[str, Any]:
    """Return what makes two trials comparable: they belong to one study when all of it is the same."""
    fixed = (*SEARCHABLE, "n_folds", "early_stopping_rounds", "random_state")
    settings = {name: getattr(params, name) for name in fixed if name not in params.search}
    space = {name: searched.model_dump(exclude_defaults=True) for name, searched in params.search.items()}
    return {"version": params.version, "search": space, "battles": battles.digest, "settings": settings}


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return " and ".join(key for key in other if one.get(key) != other[key])


def _study(
    kept: optuna.storages.BaseStorage, name: str, identity: Mapping[str, Any], objective: Objective
) -> optuna.Study:
    """Create a study, whose first trial has the version's own values, or load it; of several at once one creates it."""
    pruner = _pruner(objective)
    try:
        study = optuna.create_study(storage=kept, study_name=name, pruner=pruner)
    except DuplicatedStudyError:
        study = optuna.load_study(storage=kept, study_name=name, pruner=pruner)
        while "key" not in study.user_attrs:  # the other one is at it
            time.sleep(0.1)
        return study
    study.enqueue_trial(objective.defaults())
    study.set_user_attr("identity", identity)
    study.set_user_attr("key", f"{name}-{uuid.uuid4().hex[:6]}")
    return study


def _pruner(objective: Objective) -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2 * objective.interval)


class NumberedSampler(optuna.samplers.TPESampler):
    """Optuna's sampler with a seed for each trial, of its number: whoever makes a trial, and whenever, draws the same.

    With one seed for each process, two that begin at once would draw the same trials, and one that goes on would draw
    its first ones again.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Begin anew with the trial's seed."""
        for rng in (self._rng, self._random_sampler._rng):
            rng.rng.seed((self.seed + trial.number) % 2**32)
        super().before_trial(study, trial)


def _optimize(study: optuna.Study, task: Task, goal: Goal, left: float, *more: Callable[..., None]) -> None:
    timeout = None if left == float("inf") else left
    study.optimize(task, timeout=timeout, callbacks=[*more, goal], catch=(Exception,))


def _worker(url: str, name: str, task: Task, goal: Goal, left: float) -> None:
    """Make trials until the goal is reached: what a process of its own does. It ends with the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objective = task.objective
    kept = storage.connect(url)
    kept.owner = task.owner()
    study = optuna.load_study(storage=kept, study_name=name, pruner=_pruner(objective),
                              sampler=NumberedSampler(objective.params.random_state))  # fmt: skip
    if not goal.reached(study):
        _optimize(study, task, goal, left)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        wait([parent.sentinel])
        os._exit(1)
