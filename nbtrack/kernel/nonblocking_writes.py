"""Decide which writes to a run cannot fail, so that a cell need not wait until the server has accepted them."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from nbtrack.files import NOT_FINITE
from nbtrack.mlflow_rest import LENGTH

KEY = re.compile(r"[\w\-]+( [\w\-]+)*([./][\w\-]+( [\w\-]+)*)*", re.ASCII)  # names that MLflow accepts everywhere
LONGEST = 100_000  # characters of a value; the server truncates values longer than MLflow stores
ENTRIES, PAIRS = 1000, 100  # MLflow's limits for one request: entries of all kinds, and parameters or tags
INTEGER = 1 << 63
SINGLE = {"runs/log-metric": "metrics", "runs/log-parameter": "params", "runs/set-tag": "tags"}
LOGGING = {*SINGLE, "runs/log-batch"}
KEEPING = {*LOGGING, "runs/update", "runs/delete-tag", "runs/log-inputs", "runs/outputs", "runs/log-model"}


class Write(NamedTuple):
    """A request of mlflow's that writes something, perhaps to a run.

    Attributes
    ----------
    name : str
        The request's endpoint, for example ``runs/log-batch``.
    body : dict
        The request's JSON body.
    """

    name: str
    body: dict[str, Any]

    @property
    def run(self) -> str:
        """The id of the run that the request is about; empty if it names no run."""
        return run_of(self.body)

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """Return the metrics, parameters or tags that the request logs.

        Parameters
        ----------
        kind : {"metrics", "params", "tags"}
        """
        if self.name in SINGLE:
            return [self.body] if SINGLE[self.name] == kind else []
        return list(self.body.get(kind, []))


class KnownRuns:
    """The runs that this process knows to exist and to be active, with their parameters."""

    def __init__(self) -> None:
        self._params: dict[str, dict[str, str] | None] = {}

    def learn(self, run_id: str, params: dict[str, str] | None = None) -> None:
        """Add an active run.

        Parameters
        ----------
        run_id : str
        params : dict, optional
            All parameters of the run; None if unknown.
        """
        if self._params.get(run_id) is None:
            self._params[run_id] = params

    def sent(self, write: Write) -> None:
        """Update the known runs after a request: add its parameters, forget runs that it may have ended or deleted.

        Parameters
        ----------
        write : Write
        """
        if write.name == "experiments/delete":
            self._params.clear()
        elif write.run in self._params and write.name in LOGGING:
            known = self._params[write.run]
            if known is not None:
                known |= {str(pair["key"]): str(pair.get("value")) for pair in write.entries("params")}
        elif write.run in self._params and write.name not in KEEPING:
            del self._params[write.run]

    def try_apply(self, write: Write) -> bool:
        """Return whether the server will certainly accept a write; if so, record it as written.

        Parameters
        ----------
        write : Write
        """
        if write.name not in LOGGING or write.run not in self._params:
            return False
        metrics, params, tags = (write.entries(kind) for kind in ("metrics", "params", "tags"))
        pairs = len(params) + len(tags)
        fits = len(metrics) + pairs <= ENTRIES and pairs <= PAIRS and not write.body.get("model_id")
        if not (fits and all(map(_is_point, metrics)) and _are_pairs(tags) and self._are_new(write.run, params)):
            return False
        self.sent(write)
        return True

    def param_conflict(self, write: Write) -> str:
        """Return the server's message about parameters that already have other values.

        Parameters
        ----------
        write : Write

        Returns
        -------
        str
            Empty if no known value is contradicted.
        """
        known = self._params.get(write.run) or {}
        changed = [
            (pair, known[pair["key"]])
            for pair in write.entries("params")
            if known.get(pair["key"], pair.get("value")) != pair.get("value")
        ]
        if not changed:
            return ""
        if write.name != "runs/log-batch":
            ((pair, old),) = changed
            return (
                f"Changing param values is not allowed. Param with key='{pair['key']}' was already logged with "
                f"value='{old}' for run ID='{write.run}'. Attempted logging new value '{pair['value']}'."
            )
        changes = [{"key": pair["key"], "old_value": old, "new_value": pair["value"]} for pair, old in changed]
        return f"Changing param values is not allowed. Params were already logged='{changes}' for run ID='{write.run}'."

    def _are_new(self, run: str, params: list[dict[str, Any]]) -> bool:
        """Return whether parameters contradict neither each other nor the run's known ones."""
        known = self._params[run]
        if not params:
            return True
        values = {pair.get("key"): pair.get("value") for pair in params}
        return (
            known is not None
            and _are_pairs(params)
            and len(values) == len(params)
            and all(known.get(str(key), value) == value for key, value in values.items())
        )


def run_of(body: dict[str, Any]) -> str:
    """Return the id of the run that a request is about, or an empty string.

    Parameters
    ----------
    body : dict
        The request's JSON body.
    """
    return str(body.get("run_id") or body.get("run_uuid") or "")


def _is_point(point: dict[str, Any]) -> bool:
    numbers = point.get("value") in NOT_FINITE.values() or type(point.get("value")) in (int, float)
    whole = 0 <= _integer(point.get("timestamp", 0)) < INTEGER and -INTEGER <= _integer(point.get("step", 0)) < INTEGER
    plain = not any(point.get(name) for name in ("model_id", "dataset_name", "dataset_digest"))
    return numbers and whole and plain and _is_key(point.get("key"))


def _integer(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return INTEGER


def _are_pairs(pairs: Iterable[dict[str, Any]]) -> bool:
    return all(
        _is_key(pair.get("key"))
        and isinstance(value := pair.get("value"), str)
        and len(value) <= LONGEST
        and _can_be_stored(value)
        for pair in pairs
    )


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and len(key) <= LENGTH["key"] and bool(KEY.fullmatch(key))


def _can_be_stored(text: str) -> bool:
    """Return whether every database accepts a text.

    PostgreSQL refuses NUL, and no database stores half of a surrogate pair.
    """
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
