"""Search a version's settings with Optuna. Only this package imports Optuna; the trials become runs in MLflow."""
