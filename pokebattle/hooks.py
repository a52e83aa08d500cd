"""Callbacks for what the package loads, so that others can record it and this package need not know them."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

PARAMS_LOADED = "params loaded"  # params : Params
BATTLES_LOADED = "battles loaded"  # battles : BattleSet
PART_OPENED = "part opened"  # battles : BattleSet, part : str, rows : int

_callbacks: dict[str, list[Callable[..., None]]] = defaultdict(list)


def subscribe(event: str, callback: Callable[..., None]) -> None:
    """Call a function whenever something is loaded.

    Parameters
    ----------
    event : str
        A constant of this module.
    callback : callable
        Takes the arguments that the constant's comment names.
    """
    _callbacks[event].append(callback)


def publish(event: str, *values: Any) -> None:
    """Call the functions that have subscribed.

    Parameters
    ----------
    event : str
        A constant of this module.
    *values
        The arguments that the constant's comment names.
    """
    for callback in _callbacks[event]:
        callback(*values)
