"""What a run contains: the cells' own mlflow calls, fitted models, versions, datasets, the commit."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from waiting import wait_for

from nbtrack.mlflow_rest import MlflowRest
from nbtrack.provenance import code_diff, code_version, is_committed


def test_mlflow_calls_of_cells_land_in_the_run(tracked: Any, make_notebook: Any) -> None:
    cells = (
        "import mlflow\nmlflow.log_param('depth', 3)\nmlflow.log_metric('score', 0.5, step=7)",
        "with mlflow.start_run(run_name='inner', nested=True):\n    mlflow.log_metric('inner_score', 1.0)",
        "own = mlflow.active_run().info.run_id\nmlflow.end_run()\nassert mlflow.active_run() is None\n"
        "assert mlflow.get_run(own).info.status == 'FINISHED'",
        "mlflow.start_run(run_name='left open');",
    )
    path = tracked.write("own_calls.ipynb", make_notebook(*cells))
    done = tracked.papermill(path)
    assert done.returncode == 0, done.stderr
    runs = {run.info.run_name: run for run in tracked.runs("own_calls", count=3)}
    run = runs["own_calls"]
    assert run.data.params["depth"] == "3"
    assert run.data.metrics["score"] == 0.5
    assert runs["inner"].data.metrics == {"inner_score": 1.0}
    for child in ("inner", "left open"):
        assert runs[child].data.tags["mlflow.parentRunId"] == run.info.run_id
        assert runs[child].info.status == "FINISHED"


RESUMES = """
import mlflow
given = {run!r}
with mlflow.start_run(run_id=given) as run:
    print(run.info.run_name, mlflow.active_run().info.run_id == given, mlflow.get_run(given).info.status)
    mlflow.log_param('late {switch}', 1)
    mlflow.log_metric('late {switch}', 2.0)
    mlflow.set_tag('late {switch}', 'yes')
    mlflow.log_text('late', 'late {switch}.txt')
print(mlflow.active_run(), mlflow.last_active_run().info.run_id == given, mlflow.get_run(given).info.status)"""


def test_the_run_of_another_notebook_is_resumed_as_in_plain_mlflow(tracked: Any, make_notebook: Any) -> None:
    first = tracked.run_of("resumed.ipynb", make_notebook("import mlflow\nmlflow.log_metric('early', 1.0)"))
    shown = {}
    for switch in ("on", "off"):
        cell = RESUMES.format(run=first.info.run_id, switch=switch)
        done = tracked.papermill(tracked.write("resumes.ipynb", make_notebook(cell)), POKEBATTLE_TRACKING=switch)
        assert done.returncode == 0, done.stderr
        outputs = nbformat.read(tracked.folder / "out.ipynb", 4).cells[-1].outputs
        text = "".join(output.text for output in outputs if output.get("name") == "stdout")
        shown[switch] = [line for line in text.splitlines() if line[0] not in "🏃🧪"]
    assert shown["on"] == shown["off"] == ["resumed True RUNNING", "None True FINISHED"]
    (run,) = tracked.runs("resumes")
    assert "late on" not in {*run.data.params, *run.data.metrics, *run.data.tags}
    (resumed,) = tracked.runs("resumed")
    before = first.data
    assert resumed.data.params == before.params | {"late on": "1", "late off": "1"}
    assert resumed.data.metrics == before.metrics | {"late on": 2.0, "late off": 2.0}
    assert resumed.data.tags == before.tags | {"late on": "yes", "late off": "yes"}
    files = {file.path for file in tracked.client.list_artifacts(resumed.info.run_id)}
    assert resumed.info.status == "FINISHED" and {"late on.txt", "late off.txt"} <= files


def test_cells_that_turn_to_another_server_are_left_alone(tracked: Any, make_notebook: Any) -> None:
    cells = (
        "import mlflow\nmlflow.set_tracking_uri('sqlite:///elsewhere.db')\nmlflow.set_experiment('elsewhere')",
        "with mlflow.start_run() as run:\n    mlflow.log_metric('there', 1.0)",
        "assert not run.data.tags.get('mlflow.parentRunId')\nprint(mlflow.get_run(run.info.run_id).data.metrics)",
    )
    run = tracked.run_of("turned.ipynb", make_notebook(*cells))
    assert "there" not in run.data.metrics
    assert tracked.client.get_experiment_by_name("elsewhere") is None
    shown = tracked.artifact(run, "turned.ipynb")["cells"][2]["outputs"][0]["text"]
    assert shown == "{'there': 1.0}\n"


def test_the_experiment_is_left_behind_with_the_server_and_found_again(tracked: Any, make_notebook: Any) -> None:
    turn = "mlflow.set_tracking_uri('{}')\nwith mlflow.start_run():\n    mlflow.log_metric('there', {})"
    cells = (
        "import mlflow\nmlflow.log_metric('here', 1.0)\nmlflow.end_run()",
        turn.format("sqlite:///elsewhere.db", 2.0),
        turn.format(tracked.uri, 3.0),
    )
    tracked.write("back.ipynb", make_notebook(*cells))
    assert tracked.papermill(tracked.folder / "back.ipynb").returncode == 0
    run, child = tracked.runs("back", count=2)
    assert run.data.metrics["here"] == 1.0 and child.data.metrics == {"there": 3.0}
    assert child.data.tags["mlflow.parentRunId"] == run.info.run_id


def test_what_is_logged_can_be_read_at_once(tracked: Any, make_notebook: Any) -> None:
    cells = (
        "import mlflow\nclient = mlflow.MlflowClient()\nmlflow.set_tag('a', 'b')\n"
        "run_id = mlflow.active_run().info.run_id\nprint(run_id)",
        "for step in range(20):\n    mlflow.log_metric('loss', step, step=step)",
        "print(len(client.get_metric_history(run_id, 'loss')), mlflow.get_run(run_id).data.metrics['loss'])",
        "mlflow.log_text('content', 'a.txt')\nprint(mlflow.artifacts.load_text(f'runs:/{run_id}/a.txt'))",
        "mlflow.log_metric('loss', 20, step=20)\n"
        "print(mlflow.search_runs(search_all_experiments=True, filter_string='metrics.loss = 20').run_id.tolist())",
    )
    run = tracked.run_of("read_back.ipynb", make_notebook(*cells))
    texts = [
        cell["outputs"][-1]["text"]
        for n, cell in enumerate(tracked.artifact(run, "read_back.ipynb")["cells"])
        if n != 1
    ]
    assert texts == [f"{run.info.run_id}\n", "20 19.0\n", "content\n", f"['{run.info.run_id}']\n"]


def test_fits_are_logged_without_mlflow_in_the_kernel(tracked: Any, make_notebook: Any) -> None:
    cells = (
        "import sys\nimport numpy as np\nX = np.arange(40.0).reshape(20, 2); y = np.arange(20) % 2",
        "from sklearn.pipeline import make_pipeline\nfrom sklearn.preprocessing import StandardScaler\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y);",
        "LogisticRegression(C=2.0).fit(X, y)\nLogisticRegression(C=3.0).fit(X, y);",
        "from xgboost import XGBClassifier\n"
        "XGBClassifier(n_estimators=4, max_depth=2, n_jobs=1).fit(X, y, eval_set=[(X, y)], verbose=False);",
        "assert 'mlflow' not in sys.modules",
    )
    run = tracked.run_of("fits.ipynb", make_notebook(*cells))
    params, fits = run.data.params, tracked.artifact(run, "fits.json")
    assert (params["LogisticRegression.C"], params["LogisticRegression_2.C"]) == ("2.0", "3.0")
    assert params["Pipeline.logisticregression__C"] == "1.0"
    assert (params["xgboost.max_depth"], params["xgboost.num_boost_round"]) == ("2", "4")
    assert [fit["model"] for fit in fits] == ["Pipeline", "LogisticRegression", "LogisticRegression", "xgboost"]
    curve = tracked.client.get_metric_history(run.info.run_id, "fit/xgboost/validation_0-logloss")
    assert [point.step for point in curve] == [0, 1, 2, 3]
    assert fits[3]["shape"] == [20, 2]


def test_parameters_of_the_schema_are_logged_whole(tracked: Any, make_notebook: Any) -> None:
    cells = ("from pokebattle.params import load_params\nparams = load_params(globals())",)
    metadata = {"pokebattle": {"schema": "params", "experiment": "schema_{version}"}}
    document = make_notebook(*cells, parameters='version: str = "sample"  # a file in params/', metadata=metadata)
    done = tracked.papermill(tracked.write("schema.ipynb", document), "-p", "max_depth", "3")
    assert done.returncode == 0, done.stderr
    (run,) = tracked.runs("schema_sample")
    assert run.data.params["max_depth"] == "3"
    assert run.data.params["version"] == "sample"
    assert run.data.params["random_state"] == "42"
    assert not [name for name in run.data.params if name.endswith(".2")]
    typed = tracked.artifact(run, "parameters.json")
    assert (typed["version"], typed["max_depth"]) == ("sample", 3)


def test_figures_are_artifacts(tracked: Any, make_notebook: Any) -> None:
    cells = ("%matplotlib inline\nimport matplotlib.pyplot as plt", "plt.plot([1, 2]); plt.show()")
    assert tracked.papermill(tracked.write("drawn.ipynb", make_notebook(*cells))).returncode == 0
    (run,) = tracked.runs("drawn")
    names = [item.path for item in tracked.client.list_artifacts(run.info.run_id, "figures")]
    assert names == ["figures/cell_02.png"]


def test_a_server_that_closes_idle_connections_is_not_taken_for_away(closing: Any) -> None:
    rest = MlflowRest(f"http://127.0.0.1:{closing.servers[0].sockets[0].getsockname()[1]}")
    experiment = rest.experiment("idle")
    wait_for(lambda: not closing.server_state.connections, "the server to close the connection")
    assert rest.experiment("idle") == experiment


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout that contains one module and one notebook."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "module.py").write_text("x = 1\n")
    cell = {"cell_type": "code", "source": ["1 + 1"], "metadata": {}, "outputs": [], "execution_count": None}
    (folder / "n.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run(
            ["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@example.org", *command], check=True
        )
    return folder


def test_dirty_means_code_not_outputs(checkout: Path) -> None:
    version = code_version(checkout)
    assert version is not None and len(version[0]) == 40 and version[1] is False
    document = json.loads((checkout / "n.ipynb").read_text())
    document["cells"][0]["execution_count"] = 1
    (checkout / "n.ipynb").write_text(json.dumps(document))
    (checkout / "new.txt").write_text("untracked")
    assert code_version(checkout) == version
    (checkout / "settings.yaml").write_text("a: 1")  # a run may depend on it, and no commit brings it back
    assert code_version(checkout) == (version[0], True)
    assert code_diff(checkout) == "# in no commit: settings.yaml\n"
    (checkout / "settings.yaml").unlink()
    document["cells"][0]["source"] = ["1 + 2"]
    (checkout / "n.ipynb").write_text(json.dumps(document))
    assert code_version(checkout) == (version[0], True)
    assert code_version(Path("/")) is None
    assert (is_committed(checkout / "n.ipynb"), is_committed(checkout / "new.txt")) == (True, False)


def test_the_commit_the_patch_and_the_lock_are_on_the_run(tracked: Any, make_notebook: Any, checkout: Path) -> None:
    tracked.folder = checkout
    (checkout / "module.py").write_text("x = 2\n")
    (checkout / "uv.lock").write_bytes(b"version = 1")
    digest = hashlib.sha256(b"version = 1").hexdigest()
    assert tracked.papermill(tracked.write("committed.ipynb", make_notebook("1"))).returncode == 0
    (run,) = tracked.runs("committed")
    assert run.data.tags["mlflow.source.git.commit"] == code_version(checkout)[0]  # type: ignore[index]
    assert run.data.tags["pokebattle.git.dirty"] == "true"
    assert run.data.tags["pokebattle.lock"] == f"uv.lock sha256:{digest}"
    assert "-x = 1\n+x = 2\n" in tracked.download(run_id=run.info.run_id, artifact_path="code.patch").read_text()


def test_a_notebook_that_no_commit_contains_is_not_clean(tracked: Any, make_notebook: Any, checkout: Path) -> None:
    tracked.folder = checkout
    run = tracked.run_of("uncommitted.ipynb", make_notebook("1"))
    assert run.data.tags["pokebattle.git.dirty"] == "true"
    patch = tracked.download(run_id=run.info.run_id, artifact_path="code.patch").read_text()
    assert patch == "# notebook that no commit holds: uncommitted.ipynb\n"


def test_a_cell_that_was_edited_in_lab_and_not_saved_makes_its_run_dirty(
    tracked: Any, make_notebook: Any, checkout: Path, lab_kernel: Any
) -> None:
    tracked.folder = checkout
    path = tracked.write("unsaved.ipynb", make_notebook("x = 1", "x + 1"))
    git = ["git", "-C", checkout, "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["add", "unsaved.ipynb"], ["commit", "-qm", "two", "unsaved.ipynb"]):
        subprocess.run([*git, *words], check=True)
    kernel = lab_kernel(tracked, path)
    try:
        kernel.run("x = 1", "cell-0")
        kernel.run("x + 2", "cell-1")
    finally:
        kernel.stop()
    (run,) = tracked.runs("unsaved")
    assert run.data.tags["pokebattle.git.dirty"] == "true"
    patch = tracked.download(run_id=run.info.run_id, artifact_path="code.patch").read_text()
    assert "-x + 1\n+x + 2\n" in patch
    assert run.data.tags["pokebattle.order"] == "top to bottom, edited"
