#!/usr/bin/env bash
# Guess: what log_model asks the tracking server does not depend on how many metrics the run has.
#
# Seen (mlflow 3.17.2): log_model inside a run reads the run's metrics and then the whole history of each metric, one
# request per metric, also when no metric has the model's step, so that none is linked to the model. With 200 metrics
# and a server that takes 90 ms per request that is 18 s. Without an active run there is no such request.
#
# Usage: bash findings/log_model_reads_every_metric.sh    (Python 3.11, network for pip; exits with 1 when it changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check mlflow==3.17.2 scikit-learn==1.9.1
cat > check.py <<'PYTHON'
import logging
from unittest.mock import patch

import mlflow
import mlflow.sklearn
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sklearn.linear_model import LinearRegression

logging.disable(logging.WARNING)
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("finding")
model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])


def histories(metrics: int, step: int, in_run: bool = True) -> tuple[int, int]:
    """Return how many histories log_model asks for, and how many metrics the model then has."""
    with mlflow.start_run() as run:
        mlflow.log_metrics({f"m{n}": 1.0 for n in range(metrics)}, step=step)
        if not in_run:
            mlflow.end_run()
        asked = patch.object(SqlAlchemyStore, "get_metric_history", autospec=True,
                             side_effect=SqlAlchemyStore.get_metric_history)
        with asked as counted:
            logged = mlflow.sklearn.log_model(model, name="m", pip_requirements=["scikit-learn"],
                                              serialization_format="pickle")
    return counted.call_count, len(mlflow.get_logged_model(logged.model_id).metrics or [])


seen = {
    "no metric": histories(0, step=0),
    "200 metrics of the model's step": histories(200, step=0),
    "200 metrics of another step": histories(200, step=7),
    "200 metrics, no active run": histories(200, step=0, in_run=False),
}
for what, (asked, linked) in seen.items():
    print(f"{what:<32} {asked:>4} histories asked for, {linked:>4} metrics linked to the model")
assert list(seen.values()) == [(0, 0), (200, 200), (200, 0), (0, 0)], "the behaviour has changed"
PYTHON
env/bin/python check.py
