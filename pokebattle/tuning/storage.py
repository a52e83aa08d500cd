"""Where studies are kept: a file of this checkout, or a database that a team shares."""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    ResourceClosedError,
    SQLAlchemyError,
)

from pokebattle.params import ParamsError
from pokebattle.places import state_dir, studies_file
from pokebattle.tracking import processes

HEARTBEAT, GRACE = 30, 180  # seconds between two signs of life of a trial, and without one until it counts as lost
PATIENCE = 600.0  # seconds for which a database may be away
PAUSE = 1.0  # seconds between two attempts to reach it
MAX_RETRY = 2  # times that a trial is begun again whose process was killed


def url_of(storage: str) -> str:
    """Return the storage's address: what is given, else ``POKEBATTLE_STORAGE``, else a file in the state folder."""
    return storage or os.environ.get("POKEBATTLE_STORAGE") or f"sqlite:///{studies_file()}"


def connect(url: str) -> PatientStorage:
    """Open a storage.

    Raises
    ------
    ParamsError
        It cannot be reached, or is none of Optuna's.
    """
    shown = url
    try:
        address = sqlalchemy.make_url(url)
        shown = address.render_as_string(hide_password=True)
        local = address.get_backend_name() == "sqlite"
        if local:
            state_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = {"connect_args": {"timeout": 60} if local else {"connect_timeout": 10}, "pool_pre_ping": True}
        probe = sqlalchemy.create_engine(address, **engine)
        probe.connect().close()
        probe.dispose()
        return _opened(url, engine)
    except (SQLAlchemyError, ImportError, RuntimeError, TypeError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise ParamsError("storage: expected a database that answers, as in postgresql+psycopg2://host/name, got "
                          f"{shown} ({reason})") from None


def _opened(url: str, engine: dict[str, Any], attempts: int = 5) -> PatientStorage:
    """Open a storage that answers; several who come at once to an empty one disturb each other."""
    while True:
        attempts -= 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return PatientStorage(url, engine_kwargs=engine, heartbeat_interval=HEARTBEAT, grace_period=GRACE,
                                      heartbeat_stale_trial_callback=retry)  # fmt: skip
        except SQLAlchemyError:
            if not attempts:
                raise
            time.sleep(PAUSE)


def retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial again whose process was killed, some times at most."""
    trial.user_attrs = {}  # they tell of that process
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRY)(study, trial)


def release(study: optuna.Study) -> None:
    """Mark and queue again, without waiting for their heartbeat, the trials that nobody is at any more."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if _left(trial):
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):  # somebody else was quicker
                continue
            retry(study, trial)


def _left(trial: FrozenTrial) -> bool:
    """Tell whether the process of a trial has ended on this host, or nobody ever came to work on it.

    The latter was taken from the queue by who did not learn of it, since the database went away at that moment.
    """
    if worker := trial.user_attrs.get("worker"):
        return processes.state_of(worker) == "ended"
    began = trial.datetime_start
    return not trial.params and began is not None and (datetime.now() - began).total_seconds() > GRACE


def counts(trial: FrozenTrial) -> bool:
    """Tell whether a trial is one of those that were asked for: it came to an end of its own, or failed by itself."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "error" in trial.user_attrs


class PatientStorage(RDBStorage):
    """Optuna's storage in a database; while that is away, whoever uses it waits instead of losing the trial.

    Attributes
    ----------
    owner : mapping
        User attributes of every trial that this process begins: a new one has them from its first moment, so that it
        is known whose it was when the process is killed in the next.
    """

    owner: Mapping[str, Any] = MappingProxyType({})

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        own = template_trial or create_trial(state=TrialState.RUNNING, user_attrs=dict(self.owner))
        return super()._create_new_trial(study_id, own)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set it; a trial that was waiting, and is this process's now, gets its attributes."""
        done = super().set_trial_state_values(trial_id, state, values)
        if done and state == TrialState.RUNNING:
            for name, value in self.owner.items():
                self.set_trial_user_attr(trial_id, name, value)
        return done


def _passes(error: BaseException | None) -> bool:
    """Tell whether an error comes from a connection that was lost, and not from what was asked."""
    if isinstance(error, StorageInternalError):
        error = error.__cause__
    if isinstance(error, OperationalError | InterfaceError | PendingRollbackError | ResourceClosedError):
        return True
    # a server that shuts down in the middle of an answer leaves psycopg2 with an error of no kind
    return isinstance(error, DBAPIError) and (error.connection_invalidated or type(error) is DatabaseError)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        deadline, again = time.monotonic() + PATIENCE, False
        while True:
            try:
                return method(*args, **kwargs)
            except UpdateFinishedTrialError:
                if again:  # the first attempt was carried out, only its answer was lost
                    return True
                raise
            except (StorageInternalError, SQLAlchemyError) as error:
                if not _passes(error) or time.monotonic() > deadline:
                    raise
            again = True
            time.sleep(PAUSE)

    return call


_OTHERS = ("_create_new_trial", "record_heartbeat", "_get_stale_trial_ids")  # which Optuna calls past the interface
for _name in (*BaseStorage.__abstractmethods__, *_OTHERS):
    setattr(PatientStorage, _name, _patient(getattr(PatientStorage, _name)))
