"""A registered version: its files are checked before it is loaded, and it is judged before it is promoted.

One file, because its tests share a server and a version that a notebook has trained.
"""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from click.testing import Result

from nbtrack.mlflow_rest import MlflowRest
from pokebattle.datasets import load_battles
from pokebattle.params import ParamsError
from pokebattle.registry import gates, judging_set, load_registered, model_files, stages
from pokebattle.registry.gate_checks import GateChecks
from pokebattle.registry.gate_report import NOT_APPLICABLE, PASSED, REFUSED, Gate

NAMES = [
    "no leak",
    "clean commit",
    "ahead of baselines",
    "calibration",
    "not behind Production",
    "mirrored",
    "loads and answers",
    "executed again",
]


@pytest.fixture(scope="module")
def promoted(checkout: Any, trained: str) -> str:
    """What the command line says when version 1 goes to Staging, which it does."""
    done = checkout.verb("promote", "1", "--to", "Staging", "--why", "the first one")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def loaded(mlflow_server: str, trained: str, tmp_path_factory: pytest.TempPathFactory) -> GateChecks:
    """Version 1 on trial, with all that was loaded and fought for it."""
    rest = MlflowRest(mlflow_server)
    model = stages.read(rest, "battle_winner")
    return GateChecks(rest, model, model.version(1), tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bench(rest: Any, loaded: GateChecks, monkeypatch: pytest.MonkeyPatch) -> GateChecks:
    """The same, whose parameters a test may change."""
    monkeypatch.setattr(loaded, "params", loaded.params)
    return loaded


@pytest.mark.long
def test_a_good_version_passes_every_gate_and_its_page_shows_them(rest: Any, promoted: str, trained: str) -> None:
    lines = promoted.splitlines()
    assert [re.split(r"  +|: ", line)[1] for line in lines[:-1]] == NAMES
    assert {line.split()[0] for line in lines[:-1]} == {"passed", "no"}
    assert "no meaning   not behind Production: no other version is in Production" in lines
    assert re.search(r"executed again: 1\d values, all the same", promoted)
    assert lines[-1] == "battle_winner version 1: None → Staging"
    version = stages.read(rest, "battle_winner").versions[1]
    assert (version.stage, version.aliases, version.tag) == ("Staging", ("staging",), "Staging")
    table = [line for line in version.description.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0][2:] for line in table[2:10]] == NAMES
    assert all(line.count(" | ") == 3 for line in table[2:10])
    assert "pairs of species" in version.description and "seeds of the stream fresh-" in version.description
    assert "| None → Staging |" in version.description and "the first one" in version.description
    assert version.tags["gates"].endswith(": passed")


@pytest.mark.long
def test_the_report_and_the_opening_of_the_gate_part_stand_on_the_run(
    rest: Any, promoted: str, trained: str, tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(rest.uri)
    run = client.get_run(trained)
    assert re.fullmatch(r"20\S+Z", run.data.tags["pokebattle.opened.gate"])
    inputs = {item.tags[0].value: item.dataset.name for item in run.inputs.dataset_inputs}
    assert inputs["gate"] == "v3-gate"
    (entry,) = client.list_artifacts(trained, gates.FOLDER)
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(rest.uri)
        file = mlflow.artifacts.download_artifacts(run_id=trained, artifact_path=entry.path, dst_path=str(tmp_path))
    finally:
        mlflow.set_tracking_uri(before)
    report = json.loads(Path(file).read_text())
    assert report["passed"] and [gate["name"] for gate in report["gates"]] == NAMES
    assert stages.read(rest, "battle_winner").events()[0]["report"] == entry.path
    assert run.data.tags["pokebattle.reproduced"].startswith("same 20")
    again = re.search(r"by run ([0-9a-f]{32})", run.data.tags["pokebattle.reproduced"])[1]
    assert client.get_run(again).data.tags["pokebattle.reproduces"] == trained
    assert client.get_run(again).data.metrics["log_loss"] == run.data.metrics["log_loss"]


@pytest.mark.long
def test_the_checkout_is_left_as_it_was(checkout: Any, promoted: str) -> None:
    assert checkout.git("status", "--porcelain") == ""
    assert len(checkout.git("worktree", "list").splitlines()) == 1


def test_every_judgement_has_battles_of_its_own(rest: Any, bench: GateChecks) -> None:
    first, second = (judging_set.gate_battles(bench.battles, 2) for _ in range(2))
    assert first.source != second.source
    assert list(first.matchups["species_a"]) == list(second.matchups["species_a"])
    assert not first.matchups["wins_a"].equals(second.matchups["wins_a"])
    assert (first.matchups["n_battles"] == 2).all()
    assert first.without(bench.battles).n_pairs == first.n_pairs > 50


@pytest.mark.parametrize(
    ("bound", "value", "gate", "measured"),
    [
        ("calibration_error", 1e-6, "calibration", r"0\.\d{4}"),
        ("ahead_of_baselines", 0.9, "ahead", r"[+-]\d\.\d{4} \[.*\] nats ahead of .*, the closest of 5"),
        ("mirror_error", 0.0, "mirrored", r"at most \d\.\de-1\d from 1"),
        ("memory_mb", 10.0, "loads", r"\d+\.\d s, \d+\.\d ms, \d+ MB"),
    ],
)
def test_a_bound_that_is_missed_refuses_with_value_and_bound(
    bench: GateChecks, bound: str, value: float, gate: str, measured: str
) -> None:
    bench.params = bench.params.model_copy(update={"gates": bench.bounds.model_copy(update={bound: value})})
    text, expected, verdict = getattr(bench, gate)()
    assert re.fullmatch(measured, text), text
    assert verdict == REFUSED
    assert f"{value:g}".replace("e-0", "e-0") in expected or f"{value:.0e}" in expected


def test_a_dirty_or_disordered_run_is_refused(bench: GateChecks) -> None:
    assert bench.clean()[2] == PASSED
    tags = {tag["key"]: tag for tag in bench.run["data"]["tags"]}
    for key, value in (
        ("pokebattle.order", "out of order"),
        ("pokebattle.git.dirty", "true"),
        ("mlflow.source.git.commit", ""),
    ):
        kept = tags[key]["value"]
        tags[key]["value"] = value
        assert bench.clean()[2] == REFUSED
        tags[key]["value"] = kept


def test_other_battles_than_it_was_trained_on_are_no_ground(rest: Any, trained: str, tmp_path: Path) -> None:
    model = stages.read(rest, "battle_winner")
    bench = GateChecks(rest, model, model.version(1), tmp_path)
    bench.params = bench.params.model_copy(update={"max_matchups": 700})
    rows = {gate.name: gate for gate in _until(bench, "mirrored")}
    assert rows["calibration"].verdict == "not measured"
    assert rows["calibration"].value.startswith("its battles have changed: digest ")
    assert rows["not behind Production"].verdict == NOT_APPLICABLE


def test_what_does_not_load_is_refused_and_everything_else_is_not_measured(
    rest: Any, trained: str, tmp_path: Path
) -> None:
    model = stages.read(rest, "battle_winner")
    bench = GateChecks(rest, model, model.version(1), tmp_path)
    (bench.files.folder / "booster.ubj").write_bytes(b'{"broken": ' + b"x" * 100)
    rows = {gate.name: gate for gate in _until(bench, "loads and answers")}
    assert rows["loads and answers"].verdict == REFUSED and "failed" in rows["loads and answers"].value
    assert {rows[name].verdict for name in ("no leak", "calibration", "mirrored")} == {"not measured"}


@pytest.fixture
def lost_commit(rest: Any, promoted: str) -> Iterator[None]:
    """The run of version 1 names a commit that no checkout has."""
    key = "mlflow.source.git.commit"
    run_id = stages.read(rest, "battle_winner").versions[1].run_id
    tags = rest.call("GET", "runs/get", run_id=run_id)["run"]["data"]["tags"]
    commit = next(tag["value"] for tag in tags if tag["key"] == key)
    rest.call("POST", "runs/set-tag", run_id=run_id, key=key, value="0" * 40)
    yield
    rest.call("POST", "runs/set-tag", run_id=run_id, key=key, value=commit)


@pytest.mark.long
def test_a_refused_version_stays_where_it_is_and_says_why(
    rest: Any,
    lost_commit: None,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: Callable[..., Result],
) -> None:
    text = (root / "params" / "sample.yaml").read_text().replace("fresh_battles: 10", "fresh_battles: 2")
    (tmp_path / "sample.yaml").write_text(re.sub(r"calibration_error: \S+", "calibration_error: 1.0e-6", text))
    monkeypatch.setenv("POKEBATTLE_PARAMS", str(tmp_path))
    before = stages.read(rest, "battle_winner").versions[1]
    done = verb("promote", "1", "--to", "Production")
    assert done.exit_code == 1
    said = done.stderr
    assert "refused by calibration: 0." in said and ", expected at most 1e-06" in said
    assert "executed again: impossible: commit 000000000000 is missing here" in said
    assert said.count("\n") == 1
    version = stages.read(rest, "battle_winner").versions[1]
    assert (version.stage, version.events) == ("Staging", before.events)
    assert "**refused by calibration, executed again**" in version.description
    assert "refused by calibration" in version.tags["gates"]


def test_bounds_come_from_the_checkout_and_not_from_the_run(
    rest: Any, bench: GateChecks, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = yaml.safe_load((root / "params" / "sample.yaml").read_text())
    stored["gates"]["answer_ms"] = 0.5
    (tmp_path / "sample.yaml").write_text(yaml.safe_dump(stored))
    monkeypatch.setenv("POKEBATTLE_PARAMS", str(tmp_path))
    other = GateChecks(rest, bench.registered, bench.version, tmp_path)
    assert other.bounds.answer_ms == 0.5 and bench.bounds.answer_ms == 300
    assert other.params.n_estimators == 40  # and the rest from the run


def _until(bench: GateChecks, last: str) -> list[Gate]:
    gates = []
    for gate in bench.measured():
        gates.append(gate)
        if gate.name == last:
            return gates
    raise AssertionError(last)


def test_what_no_notebook_made_is_refused_in_one_line(rest: Any, checkout: Any) -> None:
    experiment = rest.call("POST", "experiments/create", name="by hand")["experiment_id"]
    run = rest.call("POST", "runs/create", experiment_id=experiment)["run"]["info"]["run_id"]
    for run_id, expected in (
        (run, f"run {run} cannot be executed again: no tracked notebook created it"),
        ("0" * 32, f"{rest.uri} has no run {'0' * 32}"),
    ):
        done = checkout.verb("reproduce", run_id)
        assert (done.returncode, done.stderr) == (1, f"Error: {expected}\n")


# -- files ----------------------------------------------------------------------------------------------

PLANTED = "PLANTED_BY_A_PICKLE"


class Plant:
    """What leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; os.environ[{PLANTED!r}] = 'yes'",)


@pytest.fixture
def client(rest: Any) -> Iterator[mlflow.MlflowClient]:
    """mlflow on the test server, and as it was afterwards."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(rest.uri)
    yield mlflow.MlflowClient(rest.uri, rest.uri)
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def copied(rest: Any, client: mlflow.MlflowClient, trained: str, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Registers a copy of the good model, spoilt by a function of its folder; gives the version's name."""

    def register(spoil: Callable[[Path], None] = lambda folder: None, name: str = "spoilt") -> str:
        good = stages.read(rest, "battle_winner").versions[1]
        folder = Path(mlflow.artifacts.download_artifacts("models:/battle_winner/1", dst_path=str(tmp_path / "model")))
        for file in (folder / "code").rglob("*.*"):
            if file.name != "__init__.py":  # a few will do
                file.unlink()
        (folder / "registered_model_meta").unlink(missing_ok=True)
        spoil(folder)
        digest = client.get_run(good.run_id).data.params[model_files.DIGEST]
        with mlflow.start_run() as run:
            mlflow.log_param(model_files.DIGEST, digest)
            model = client.create_logged_model(run.info.experiment_id, source_run_id=run.info.run_id)
            client.log_model_artifacts(model.model_id, str(folder))
            client.finalize_logged_model(model.model_id, "READY")
        shutil.rmtree(tmp_path / "model")
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        made = client.create_model_version(name, f"models:/{model.model_id}", run.info.run_id, model_id=model.model_id)
        return f"{name}/{made.version}"

    yield register


def refusal(name: str) -> str:
    """The one line with which a version is not loaded."""
    with pytest.raises(model_files.ForeignModelError) as error:
        load_registered(name, BATTLES())
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"model: {name} is not loaded: ")


def BATTLES() -> Any:  # noqa: N802
    return load_battles("v3", "pair", 800, 60)


def test_the_version_that_train_registered_is_loaded(trained: str, copied: Callable[..., str]) -> None:
    for name in ("battle_winner/1", copied()):
        assert load_registered(name, BATTLES()).booster_.num_boosted_rounds() == 40


def test_people_ask_a_registered_version_who_wins(trained: str, rest: MlflowRest, verb: Callable[..., Result]) -> None:
    done = verb("predict", "Venusaur", "blastoise", "--model", "battle_winner/1")
    assert done.exit_code == 0
    said = done.stdout.splitlines()
    assert re.fullmatch(r"Venusaur beats Blastoise in \d+\.\d% of battles", said[0])
    assert said[2].startswith("model: battle_winner version 1, stage ") and "calibration error" in said[2]
    refused = verb("predict", "venusaur", "blastois", "--model", "battle_winner/1")
    assert refused.exit_code == 1 and "did you mean blastoise?" in refused.stderr


def edit(old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        text = (folder / "MLmodel").read_text()
        assert re.search(old, text)
        (folder / "MLmodel").write_text(re.sub(old, new, text, count=1))

    return spoil


def add(path: str, content: bytes = b"x") -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (add("python_model.pkl", pickle.dumps(Plant())), "it contains a pickle, python_model.pkl"),
        (add("data/model/more/weights.PT"), "it contains a pickle, data/model/more/weights.PT"),
        (add("code/sitecustomize.py"), "it contains code/sitecustomize.py, which models of this package do not have"),
        (
            add("data/model/booster.json"),
            "it contains data/model/booster.json, which models of this package do not have",
        ),
        (add("data/model/booster.ubj"), "its files are not the ones that were registered: digest expected"),
        (add("data/model/features.json", b"{}"), "its files are not the ones that were registered: digest expected"),
        (lambda folder: (folder / "data/model/booster.ubj").unlink(), "data/model/booster.ubj is missing"),
        (lambda folder: (folder / "MLmodel").unlink(), "MLmodel is missing"),
        (
            edit("loader_module: pokebattle.model", "loader_module: mlflow.sklearn"),
            "MLmodel, loader_module: expected pokebattle.model, got 'mlflow.sklearn'",
        ),
        (edit("data: data/model", "data: code"), "MLmodel, data: expected data/model, got 'code'"),
        (
            edit("flavors:\n", "flavors:\n  sklearn:\n    pickled_model: model.bin\n"),
            "MLmodel names sklearn, which models of this package do not have",
        ),
        (
            edit("    loader_module", "    python_model: model.bin\n    loader_module"),
            "MLmodel names python_model, which models of this package do not have",
        ),
        (add("MLmodel", b"flavors: [\n"), "MLmodel cannot be read (ParserError)"),
        (add("MLmodel", b"!!python/object/apply:os.getcwd []\n"), "MLmodel cannot be read (ConstructorError)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_ours_is_refused_by_name(copied: Callable[..., str], spoil: Any, expected: str) -> None:
    assert refusal(copied(spoil)).startswith(expected)
    assert PLANTED not in os.environ


def test_real_pickles_of_mlflow_are_refused(rest: Any, client: mlflow.MlflowClient, trained: str) -> None:
    class Planted(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: list[str], params: Any = None) -> list[str]:
            return model_input

    with mlflow.start_run():
        mlflow.log_param(model_files.DIGEST, "0" * 64)
        mlflow.pyfunc.log_model(
            name="model", python_model=Planted(), pip_requirements=["mlflow"], registered_model_name="foreign"
        )
    assert refusal("foreign/1") == "it contains a pickle, python_model.pkl"


def test_a_version_without_a_run_that_vouches_is_refused(rest: Any, client: mlflow.MlflowClient, trained: str) -> None:
    client.create_registered_model("unvouched")
    client.create_model_version("unvouched", "s3://a/bucket")
    assert refusal("unvouched/1") == "no run records the digest of its files"
    other = stages.read(rest, "battle_winner").versions[1]
    with mlflow.start_run() as run:
        pass
    model_id = other.source.removeprefix("models:/")
    client.create_model_version("unvouched", other.source, run.info.run_id, model_id=model_id)
    assert refusal("unvouched/2").startswith("its run names no model_digest")
    with mlflow.start_run() as run:
        mlflow.log_param(model_files.DIGEST, client.get_run(other.run_id).data.params[model_files.DIGEST])
    client.create_model_version("unvouched", other.source, run.info.run_id, model_id=model_id)
    assert refusal("unvouched/3").startswith("its source was logged by another run")


def test_the_code_beside_a_model_is_not_imported(copied: Callable[..., str]) -> None:
    spoil = add("code/pokebattle/model.py", f"import os; os.environ[{PLANTED!r}] = 'yes'".encode())
    assert load_registered(copied(spoil), BATTLES()).features == "mechanics"
    assert PLANTED not in os.environ


def test_other_battles_are_refused(trained: str, rest: Any) -> None:
    with pytest.raises(
        ParamsError, match="was trained on other battles than these: version sample, v3 under protocol pair"
    ):
        load_registered("battle_winner/1", load_battles("v3", "one_unseen", 800, 60))
