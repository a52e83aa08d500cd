"""A server with accounts that denies the notebook's own run, and takes others of the same notebook."""

import base64
import json
import secrets
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from faults import Server

WORD = secrets.token_hex(8)
ADMIN, DORA = ("admin", WORD), ("dora", WORD)
SETTINGS = """[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/auth.db
admin_username = admin
admin_password = {word}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""
CELLS = (
    "import mlflow\nmlflow.log_metric('m', 1.0)\n"
    "print(mlflow.get_run(mlflow.active_run().info.run_id).data.metrics)\nmlflow.end_run()",
    "mlflow.set_experiment('of dora')\n"
    "with mlflow.start_run(run_name='allowed') as run:\n    mlflow.log_metric('fine', 1.0)\n"
    "print(mlflow.get_run(run.info.run_id).data.metrics)",
)


class Accounts(Server):
    """MLflow's own server with accounts; every account may read everything, and create experiments."""

    program = ("--app-name", "basic-auth")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "auth.ini").write_text(SETTINGS.format(folder=folder, word=WORD))
        self.env = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "any"}

    def call(self, account: tuple[str, str], path: str, **body: Any) -> Any:
        """Send a POST request with an account."""
        login = base64.b64encode(":".join(account).encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        url = f"{self.uri}/api/2.0/mlflow/{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    with Accounts(tmp_path_factory.mktemp("accounts") / "server") as server:
        server.call(ADMIN, "users/create", username=DORA[0], password=DORA[1])
        yield server


def test_a_run_elsewhere_does_not_wait_for_a_notebooks_run_that_is_denied(
    accounts: Accounts, tracked: Any, make_notebook: Any
) -> None:
    closed = accounts.call(ADMIN, "experiments/create", name="closed")["experiment_id"]
    login = {"MLFLOW_TRACKING_USERNAME": DORA[0], "MLFLOW_TRACKING_PASSWORD": DORA[1]}
    done = tracked.papermill(
        tracked.write("denied.ipynb", make_notebook(*CELLS)),
        MLFLOW_TRACKING_URI=accounts.uri,
        MLFLOW_EXPERIMENT_NAME="closed",
        **login,
    )
    assert done.returncode == 0, done.stderr
    first, last = nbformat.read(tracked.folder / "out.ipynb", 4).cells[-2:]
    assert first.outputs[0].text.startswith("{'m': 1.0}\n")
    assert last.outputs[-1].text.endswith("{'fine': 1.0}\n")
    experiments = accounts.call(DORA, "experiments/search", max_results=10, filter="name = 'of dora'")["experiments"]
    (run,) = accounts.call(DORA, "runs/search", experiment_ids=[experiments[0]["experiment_id"]])["runs"]
    assert (run["info"]["run_name"], run["info"]["status"]) == ("allowed", "FINISHED")
    assert accounts.call(ADMIN, "runs/search", experiment_ids=[closed]).get("runs", []) == []
