"""Notebook executions as MLflow runs: every execution is one run, without tracking code in the notebook.

This is the API for a project's own code; `nbtrack.plugins` lets a project add to what runs record. Kernels and senders
import this package first, so the names are imported only on first access.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbtrack.active_run import Run, run
    from nbtrack.local_ids import is_local_id
    from nbtrack.script_tracker import MLflowTracker, get_mlflow_tracker
    from nbtrack.spool import is_delivering

__all__ = ["MLflowTracker", "Run", "get_mlflow_tracker", "is_delivering", "is_local_id", "run"]
MODULES = {
    "Run": "active_run",
    "is_delivering": "spool",
    "is_local_id": "local_ids",
    "run": "active_run",
}  # the others are in `script_tracker`


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES.get(name, 'script_tracker')}"), name)
