#!/usr/bin/env bash
# Guess: a run shows the source that it gave for its dataset.
#
# Seen (mlflow 3.17.2, SQLite store): within an experiment, datasets with the same name and digest are one entity, and
# the source that the first run gave stays. A later run that logs the same rows from another file shows the first
# run's file. In another experiment it shows its own.
#
# Usage: bash findings/dataset_keeps_first_source.sh    (Python 3.11, network for pip; exits with 1 when it changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check mlflow==3.17.2
cat > check.py <<'PYTHON'
import json
import logging
import warnings

import mlflow
import pandas as pd

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
mlflow.set_tracking_uri("sqlite:///mlflow.db")
battles = pd.DataFrame({"speed": [1.0, 2.0], "won": [0.0, 1.0]})


def shown(experiment: str, file: str) -> str:
    """Log the battles as read from a file, in a new run, and return the source that the run shows."""
    mlflow.set_experiment(experiment)
    with mlflow.start_run() as run:
        mlflow.log_input(mlflow.data.from_pandas(battles, source=file, name="battles"), context="training")
    (logged,) = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    return json.loads(logged.dataset.source)["uri"]


seen = [(experiment, file, shown(experiment, file)) for experiment, file in
        (("one", "first.csv"), ("one", "second.csv"), ("other", "second.csv"))]
for experiment, file, source in seen:
    print(f"experiment {experiment:<6} given {file:<11} shown {source}")
assert [source for *_, source in seen] == ["first.csv", "first.csv", "second.csv"], "the behaviour has changed"
PYTHON
env/bin/python check.py
