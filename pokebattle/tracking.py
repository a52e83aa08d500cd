"""The tracking of scripts under its former name; `nbtrack` has it."""

from nbtrack import MLflowTracker, get_mlflow_tracker

__all__ = ["MLflowTracker", "get_mlflow_tracker"]
