"""One promotion at a time, by what an MLflow server does in one step: it takes a name of an experiment once.

Whoever wants to change stages draws a ticket, an experiment named `promotions/<model>/<number>` with the number after
the highest one that there is. A lower ticket can be seen by whoever draws a higher one, so the lowest ticket that is
in force has the claim, and the others know it. A ticket ends when its experiment is deleted, and by itself `LEASE`
seconds after it was drawn, both by the server's clock: who was killed stops nobody for longer.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from pokebattle.registry.stages import TIMEOUT, RegistryError
from pokebattle.tracking.shipping.rest import MlflowRest, ServerError, tags_of

LEASE = 60.0  # seconds after which a ticket is no longer in force
WORK = LEASE - 2 * TIMEOUT  # seconds in which all changes of a move must be begun
PREFIX = "promotions"
DRAWS = 20  # tickets that others may draw before this one
BY = "pokebattle.by"


class BusyError(RegistryError):
    """Somebody else is changing stages."""


@contextlib.contextmanager
def claim(rest: MlflowRest, name: str, who: str) -> Iterator[Callable[[], None]]:
    """Hold the claim to change the stages of a model's versions.

    Yields
    ------
    callable
        Call it before every change: it raises `BusyError` when the claim may run out before the change is made.

    Raises
    ------
    BusyError
        If somebody else has the claim.
    ServerError
        If the server takes no experiment from this account.
    """
    began = time.monotonic()
    ticket = _draw(rest, name, who)

    def allowed() -> None:
        if time.monotonic() - began > WORK:
            raise BusyError(f"changing the stages of {name} took too long: the claim to do so has run out. What is "
                            "half done the next promotion or rollback completes")  # fmt: skip

    try:
        _check(rest, name, ticket)
        yield allowed
    finally:
        with contextlib.suppress(OSError, ServerError):  # it ends by itself
            rest.call("POST", "experiments/delete", experiment_id=ticket["experiment_id"])


def _draw(rest: MlflowRest, name: str, who: str) -> dict[str, Any]:
    """Draw a ticket."""
    for _ in range(DRAWS):
        number = max((_number(one) for one in _tickets(rest, name)), default=0) + 1
        try:
            made = rest.call("POST", "experiments/create", name=f"{PREFIX}/{name}/{number}",
                             tags=[{"key": BY, "value": who}])  # fmt: skip
        except ServerError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
            continue  # another one drew this number
        found = rest.call("GET", "experiments/get", experiment_id=made["experiment_id"])
        return dict(found["experiment"])
    raise BusyError(f"stages of {name} are being changed by others all the time: try again")


def _check(rest: MlflowRest, name: str, ticket: dict[str, Any]) -> None:
    """Raise if a lower ticket is in force; end those that have run out, as far as this account may."""
    drawn = int(ticket["creation_time"])
    for other in _tickets(rest, name):
        age = (drawn - int(other["creation_time"])) / 1000
        if _number(other) >= _number(ticket) or other["lifecycle_stage"] != "active":
            continue
        if age < LEASE:
            by = tags_of({"data": other}).get(BY, "somebody")
            raise BusyError(f"stages of {name} are being changed by {by} since {max(age, 0):.0f} s: try again when "
                            f"that is done, or in {LEASE - age:.0f} s if it was killed")  # fmt: skip
        with contextlib.suppress(OSError, ServerError):
            rest.call("POST", "experiments/delete", experiment_id=other["experiment_id"])


def _tickets(rest: MlflowRest, name: str) -> list[dict[str, Any]]:
    """Return the tickets of a model that were drawn last, ended ones as well."""
    found = rest.call("POST", "experiments/search", filter=f"name LIKE '{PREFIX}/{name}/%'", view_type="ALL",
                      max_results=100, order_by=["creation_time DESC"])  # fmt: skip
    form = re.compile(rf"{PREFIX}/{re.escape(name)}/\d+")  # to the filter _ is any character
    return [one for one in found.get("experiments", []) if form.fullmatch(one["name"])]


def _number(ticket: dict[str, Any]) -> int:
    return int(ticket["name"].rpartition("/")[2])
