"""A team's server as `make shared` starts it: PostgreSQL, MLflow with accounts, all in a folder of the tests' own."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from guard import guarded
from waiting import wait_for

from nbtrack.errors import ServerError
from nbtrack.team import settings
from nbtrack.team.accounts import AccountsClient
from nbtrack.team.settings import Login

BIN = Path(sys.executable).parent
SECONDS = 180.0


def notebook(*sources: str) -> Any:
    """Return a notebook of code cells."""
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=kernel)


def free_port() -> int:
    """Return a port below those that the system gives to any program: a server binds it half a minute later."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Team:
    """A server of a team, driven by the commands that its people type."""

    def __init__(self, folder: Path, root: Path, **values: str) -> None:
        self.folder, self.root = folder, root
        self.state, self.env_file = folder / "state", folder / ".env"
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        hidden = ("MLFLOW_", "POKEBATTLE_", "POSTGRES_", "AWS_", "PYTEST_")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        self.env |= {
            "POKEBATTLE_STATE": str(self.state),
            "POKEBATTLE_ENV_FILE": str(self.env_file),
            "MLFLOW_PORT": str(port),
            "MLFLOW_WORKERS": "1",
            "POKEBATTLE_LINGER": "60",
        } | values
        self.guards = contextlib.ExitStack()

    def type(self, *words: str, status: int | None = 0, stdin: str = "", **env: str) -> str:
        """Type ``python -m pokebattle words``; return what it says."""
        done = subprocess.run(
            [sys.executable, "-m", "pokebattle", *words],
            env=self.env | env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            cwd=self.root,
        )
        assert status is None or done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self) -> None:
        """Type ``shared start``; its processes end with this one, whatever ends it."""
        command = [sys.executable, "-m", "pokebattle", "shared", "start"]
        child = subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for find in (self.database_pid, self.server_pid):
            wait_for(lambda find=find: child.poll() is not None or find(), "its process", SECONDS)
            if pid := find():
                self.guards.enter_context(guarded(pid))
        said = child.communicate(timeout=SECONDS)[0]
        assert child.returncode == 0, said + self.log()

    def stop(self) -> None:
        """Type ``shared stop``."""
        self.type("shared", "stop")
        self.guards.close()

    def database_pid(self) -> int:
        """Return the process of PostgreSQL, 0 when there is none."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.state / "shared/postgres/postmaster.pid").read_text().splitlines()[0])
        return 0

    def server_pid(self) -> int:
        """Return the process of the MLflow server that was started last, 0 when there is none."""
        with contextlib.suppress(OSError, ValueError):
            return int(json.loads((self.state / "shared/server.json").read_text())["pid"])
        return 0

    def log(self) -> str:
        """Return the end of the server's log."""
        file = self.state / "shared/server.log"
        return file.read_text("utf-8", errors="replace")[-3000:] if file.is_file() else ""

    def login(self, kind: str) -> Login:
        """Return the account of ``ADMIN``, ``TEAM`` or ``PROMOTER``."""
        return settings.login(settings.read_env(self.env_file), kind)

    def account(self, login: Login | str) -> AccountsClient:
        """Return the server as one account sees it."""
        return AccountsClient(self.uri, self.login(login) if isinstance(login, str) else login)

    def new_account(self, name: str, role: str) -> Login:
        """Make an account with a role, unless there is one."""
        account = Login(name, f"{name}-has-a-long-password")
        if name not in {one.name for one in self.account("ADMIN").listed()}:
            self.account("ADMIN").add(account, role)
        return account

    def tracked(self, login: Login, **env: str) -> dict[str, str]:
        """Return the environment of a user who is logged in, on a machine of their own."""
        user = {"MLFLOW_TRACKING_USERNAME": login.name, "MLFLOW_TRACKING_PASSWORD": login.password}
        place = {"MLFLOW_TRACKING_URI": self.uri, "POKEBATTLE_STATE": str(self.folder / f"of-{login.name}")}
        return self.env | user | place | env

    def papermill(self, login: Login, notebook: Path, *options: str, **env: str) -> subprocess.Popen[str]:
        """Execute a notebook as a user, in the background."""
        words = [str(BIN / "papermill"), notebook.name, f"{notebook.stem}.out.ipynb", *options]
        return subprocess.Popen(
            words,
            cwd=notebook.parent,
            env=self.tracked(login, **env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def runs(self, experiment: str, count: int, seconds: float = 120.0) -> list[dict[str, Any]]:
        """Return an experiment's runs, waiting until there are ``count`` and all of them are closed."""
        admin = self.account("ADMIN")

        def are_closed(runs: list[dict[str, Any]]) -> bool:
            return len(runs) >= count and all(run["info"]["status"] != "RUNNING" for run in runs)

        return wait_for(lambda: self._runs(admin, experiment), f"{count} closed runs", seconds, until=are_closed)

    @staticmethod
    def _runs(admin: AccountsClient, experiment: str) -> list[dict[str, Any]]:
        try:
            known = admin.call("GET", "experiments/get-by-name", experiment_name=experiment)["experiment"]
            ids = [known["experiment_id"]]
            return list(admin.call("POST", "runs/search", experiment_ids=ids, max_results=1000).get("runs", []))
        except (OSError, ServerError):
            return []


@contextlib.contextmanager
def served(folder: Path, root: Path, **values: str) -> Iterator[Team]:
    """Give a server of a team that runs, and end it."""
    team = Team(folder, root, **values)
    try:
        team.start()
        yield team
    finally:
        team.type("shared", "stop", status=None)
        team.guards.close()
        shutil.rmtree(team.state, ignore_errors=True)


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Team]:
    """A server of a team for tests that leave it well."""
    with served(tmp_path_factory.mktemp("team"), root) as started:
        yield started


@pytest.fixture
def make_team(tmp_path: Path, root: Path) -> Iterator[Callable[..., Team]]:
    """`make_team(NAME="value")` starts a server of the test's own with these settings."""
    with contextlib.ExitStack() as started:
        yield lambda **values: started.enter_context(served(tmp_path, root, **values))


@pytest.fixture(scope="session")
def make_notebook() -> Callable[..., Any]:
    """`make_notebook("1 + 1", ...)` gives a notebook of these cells."""
    return notebook


@pytest.fixture
def idle(tmp_path: Path, root: Path) -> Team:
    """A server of a team that is not started."""
    return Team(tmp_path, root)
