"""The storage of the studies: a file of this checkout, or a database that a team shares."""

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

from nbtrack import processes
from pokebattle.errors import UnavailableError
from pokebattle.paths import STORAGE, state_dir, studies_file

HEARTBEAT, GRACE = 30, 180  # seconds between two heartbeats of a trial; seconds without one until it counts as lost
PATIENCE = 600.0  # seconds to wait for a database that does not answer
PAUSE = 1.0  # seconds between two attempts
MAX_RETRY = 2  # how often a trial whose process was killed is tried again


def url_of(storage: str) -> str:
    """Return the address of the storage.

    Parameters
    ----------
    storage : str
        If empty, the address in ``POKEBATTLE_STORAGE``, else an SQLite file in the state folder.
    """
    return storage or os.environ.get(STORAGE) or f"sqlite:///{studies_file()}"


def connect(url: str) -> PatientStorage:
    """Open a storage. An empty database becomes a storage.

    Parameters
    ----------
    url : str
        SQLAlchemy URL, from `url_of`.

    Raises
    ------
    UnavailableError
        If the database does not answer, or cannot be used as Optuna's storage.
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
        raise UnavailableError(
            f"storage: expected a database that answers, as in postgresql+psycopg2://host/name, got {shown} ({reason})"
        ) from None


def _opened(url: str, engine: dict[str, Any], attempts: int = 5) -> PatientStorage:
    """Open a storage that answers. Retry, because processes that initialise an empty database at once can fail."""
    while True:
        attempts -= 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return PatientStorage(
                    url,
                    engine_kwargs=engine,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=retry,
                )
        except SQLAlchemyError:
            if not attempts:
                raise
            time.sleep(PAUSE)


def retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial whose process was killed again, at most `MAX_RETRY` times.

    Parameters
    ----------
    study : optuna.Study
    trial : FrozenTrial
    """
    trial.user_attrs = {}  # they describe the killed process
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRY)(study, trial)


def release(study: optuna.Study) -> None:
    """Mark trials whose process is gone as failed and queue them again, without waiting for their heartbeat.

    Parameters
    ----------
    study : optuna.Study
    """
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if _left(trial):
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):  # another process was faster
                continue
            retry(study, trial)


def _left(trial: FrozenTrial) -> bool:
    """Return whether the process of a trial has ended on this host, or no process has ever worked on the trial.

    The second case occurs if a process takes a trial from the queue but the connection is lost before it gets the
    database's answer.
    """
    if worker := trial.user_attrs.get("worker"):
        return processes.state_of(worker) == "ended"
    began = trial.datetime_start
    return not trial.params and began is not None and (datetime.now() - began).total_seconds() > GRACE


def counts(trial: FrozenTrial) -> bool:
    """Return whether a trial counts towards `n_trials`: it is complete, pruned, or failed with an error of its own.

    Trials whose process was killed do not count.

    Parameters
    ----------
    trial : FrozenTrial
    """
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "error" in trial.user_attrs


class PatientStorage(RDBStorage):
    """Optuna's storage in a database, with retries: calls wait for a database that is away instead of failing.

    Attributes
    ----------
    owner : mapping
        User attributes of every trial that this process starts. A trial is created with them, so that its owner is
        known even if the process is killed immediately afterwards.
    """

    owner: Mapping[str, Any] = MappingProxyType({})

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        template = template_trial or create_trial(state=TrialState.RUNNING, user_attrs=dict(self.owner))
        return super()._create_new_trial(study_id, template)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set state and values of a trial. A queued trial that this process starts gets the attributes `owner`.

        Parameters
        ----------
        trial_id : int
        state : TrialState
        values : sequence of float, optional

        Returns
        -------
        bool
            As in Optuna: False if another process has already started the trial.
        """
        done = super().set_trial_state_values(trial_id, state, values)
        if done and state == TrialState.RUNNING:
            for name, value in self.owner.items():
                self.set_trial_user_attr(trial_id, name, value)
        return done


def _passes(error: BaseException | None) -> bool:
    """Return whether an error comes from a lost connection, not from the request itself."""
    if isinstance(error, StorageInternalError):
        error = error.__cause__
    if isinstance(error, OperationalError | InterfaceError | PendingRollbackError | ResourceClosedError):
        return True
    # if a server shuts down in the middle of an answer, psycopg2 raises a plain DatabaseError
    return isinstance(error, DBAPIError) and (error.connection_invalidated or type(error) is DatabaseError)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        deadline, again = time.monotonic() + PATIENCE, False
        while True:
            try:
                return method(*args, **kwargs)
            except UpdateFinishedTrialError:
                if again:  # the first attempt succeeded, only its answer was lost
                    return True
                raise
            except (StorageInternalError, SQLAlchemyError) as error:
                if not _passes(error) or time.monotonic() > deadline:
                    raise
            again = True
            time.sleep(PAUSE)

    return call


_OTHERS = (  # not abstract, but called by Optuna's cache
    "_create_new_trial",
    "_get_trials",
    "_get_best_trial_id",
    "_set_trial_param",
    "record_heartbeat",
    "_get_stale_trial_ids",
    "get_trial_id_from_study_id_trial_number",
)
for _name in (*BaseStorage.__abstractmethods__, *_OTHERS):
    setattr(PatientStorage, _name, _patient(getattr(PatientStorage, _name)))
