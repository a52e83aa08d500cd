"""nbtrack's wheel alone, in an environment of its own without pokebattle, tracks a notebook."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
CELLS = ["alpha = 0.1", "import mlflow\nmlflow.log_metric('twice', 2 * alpha)", "print('done')"]


def pins(lock: str) -> str:
    """Return the versions of a lock file as constraints of pip, which takes no hashes there."""
    return "\n".join(re.findall(r"^[a-z0-9][^\s]*==[^\\\n]+", lock, re.MULTILINE)) + "\n"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "nbtrack", source, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    (tmp_path / "constraints.txt").write_text(pins((ROOT / "requirements.lock").read_text()))
    install = ["-m", "pip", "install", "--quiet", "--constraint", str(tmp_path / "constraints.txt"), str(source)]
    subprocess.run([tmp_path / "venv" / "bin" / "python", *install], check=True)
    return tmp_path / "venv" / "bin"


@pytest.mark.long
def test_the_wheel_alone_tracks_a_notebook(environment: Path, tmp_path: Path) -> None:
    hidden = ("MLFLOW_", "POKEBATTLE_", "PYTHON", "VIRTUAL_ENV", "PYTEST_", "JUPYTER_")  # what the tests set
    env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    env |= {"POKEBATTLE_STATE": str(tmp_path / "state"), "PATH": f"{environment}{os.pathsep}{env['PATH']}"}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert run("python", "-c", "from importlib.util import find_spec; print(find_spec('pokebattle'))") == "None\n"
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "foreign.ipynb")
    uri = re.findall(r"http://[\d.:]+", run("python", "-m", "nbtrack", "server", "start", "--own"))[0]
    try:
        said = run("papermill", "foreign.ipynb", "out.ipynb", "-p", "alpha", "0.5")
        assert f"MLflow run: {uri}" in said
        run("python", "-m", "nbtrack", "sync")
        assert "foreign.ipynb" in run("python", "-m", "nbtrack", "runs")
        run("python", "-m", "nbtrack", "doctor")
        client = mlflow.MlflowClient(uri)
        experiment = client.get_experiment_by_name("foreign")
        (tracked_run,) = client.search_runs([experiment.experiment_id])
        assert (tracked_run.info.status, tracked_run.data.params["alpha"]) == ("FINISHED", "0.5")
        assert tracked_run.data.metrics["twice"] == 1.0
        assert "foreign.ipynb" in {file.path for file in client.list_artifacts(tracked_run.info.run_id)}
    finally:
        run("python", "-m", "nbtrack", "server", "stop")
