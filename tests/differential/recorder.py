"""Records, inside a kernel, what every call of a sequence returned or raised: a line of JSON each.

``with step(7) as s: s.value = call()`` swallows an exception, as a person does who runs the next cell all the same.
Standard library only, so that importing it changes nothing.
"""

import glob
import hashlib
import json
import math
import os
import threading
import time
from typing import Any, Self

DEEP = 9  # levels of a value that are looked at
OPAQUE = ("sklearn.", "xgboost.", "mlflow.pyfunc", "matplotlib.", "mlflow.utils.async_logging", "mlflow.data.")
IMPORT = 1.3  # seconds that importing MLflow takes on an idle machine
SAMPLE = 0.02  # CPU seconds, for measuring how busy the machine is
_lock = threading.Lock()


class step:  # noqa: N801 - it reads as a statement in cells
    """One call of a sequence; in a loop or in threads with its turn."""

    def __init__(self, number: int, turn: Any = None) -> None:
        self.entry: dict[str, Any] = {"step": number, "turn": turn}

    def __enter__(self) -> Self:
        self.began = time.perf_counter()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is not None:
            self.entry["error"] = [f"{type(error).__module__}.{type(error).__qualname__}", str(error)]
        elif hasattr(self, "value"):
            try:
                self.entry["value"] = plain(self.value)
            except Exception as unreadable:
                self.entry["value"] = {"unreadable": f"{type(self.value).__name__}: {unreadable}"}
        self.entry["seconds"] = round(time.perf_counter() - self.began, 3)
        line = json.dumps(self.entry, default=lambda value: f"<{type(value).__name__}>")
        with _lock, open(os.environ["DIFFERENTIAL_RECORD"], "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(line + "\n")
        return error is None or isinstance(error, Exception)


def pause() -> None:
    """Take the time in which kernels import MLflow, which these need not, on a machine that is as busy as this one.

    It is over as soon as the execution's run is open, since nothing changes from then on.
    """
    if os.environ["POKEBATTLE_TRACKING"] == "off":
        return
    began, spent = time.perf_counter(), time.process_time()
    while time.process_time() - spent < SAMPLE:
        pass
    enough = began + IMPORT * (time.perf_counter() - began) / SAMPLE
    records = f"{os.environ['POKEBATTLE_STATE']}/executions/2*/run.json"
    while time.perf_counter() < enough and not any(map(_is_open, glob.glob(records))):  # noqa: PTH207
        time.sleep(0.02)


def _is_open(record: str) -> bool:
    with open(record, encoding="utf-8") as file:  # noqa: PTH123
        return '"run_id"' in file.read()


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON with everything that a notebook could see of it."""
    name, module = type(value).__name__, type(value).__module__
    if value is None or isinstance(value, bool | int | str):
        return value
    if depth > DEEP:
        return f"<{name}>"
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, bytes):
        return {"bytes": hashlib.sha256(value).hexdigest()[:12]}
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if name == "PagedList":
        return {"page": [plain(item, depth + 1) for item in value], "more": bool(value.token)}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    if name == "DataFrame":
        rows = [
            {key: cell for key, cell in row.items() if cell is not None and cell == cell}
            for row in value.to_dict("records")
        ]
        return {"frame": plain(rows, depth + 1)}
    if hasattr(value, "tolist"):  # of numpy
        return plain(value.tolist(), depth + 1)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if module.startswith("mlflow.") and not module.startswith(OPAQUE) and hasattr(value, "__dict__"):
        return {"class": name} | {
            key.strip("_"): plain(item, depth + 1) for key, item in vars(value).items() if key != "of_execution"
        }
    return f"<{name}>"
