"""Tracking of scripts under its former name; it is now in `nbtrack`."""

from nbtrack import MLflowTracker, get_mlflow_tracker

__all__ = ["MLflowTracker", "get_mlflow_tracker"]
