"""A real MLflow server with a registry of its own, and a version that a notebook has registered from a commit."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from nbtrack.mlflow_rest import MlflowRest
from pokebattle import engine
from pokebattle.registry import stages

TRACKING = Path(__file__).parents[1] / "nbtrack"
sys.path.insert(0, str(TRACKING))  # its conftest and ours import its modules
_spec = importlib.util.spec_from_file_location("tracking_conftest", TRACKING / "conftest.py")
_tracking = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tracking)
mlflow_server = _tracking.mlflow_server
SMALL = {
    "max_matchups": 800,
    "max_judging_pairs": 60,
    "n_estimators": 40,
    "n_bootstrap": 50,
    "learning_curve_points": 2,
    "register_model": True,
}
QUICK = (  # a notebook that trains, judges and registers as train.ipynb does, without its pictures
    'version: str = "sample"  # a file in params/',
    """from pokebattle import evaluation
from pokebattle.datasets import load_battles, open_part
from pokebattle.model import BattleWinner
from pokebattle.params import load_params
from pokebattle.registry import publish
params = load_params(globals())
limits = params.max_matchups, params.max_judging_pairs
battles = load_battles(params.dataset, params.protocol, *limits, tables=params.tables)""",
    """model = BattleWinner.from_params(params)
model.fit(battles.training, battles.training["wins_a"], battles.training["n_battles"], battles.species)
test = evaluation.single_orientation(open_part(battles, "test"))
figures = evaluation.all_metrics(test, model.predict_proba(test)[:, 1]).iloc[0].dropna().to_dict()""",
    "publish(model, params, figures, battles)",
)
SKIPPED = {
    ".venv",
    ".venv-docs",
    ".git",
    "build",
    ".pokebattle",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    "__pycache__",
}


@pytest.fixture
def rest(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> MlflowRest:
    """A connection to the server, which the package's own functions use as well."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return MlflowRest(mlflow_server)


@pytest.fixture
def shelf(rest: MlflowRest, request: pytest.FixtureRequest) -> str:
    """The name of a registered model with four versions, which belongs to one test."""
    name = re.sub(r"\W", "_", request.node.name)[:80]
    rest.call("POST", "registered-models/create", name=name)
    for _ in range(4):
        rest.call("POST", "model-versions/create", name=name, source="s3://a/bucket")
    return name


@pytest.fixture
def stage_table(rest: MlflowRest) -> Callable[[str], dict[int, tuple[str, tuple[str, ...], str]]]:
    """What the server says of a model's versions: stage, aliases, tag."""

    def look(name: str) -> dict[int, tuple[str, tuple[str, ...], str]]:
        return {
            number: (version.stage, version.aliases, version.tag)
            for number, version in stages.read(rest, name).versions.items()
        }

    return look


@dataclass
class Checkout:
    """A checkout with a commit, in which the project's programs are run as a user would."""

    folder: Path
    env: dict[str, str]

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment there."""
        words = [str(Path(sys.executable).parent / command[0]), *command[1:]]
        return subprocess.run(words, cwd=self.folder, env=self.env | env, capture_output=True, text=True, timeout=600)

    def verb(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Type ``python -m pokebattle words``."""
        return self.run("python", "-m", "pokebattle", *words, **env)

    def git(self, *words: str) -> str:
        """Run git there and return what it says."""
        identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        return subprocess.run(
            ["git", *identity, *words], cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout

    def train(self, notebook: str = "train", **chosen: Any) -> str:
        """Execute a notebook that registers, which must succeed, and return its run's id once it is closed."""
        options = [word for name, value in (SMALL | chosen).items() for word in ("-p", name, str(value))]
        done = self.run("papermill", "--no-progress-bar", f"notebooks/{notebook}.ipynb", "out.ipynb", *options)
        assert done.returncode == 0, done.stderr
        report = self.verb("report", "out.ipynb")
        (run_id,) = re.findall(r"/runs/([0-9a-f]{32})\S* \(FINISHED\)", report.stdout)
        return run_id


def _checkout(folder: Path, root: Path, uri: str) -> Checkout:
    for path in root.iterdir():
        if path.name not in SKIPPED:
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, folder / path.name, **({"ignore": shutil.ignore_patterns(*SKIPPED)} if path.is_dir() else {}))
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MLFLOW_", "POKEBATTLE_", "PYTEST_", "GIT_"))
    }
    path = os.pathsep.join([str(folder), env["PYTHONPATH"]])
    env |= {"PYTHONPATH": path, "MLFLOW_TRACKING_URI": uri, "POKEBATTLE_LINGER": "0"}
    (folder / ".pokebattle").mkdir()
    (folder / ".pokebattle" / "engine").symlink_to(engine.install().parent)
    metadata = {"pokebattle": {"schema": "params", "experiment": "battle_winner_{version}"}}
    quick = _tracking.notebook(*QUICK[1:], parameters=QUICK[0], metadata=metadata)
    nbformat.write(quick, folder / "notebooks" / "quick.ipynb")
    made = Checkout(folder, env)
    made.git("init", "--quiet")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "All of it")
    return made


@pytest.fixture(scope="session")
def checkout(
    tmp_path_factory: pytest.TempPathFactory, root: Path, mlflow_server: str, installed_engine: None
) -> Checkout:
    """A checkout of the project as it is here, all of it in a commit."""
    return _checkout(tmp_path_factory.mktemp("checkout"), root, mlflow_server)


@pytest.fixture(scope="session")
def trained(checkout: Checkout) -> str:
    """The id of the run that registered version 1 of `battle_winner`."""
    return checkout.train("quick")
