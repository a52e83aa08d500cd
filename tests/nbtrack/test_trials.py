"""Trials as runs on a real MLflow server: by the real notebook, past a dead kernel and a dead server, in a browser."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import FaultProxy
from mlflow.entities import Run
from test_lab import QUIET

from nbtrack import tags

SMALL = {"max_matchups": 300, "max_judging_pairs": 20, "features": "raw", "n_bootstrap": 20, "n_estimators": 12}
PARAMETERS = 'version: str = "sample"  # a file in params/\nkilled: int = -1  # the trial in which the kernel dies'
SEARCH = """
import os, signal
from types import SimpleNamespace
from pokebattle.params import load_params
from pokebattle.tuning import search as searches
class Quick:
    interval = 1
    def __init__(self, params, battles): self.params = params
    def defaults(self): return {"max_depth": 6}
    def __call__(self, trial):
        depth = trial.suggest_int("max_depth", 2, 8)
        if depth == 6:
            raise ValueError("no trees")  # before there is anything to report
        trial.report(depth / 10, 1)
        if trial.number == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        for name in ("rounds", "predict_us", "fit_seconds", "log_loss"):
            trial.set_user_attr(name, depth)
        return depth
searches.InnerFolds = Quick
params = load_params(globals())
search = searches.open_search(params, SimpleNamespace(digest="battles"))
search.run(4)
""".strip()
VIEW = """
import time
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from nbtrack.kernel.extension import current
from pokebattle.tuning.trial_runs import TrialRuns
words = ["mechanics and stats", "mechanics and moves", "raw"]
spaces = {"features_of_both": CategoricalDistribution(words), "learning_rate": FloatDistribution(0.0, 1.0)}
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(study_name="seen")
study.set_user_attr("key", f"view-{time.time_ns()}")
study.set_user_attr("identity", {"search": {"features_of_both": {"choices": words}, "learning_rate": {}}})
states = optuna.trial.TrialState
for n in range(100):
    state = {0: states.FAIL, 1: states.PRUNED}.get(n % 10, states.COMPLETE)
    value = (n * 37 % 100) / 100
    figures = dict.fromkeys(["rounds", "predict_us", "fit_seconds", "log_loss"], value) if n % 10 else {}
    study.add_trial(optuna.create_trial(
        state=state, value=value if state == states.COMPLETE else None, distributions=spaces,
        params={"features_of_both": words[n % 3], "learning_rate": value},
        intermediate_values={1: value} if n % 10 else {}, user_attrs={"execution": current().id, **figures}))
""".strip()


def options(**chosen: Any) -> list[str]:
    return [word for name, value in (SMALL | chosen).items() for word in ("-p", name, str(value))]


def children(tracked: Any, parent: Run) -> list[Run]:
    """The trials below a run."""
    below = f"tags.`{tags.PARENT_RUN}` = '{parent.info.run_id}'"
    return list(tracked.client.search_runs([parent.info.experiment_id], filter_string=below))


def numbers(runs: list[Run]) -> list[int]:
    return sorted(int(run.data.tags[tags.TRIAL]) for run in runs)


def shown(folder: Path, name: str = "out.ipynb") -> str:
    cells = json.loads((folder / name).read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join("".join(output.get("text") or output.get("data", {}).get("text/plain", "")) for output in outputs)


def pokebattle(tracked: Any, *words: str) -> subprocess.CompletedProcess[str]:
    return tracked.execute("python", "-m", "pokebattle", *words)


def test_a_search_is_a_run_with_its_trials_below_repaired_by_sync_and_handed_over(tracked: Any, root: Path) -> None:
    params = tracked.folder / "params"
    shutil.copytree(root / "params", params)
    text = (params / "sample.yaml").read_text().replace("version: sample ", "version: handed ")
    (params / "handed.yaml").write_text(re.sub(r"n_estimators: \{.*\}", "n_estimators: {low: 5, high: 12}", text))
    for name in ("tune", "train"):
        shutil.copy(root / "notebooks" / f"{name}.ipynb", tracked.folder)
    env = {"POKEBATTLE_PARAMS": str(params)}
    done = tracked.papermill(tracked.folder / "tune.ipynb", *options(version="handed", n_trials=7), **env)
    assert done.returncode == 0, done.stderr
    runs = tracked.runs("tuning_handed", 8)
    (parent,) = [run for run in runs if tags.PARENT_RUN not in run.data.tags]
    trials = children(tracked, parent)
    assert parent.info.status == "FINISHED" and numbers(trials) == list(range(7))
    assert len({(tuple(sorted(run.data.params)), tuple(sorted(run.data.metrics))) for run in trials}) == 1
    assert {run.data.tags[tags.TRIAL_STATE] for run in trials} <= {"complete", "pruned"}
    best = min(run.data.metrics["log_loss"] for run in trials if run.data.tags[tags.TRIAL_STATE] == "complete")
    assert parent.data.metrics["best_log_loss"] == pytest.approx(best)
    (first_trial,) = [run for run in trials if run.data.tags[tags.TRIAL] == "0"]
    curve = tracked.client.get_metric_history(first_trial.info.run_id, "log_loss_by_round")
    assert len(curve) > 3 and len({point.step for point in curve}) == len(curve)
    assert {file.path for file in tracked.client.list_artifacts(parent.info.run_id, "best_model")} == {
        "best_model/booster.ubj",
        "best_model/features.json",
    }
    assert not any(tracked.client.list_artifacts(run.info.run_id) for run in trials)
    assert not any("opened" in tag for tag in parent.data.tags)

    # What is missing or there twice is mended from the storage.
    lost, doubled = trials[2], trials[4]
    tracked.client.delete_run(lost.info.run_id)
    tracked.client.create_run(parent.info.experiment_id, tags=doubled.data.tags)
    assert len(children(tracked, parent)) == 7
    done = pokebattle(tracked, "sync")
    assert "1 trials delivered, 1 duplicates removed" in done.stdout, done.stdout + done.stderr
    mended = children(tracked, parent)
    assert numbers(mended) == list(range(7))
    (again,) = [run for run in mended if run.data.tags[tags.TRIAL] == lost.data.tags[tags.TRIAL]]
    assert (again.data.params, again.data.metrics) == (lost.data.params, lost.data.metrics)
    assert again.info.status == lost.info.status and doubled.info.run_id in {run.info.run_id for run in mended}

    # Hand-over: to a training, and to a version.
    done = tracked.papermill(tracked.folder / "train.ipynb", *options(version="handed", tuned_from="latest"), **env)
    assert done.returncode == 0, done.stderr
    (trained,) = tracked.runs("battle_winner_handed")
    parent = tracked.client.get_run(parent.info.run_id)
    assert trained.data.tags["pokebattle.tuned_from"] == parent.info.run_id
    assert parent.data.tags["pokebattle.trained_by"] == trained.info.run_id
    settings, result = trained.data.tags["mlflow.note.content"].split("\n\n")
    assert parent.info.run_id in settings and result.startswith("Test part, protocol pair: excess **")
    values = json.loads(parent.data.tags[tags.BEST])
    given = {name: value for name, value in values.items() if name not in SMALL}
    assert given and {name: float(trained.data.params[name]) for name in given} == given
    assert int(trained.data.params["n_estimators"]) == SMALL["n_estimators"]  # -p goes before
    gained = trained.data.metrics
    assert gained["gain_log_loss_low"] <= gained["gain_log_loss"] <= gained["gain_log_loss_high"]
    assert f"{gained['gain_log_loss']:.4f}".rstrip("0") in shown(tracked.folder)

    done = tracked.execute("python", "-m", "pokebattle", "adopt", "handed", "better", **env)
    assert done.returncode == 0, done.stderr
    before, after = ((params / f"{name}.yaml").read_text().splitlines() for name in ("handed", "better"))
    differ = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert {new.split(":")[0] for _, new in differ} <= {"version", "description", *values}
    assert all(old.index("  #") == new.index("  #") or len(new) > len(old) for old, new in differ)
    assert tracked.execute("python", "-m", "pokebattle", "adopt", "handed", "better", **env).returncode == 1


@pytest.mark.parametrize(
    ("tuned_from", "expected"),
    [
        ("latest", "has no run of tune.ipynb that found values for v1; papermill notebooks/tune.ipynb"),
        ("0" * 32, "expected a run of tune.ipynb that .* knows, got '0{32}' .*not found"),
    ],
)
def test_what_was_not_found_cannot_be_adopted(tracked: Any, tuned_from: str, expected: str) -> None:
    done = pokebattle(tracked, "adopt", "v1", "better", "--tuned-from", tuned_from)
    assert done.returncode == 1 and re.search(f"^Error: tuned_from: .*{expected}", done.stderr), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("package", ["nbtrack", "pokebattle"])
def test_sync_names_a_database_of_studies_that_does_not_answer(tracked: Any, package: str) -> None:
    address = "postgresql+psycopg2://me@127.0.0.1:9/x"
    done = tracked.execute("python", "-m", package, "sync", POKEBATTLE_STORAGE=address)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert re.search(r"^Error: .*storage: expected a database that answers.*refused", done.stderr)


@pytest.fixture
def proxied(tracked: Any, mlflow_server: str) -> Iterator[tuple[Any, FaultProxy]]:
    """The same with a proxy before the server, that can make it unreachable."""
    with FaultProxy(mlflow_server) as proxy:
        tracked.env["MLFLOW_TRACKING_URI"] = proxy.uri
        yield tracked, proxy


def test_a_killed_kernels_trial_is_made_again_and_no_trial_is_lost_or_doubled_while_the_server_is_away(
    proxied: Any, make_notebook: Any
) -> None:
    tracked, proxy = proxied
    name = f"search_{os.urandom(3).hex()}"
    document = make_notebook(SEARCH, parameters=PARAMETERS, metadata={"pokebattle": {"schema": "params"}})
    path = tracked.write(f"{name}.ipynb", document)
    killed = tracked.papermill(path, "-p", "killed", "2")
    assert killed.returncode != 0
    (first,) = [run for run in tracked.runs(name, 3) if tags.PARENT_RUN not in run.data.tags]
    assert first.info.status == "KILLED" and numbers(children(tracked, first)) == [0, 1]

    proxy.mode = "refuse"
    done = tracked.papermill(path)
    assert done.returncode == 0, done.stderr
    assert "waits in" in done.stderr
    proxy.mode = "pass"
    done = pokebattle(tracked, "sync")
    runs = tracked.runs(name, 7)
    (second,) = [run for run in runs if tags.PARENT_RUN not in run.data.tags and run.info.run_id != first.info.run_id]
    of_first, of_second = children(tracked, first), children(tracked, second)
    assert numbers(of_first) == [0, 1, 2] and numbers(of_second) == [3, 4]
    by_number = {int(run.data.tags[tags.TRIAL]): run for run in of_first + of_second}
    ended = [by_number[n].data.tags[tags.TRIAL_STATE] for n in range(5)]
    assert ended == ["failed", "complete", "failed", "complete", "complete"]
    assert [by_number[n].info.status for n in (0, 1)] == ["FAILED", "FINISHED"]
    assert by_number[3].data.params == by_number[2].data.params
    assert len({(tuple(sorted(run.data.params)), tuple(sorted(run.data.metrics))) for run in by_number.values()}) == 1
    assert "0 trials delivered" in pokebattle(tracked, "sync").stdout


def test_the_links_open_these_trials_with_all_axes_in_a_browser(
    tracked: Any, make_notebook: Any, require: Callable[[str], str]
) -> None:
    from playwright.sync_api import sync_playwright

    record = "projection = TrialRuns(study)\nprojection.note()"
    ask = 'print(projection.record_best({"learning_rate": 0.1}, 0.5))'
    done = tracked.papermill(tracked.write("view.ipynb", make_notebook(VIEW, record, ask)))
    assert done.returncode == 0, done.stderr
    said = shown(tracked.folder)
    assert said.startswith("80 of 100 trials, the best and a sample of study seen\n")
    parallel, compare = re.findall(r"(?m)^(?:parallel coordinates|side by side): (\S+)$", said)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require("chromium"), args=QUIET)
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.goto(parallel)
        page.wait_for_selector(".parcoords .dimension", timeout=60_000)
        axes = page.eval_on_selector_all(".parcoords .dimension .label", "all => all.map(one => one.textContent)")
        words = page.eval_on_selector_all(
            ".parcoords .dimension:first-of-type .tick", "all => all.map(one => one.textContent)"
        )
        page.wait_for_timeout(500)  # no event shows that the lines for the picture are drawn
        page.screenshot(path=str(tracked.folder / "parallel.png"))
        page.goto("about:blank")
        page.goto(compare)
        page.get_by_text("Comparing 80 Runs from 1 Experiment").wait_for(timeout=60_000)
        page.wait_for_selector(".js-plotly-plot .parcoords", timeout=60_000)
        other = page.eval_on_selector_all(".parcoords .axis-title", "all => all.map(one => one.textContent)")
        page.screenshot(path=str(tracked.folder / "compare.png"))
        browser.close()
    assert axes == ["features_of_both", "learning_rate", "rounds", "predict_us", "fit_seconds", "log_loss"]
    assert [word[:2] for word in sorted(words)] == ["1 ", "2 ", "3 "]
    assert {"features_of_both", "learning_rate"} <= set(other) and len(other) == 3
