"""What makes every notebook execution a run: the kernel extension, the shipper, the papermill engine; and scripts' API.

Kernels and shippers import this package first, so what scripts use is imported when it is asked for.
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
