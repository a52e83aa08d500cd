"""Make every notebook execution a run: kernel extension, sender, papermill engine, and an API for scripts.

Kernels and senders import this package first, so the API for scripts is imported only on first access.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pokebattle.tracking.tracker import MLflowTracker, get_mlflow_tracker

__all__ = ["MLflowTracker", "get_mlflow_tracker"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pokebattle.tracking import tracker

    return getattr(tracker, name)
