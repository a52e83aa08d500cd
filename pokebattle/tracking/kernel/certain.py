"""Which writes to a run cannot fail, so that a cell need not wait for the server to take them."""

import re
from collections.abc import Iterable
from typing import Any

KEY = re.compile(r"[\w\-]+( [\w\-]+)*([./][\w\-]+( [\w\-]+)*)*", re.ASCII)  # names that MLflow takes everywhere
LENGTH = {"key": 250, "value": 100_000}  # characters; of a longer value than MLflow keeps the server takes a part
ENTRIES, PAIRS = 1000, 100  # of all kinds together, and of parameters or tags, that MLflow takes in one request
INTEGER = 1 << 63
NOT_FINITE = {"NaN", "Infinity", "-Infinity"}
SINGLE = {"runs/log-metric": "metrics", "runs/log-parameter": "params", "runs/set-tag": "tags"}
LOGGING = {*SINGLE, "runs/log-batch"}
KEEPING = {*LOGGING, "runs/update", "runs/delete-tag", "runs/log-inputs", "runs/outputs", "runs/log-model"}


class KnownRuns:
    """The runs that this process knows to exist and to be active, and the parameters that they have."""

    def __init__(self) -> None:
        self._params: dict[str, dict[str, str] | None] = {}

    def learn(self, run_id: str, params: dict[str, str] | None = None) -> None:
        """Note an active run; ``params`` are all that it has, None while they are not known."""
        if self._params.get(run_id) is None:
            self._params[run_id] = params

    def sent(self, name: str, body: dict[str, Any]) -> None:
        """Take in a request that was sent to the server: what is not known to leave runs active may end that."""
        run = run_of(body)
        if name == "experiments/delete":
            self._params.clear()
        elif run in self._params and name in LOGGING:
            known = self._params[run]
            if known is not None:
                known |= {str(pair["key"]): str(pair.get("value")) for pair in entries(name, body, "params")}
        elif run in self._params and name not in KEEPING:
            del self._params[run]

    def take(self, name: str, body: dict[str, Any]) -> bool:
        """Tell whether the server will certainly take a write; if so, count it as written."""
        run = run_of(body)
        if name not in LOGGING or run not in self._params:
            return False
        metrics, params, tags = (entries(name, body, kind) for kind in ("metrics", "params", "tags"))
        pairs = len(params) + len(tags)
        fits = len(metrics) + pairs <= ENTRIES and pairs <= PAIRS and not body.get("model_id")
        if not (fits and all(map(_is_point, metrics)) and _are_pairs(tags) and self._are_new(run, params)):
            return False
        self.sent(name, body)
        return True

    def contradiction(self, name: str, body: dict[str, Any]) -> str:
        """Return what the server would say of parameters that have other values; empty where none is known to."""
        known = self._params.get(run_of(body)) or {}
        changed = [
            (pair, known[pair["key"]]) for pair in entries(name, body, "params")
            if known.get(pair["key"], pair.get("value")) != pair.get("value")
        ]  # fmt: skip
        if not changed:
            return ""
        if name != "runs/log-batch":
            ((pair, old),) = changed
            return (
                f"Changing param values is not allowed. Param with key='{pair['key']}' was already logged with "
                f"value='{old}' for run ID='{run_of(body)}'. Attempted logging new value '{pair['value']}'."
            )
        told = [{"key": pair["key"], "old_value": old, "new_value": pair["value"]} for pair, old in changed]
        return f"Changing param values is not allowed. Params were already logged='{told}' for run ID='{run_of(body)}'."

    def _are_new(self, run: str, params: list[dict[str, Any]]) -> bool:
        """Tell whether parameters contradict neither each other nor what the run has."""
        known = self._params[run]
        if not params:
            return True
        values = {pair.get("key"): pair.get("value") for pair in params}
        return known is not None and _are_pairs(params) and len(values) == len(params) and all(
            known.get(str(key), value) == value for key, value in values.items()
        )  # fmt: skip


def run_of(body: dict[str, Any]) -> str:
    """Return the id of the run that a request is about, empty when it is about none."""
    return str(body.get("run_id") or body.get("run_uuid") or "")


def entries(name: str, body: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return the ``metrics``, ``params`` or ``tags`` of a request that logs one or many of them."""
    if name in SINGLE:
        return [body] if SINGLE[name] == kind else []
    return list(body.get(kind, []))


def _is_point(point: dict[str, Any]) -> bool:
    numbers = point.get("value") in NOT_FINITE or type(point.get("value")) in (int, float)
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
        _is_key(pair.get("key")) and isinstance(value := pair.get("value"), str)
        and len(value) <= LENGTH["value"] and _can_be_stored(value)
        for pair in pairs
    )  # fmt: skip


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and len(key) <= LENGTH["key"] and bool(KEY.fullmatch(key))


def _can_be_stored(text: str) -> bool:
    """Tell whether every database takes a text: PostgreSQL refuses NUL, and no one stores half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
