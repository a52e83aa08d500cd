"""The workflows are sound, and what they run is what any user can run: make targets, tried here from end to end."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pokebattle.registry import retraining

SAMPLE = {
    "log_loss": 0.15,
    "test_accuracy": 0.93,
    "excess_percent": 5.0,
    "bayes_log_loss": 0.143,
    "bayes_accuracy": 0.94,
    "baseline_damage_race_log_loss": 0.39,
    "baseline_damage_race_excess_percent": 173.8,
    "best_move_excess_percent": 4.0,
    "random_move_excess_percent": 1.5,
}


@pytest.fixture(scope="module")
def workflows(root: Path) -> dict[str, Any]:
    """The workflows by name."""
    return {file.stem: yaml.safe_load(file.read_text()) for file in (root / ".github" / "workflows").glob("*.yml")}


def test_every_step_is_a_make_target_or_the_ci_script(root: Path, workflows: dict[str, Any]) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (root / "Makefile").read_text(), re.MULTILINE))
    commands = [
        step["run"]
        for flow in workflows.values()
        for job in flow["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    assert set(workflows) == {"checks", "docs", "retrain"}
    assert {"make check", ".ci/run", "make docs", "make retrain"} <= set(commands)
    for command in commands:
        program, *words = command.split()
        assert (program == "make" and words and set(words) <= targets) or command == ".ci/run", command
    assert os.access(root / ".ci" / "run", os.X_OK)


def test_rights_are_the_least_and_actions_are_pinned(root: Path, workflows: dict[str, Any]) -> None:
    for name, flow in workflows.items():
        assert flow["permissions"] == {"contents": "read"}
        assert "concurrency" in flow
        text = (root / ".github" / "workflows" / f"{name}.yml").read_text()
        assert all(
            re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used)
            for used in re.findall(r"uses: (.*)", text)
        )
        for title, job in flow["jobs"].items():
            publishes = (name, title) == ("docs", "publish")
            assert job["timeout-minutes"]
            granted = job.get("permissions", {})
            assert set(granted) == ({"pages", "id-token"} if publishes else set())
            assert set(granted.values()) <= {"write"}
            secret = [step for step in job["steps"] if "secrets." in json.dumps(step)]
            assert all("run" in step for step in secret) and "secrets." not in json.dumps(job.get("env", {}))


@pytest.mark.parametrize(
    "words",
    [
        ["actionlint", "-pyflakes", ""],
        ["zizmor", "--quiet", "--offline", ".github/workflows"],
        ["shellcheck", ".ci/run", ".ci/environment"],
    ],
    ids=lambda words: words[0],
)
def test_linters_find_nothing(root: Path, require: Callable[[str], str], words: list[str]) -> None:
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([require(words[0]), *words[1:]], cwd=root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_linters_find_what_is_wrong(tmp_path: Path, root: Path, require: Callable[[str], str]) -> None:
    broken = tmp_path / "retrain.yml"
    broken.write_text((root / ".github" / "workflows" / "retrain.yml").read_text().replace("${{ inputs.", "${{ input."))
    done = subprocess.run([require("actionlint"), broken], capture_output=True, text=True)
    assert done.returncode == 1 and 'undefined variable "input"' in done.stdout


def test_the_report_shows_results_as_table_and_charts() -> None:
    run = {"run_id": "abc", "experiment_id": "1", "uri": "http://mlflow", "status": "FINISHED", "metrics": SAMPLE}
    state = retraining.Retraining("sample", retraining.STOPPED, "No shared server.", run, "battle_winner", 3)
    text = state.markdown()
    assert text.startswith("# Retraining of sample: passed, not promoted\n\nbattle_winner version 3. No shared")
    assert "http://mlflow/#/experiments/1/runs/abc" in text
    assert "| model | 0.1500 | 5.0 | 0.930 |" in text and "| damage race | 0.3900 | 173.8 |  |" in text
    charts = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    assert len(charts) == 2 and all(chart.splitlines()[1].startswith("xychart-beta") for chart in charts)
    assert 'x-axis ["model", "damage race", "Bayes limit"]' in charts[0] and "bar [0.15, 0.39, 0.143]" in charts[0]
    assert 'x-axis ["best move", "random move"]' in charts[1]
    assert "<img" not in text and "![" not in text  # neither local nor embedded pictures show
    assert [retraining.Retraining("v", outcome).exit_code for outcome in retraining.EXIT_CODES] == [0, 0, 1, 2]


def retrain(folder: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Type ``python -m pokebattle retrain --version sample`` in a checkout."""
    words = [sys.executable, "-m", "pokebattle", "retrain", "--version", "sample", *options]
    return subprocess.run(words, cwd=folder, env=clean_environment(folder) | env, capture_output=True, text=True)


def clean_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a job: secrets that the repository does not have are empty."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "POKEBATTLE_", "MAKE"))
    }
    path = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
    environment |= {
        "PYTHONPATH": path,
        "GITHUB_STEP_SUMMARY": str(folder.parent / "summary.md"),
        "POKEBATTLE_STATE": str(folder / ".pokebattle"),
        "MLFLOW_TRACKING_URI": "",
        "MLFLOW_TRACKING_USERNAME": "",
        "MLFLOW_TRACKING_PASSWORD": "",
    }
    environment.pop("PYTEST_CURRENT_TEST", None)
    return environment


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Path]:
    """A clone whose only commit is the current state, with this environment; its server ends with the tests."""
    folder = tmp_path_factory.mktemp("retrain") / "checkout"
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z"], check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    params = folder / "params" / "sample.yaml"  # other tests may keep the machine busy
    params.write_text(re.sub(r"(load_seconds|answer_ms): \d+", r"\1: 9999", params.read_text()))
    (folder / ".venv").symlink_to(root / ".venv")
    for name in ("requirements.lock", "pyproject.toml"):  # the environment is newer
        os.utime(folder / name, (0, 0))
    (folder / ".git" / "info").mkdir(parents=True)
    (folder / ".git" / "info" / "exclude").write_text(".venv\n")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    stop = f"read -r _; exec {sys.executable} -m pokebattle server stop >/dev/null"  # also when pytest is killed
    guard = subprocess.Popen(
        ["sh", "-c", stop], cwd=folder, env=clean_environment(folder), stdin=subprocess.PIPE, start_new_session=True
    )
    yield folder
    guard.communicate()


def test_without_its_server_it_is_broken_and_the_report_says_so(checkout: Path) -> None:
    done = retrain(checkout, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "No MLflow server answers at http://127.0.0.1:9." in done.stderr
    report = (checkout / "build" / "retrain.md").read_text()
    assert report.startswith("# Retraining of sample: failed")
    assert "No MLflow server answers at http://127.0.0.1:9." in report
    assert (checkout.parent / "summary.md").read_text().endswith(report)


@pytest.fixture
def local_server(checkout: Path) -> str:
    """The address of the server that `make retrain` has started."""
    return str(json.loads((checkout / ".pokebattle" / "server.json").read_text())["uri"])


def make_retrain(checkout: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Type ``make retrain VERSION=sample``, as the workflow does."""
    environment = clean_environment(checkout) | {"VERSION": "sample"} | env
    return subprocess.run(["make", "retrain"], cwd=checkout, env=environment, capture_output=True, text=True)


def stages(uri: str) -> dict[str, str]:
    """Return the stage of every registered version, as the server returns it."""
    with urllib.request.urlopen(f"{uri}/api/2.0/mlflow/model-versions/search?max_results=100") as reply:
        versions = json.load(reply).get("model_versions", [])
    return {one["version"]: one["current_stage"] for one in versions}


@pytest.mark.long
class TestForReal:
    """In this order: the local server of the first test is the shared one of the others."""

    def test_without_a_shared_server_it_stops_after_the_gate(self, checkout: Path) -> None:
        done = make_retrain(checkout)
        assert done.returncode == 0, done.stdout + done.stderr
        report = (checkout / "build" / "retrain.md").read_text()
        assert report.startswith("# Retraining of sample: passed, not promoted")
        assert "There is no shared server, so nothing was promoted." in report
        assert "## Gates" in report and "```mermaid" in report and "| model |" in report
        assert (checkout.parent / "summary.md").read_text().endswith(report)
        assert (checkout / "build" / "retrain.ipynb").is_file()

    def test_with_one_it_reaches_production(self, checkout: Path, local_server: str) -> None:
        assert stages(local_server) == {"1": "None"}
        done = make_retrain(checkout, MLFLOW_TRACKING_URI=local_server)
        assert done.returncode == 0, done.stdout + done.stderr
        assert stages(local_server) == {"1": "None", "2": "Production"}
        report = (checkout / "build" / "retrain.md").read_text()
        assert report.startswith("# Retraining of sample: promoted\n\nbattle_winner version 2.")
        assert "## Gates before Staging" in report and "## Gates before Production" in report

    def test_what_a_gate_refuses_stays_out_and_the_report_says_why(self, checkout: Path, local_server: str) -> None:
        (checkout / "pokebattle" / "unknown.py").write_text("# in no commit\n")
        done = retrain(checkout, MLFLOW_TRACKING_URI=local_server)
        (checkout / "pokebattle" / "unknown.py").unlink()
        assert done.returncode == 1, done.stdout + done.stderr
        report = (checkout / "build" / "retrain.md").read_text()
        assert report.startswith("# Retraining of sample: refused by a gate\n\nbattle_winner version 3.")
        assert "clean commit" in done.stderr and "## Gates before Staging" in report
        assert stages(local_server) == {"1": "None", "2": "Production", "3": "None"}

    def test_a_training_that_fails_is_no_refusal(self, checkout: Path, local_server: str) -> None:
        done = retrain(checkout, "-p", "max_depth", "99", MLFLOW_TRACKING_URI=local_server)
        assert done.returncode == 2
        report = (checkout / "build" / "retrain.md").read_text()
        assert report.startswith("# Retraining of sample: failed\n\nno version was registered.")
        assert "train.ipynb ended with exit code 1" in report
        assert stages(local_server) == {"1": "None", "2": "Production", "3": "None"}
