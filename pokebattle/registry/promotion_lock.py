"""The promotion lock: only one process at a time may change the stages of a model.

The lock relies on one atomic operation of MLflow servers: the name of an experiment can be created only once. A process
that wants to change stages creates a ticket, an experiment named `promotions/<model>/<number>`, with the number after
the highest existing one. The process with the lowest valid ticket has the lock; all others see its ticket. A ticket is
valid until its experiment is deleted, and for at most `LEASE` seconds by the server's clock, so a killed process
blocks the others no longer than this.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from nbtrack.mlflow_rest import MlflowRest, ServerError, tags_of
from nbtrack.settings import PROMOTIONS
from pokebattle.registry.stages import TIMEOUT, RegistryError
from pokebattle.tags import BY

LEASE = 60.0  # seconds after which a ticket is no longer valid
WORK = LEASE - 2 * TIMEOUT  # seconds within which the last change of a move must begin
DRAWS = 20  # attempts to create a ticket


class BusyError(RegistryError):
    """Another process is changing the stages, or this one has taken too long."""


@contextlib.contextmanager
def hold_lock(rest: MlflowRest, name: str, user: str) -> Iterator[Callable[[], None]]:
    """Hold the promotion lock of a model.

    Parameters
    ----------
    rest : MlflowRest
    name : str
        The registered model.
    user : str
        User name, shown to others while the lock is held.

    Yields
    ------
    callable
        Call it before every change. It raises `BusyError` if the lock could expire before the change is made.

    Raises
    ------
    BusyError
        If another process has the lock.
    ServerError
        If this account may not create experiments, or the server answers with another error.
    """
    began = time.monotonic()
    ticket = _draw(rest, name, user)

    def allowed() -> None:
        if time.monotonic() - began > WORK:
            raise BusyError(
                f"changing the stages of {name} took too long: the lock for it has expired; the next promotion or "
                "rollback completes the move"
            )

    try:
        _check(rest, name, ticket)
        yield allowed
    finally:
        with contextlib.suppress(OSError, ServerError):  # otherwise the ticket expires
            rest.call("POST", "experiments/delete", experiment_id=ticket["experiment_id"])


def _draw(rest: MlflowRest, name: str, user: str) -> dict[str, Any]:
    """Create a ticket and return its experiment."""
    for _ in range(DRAWS):
        number = max((_number(one) for one in _tickets(rest, name)), default=0) + 1
        try:
            created = rest.call(
                "POST", "experiments/create", name=f"{PROMOTIONS}/{name}/{number}", tags=[{"key": BY, "value": user}]
            )
        except ServerError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
            continue  # another process created this number first
        answer = rest.call("GET", "experiments/get", experiment_id=created["experiment_id"])
        return dict(answer["experiment"])
    raise BusyError(f"other processes keep changing the stages of {name}: try again")


def _check(rest: MlflowRest, name: str, ticket: dict[str, Any]) -> None:
    """Raise if a lower ticket is valid. Delete expired tickets, if this account may."""
    drawn = int(ticket["creation_time"])
    for other in _tickets(rest, name):
        age = (drawn - int(other["creation_time"])) / 1000
        if _number(other) >= _number(ticket) or other["lifecycle_stage"] != "active":
            continue
        if age < LEASE:
            by = tags_of({"data": other}).get(BY, "somebody")
            raise BusyError(
                f"{by} has been changing the stages of {name} for {max(age, 0):.0f} s: try again when "
                f"this is done, or in {LEASE - age:.0f} s if it was killed"
            )
        with contextlib.suppress(OSError, ServerError):
            rest.call("POST", "experiments/delete", experiment_id=other["experiment_id"])


def _tickets(rest: MlflowRest, name: str) -> list[dict[str, Any]]:
    """Return the latest tickets of a model, including deleted ones."""
    answer = rest.call(
        "POST",
        "experiments/search",
        filter=f"name LIKE '{PROMOTIONS}/{name}/%'",
        view_type="ALL",
        max_results=100,
        order_by=["creation_time DESC"],
    )
    form = re.compile(rf"{PROMOTIONS}/{re.escape(name)}/\d+")  # in a LIKE filter, _ matches any character
    return [one for one in answer.get("experiments", []) if form.fullmatch(one["name"])]


def _number(ticket: dict[str, Any]) -> int:
    return int(ticket["name"].rpartition("/")[2])
