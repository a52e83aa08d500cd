"""The schema of params/*.yaml, and what wins over what in a notebook."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from papermill.parameterize import parameterize_notebook
from traitlets.config import Config

from pokebattle.params import Params, ParamsError, load_params, recorded, validate, versions

CELL = 'version: str = "sample"  # a file in params/\nn_workers: int = 20  # battles a matchup\n'
SETUP = "from pokebattle.params import load_params\nparams = load_params(globals())"


@pytest.fixture
def folder(tmp_path, monkeypatch, root):
    """A copy of params/ that a test may spoil."""
    copy = tmp_path / "params"
    copy.mkdir()
    for file in (root / "params").glob("*.yaml"):
        (copy / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("POKEBATTLE_PARAMS", str(copy))
    return copy


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Runs cells in a real IPython and returns the namespace; an error in a cell is raised."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    ipython = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))

    def run(*cells, store_history=True):
        for cell in cells:
            ipython.run_cell(cell, store_history=store_history).raise_error()
        return ipython.user_ns

    return run


def refusal(*args):
    """The one line of a ParamsError."""
    with pytest.raises(ParamsError) as caught:
        validate("notebooks/train.ipynb", *args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Files


def test_every_version_is_complete_and_explained(root):
    assert {"sample", "v3"} <= set(versions())
    for version in versions():
        params = load_params({"version": version})
        assert params.version == version
        lines = (root / "params" / f"{version}.yaml").read_text().splitlines()
        keys = [line for line in lines if line and not line.startswith("#")]
        top = [line.split(":")[0] for line in keys if not line.startswith(" ")]
        assert top == [name for name in Params.model_fields if name != "tables" or params.dataset == "tables"]
        assert all("  # " in line for line in keys)


def test_sample_registers_nothing_and_is_small():
    sample, v3 = load_params({"version": "sample"}), load_params({"version": "v3"})
    assert not sample.register_model and v3.register_model
    assert 0 < sample.max_matchups < v3.max_matchups and v3.max_judging_pairs == 0
    assert sample.n_jobs == v3.n_jobs == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "max_depth: 4",
            "max_depth: ten",
            "params/v3.yaml, max_depth: expected an integer at least 1 and at most 20, got 'ten'",
        ),
        (
            "learning_rate: 0.05",
            "learning_rate: 1e-3",
            "params/v3.yaml, learning_rate: expected a number above 0 and at most 1, got '1e-3', "
            "which YAML reads as text: write it as in 1.0e-3",
        ),
        (
            "n_jobs: 1",
            "n_jobs: on",
            "params/v3.yaml, n_jobs: expected an integer at least 1 and at most 256, got True, "
            "as YAML reads on, off, yes and no: quote a word",
        ),
        (
            "model_name: battle_winner",
            "model_name: no",
            "params/v3.yaml, model_name: expected text matching ^[a-z][a-z0-9_]*$, got False, "
            "as YAML reads on, off, yes and no: quote a word",
        ),
        (
            "n_bootstrap: 1000",
            "n_bootstrap: 01000",
            "params/v3.yaml, n_bootstrap: expected a decimal number, got 01000",
        ),
        (
            "n_estimators: 100",
            "n_estimators: 10:00",
            "params/v3.yaml, n_estimators: expected a decimal number, got 10:00",
        ),
        (
            "max_depth: 4 ",
            "max_depth: 8.0 ",
            "params/v3.yaml, max_depth: expected an integer at least 1 and at most 20, got 8.0",
        ),
        (
            "subsample: 0.8",
            "subsample: 1.2",
            "params/v3.yaml, subsample: expected a number above 0 and at most 1, got 1.2",
        ),
        ("subsample: 0.8", "subsample: .nan", "params/v3.yaml, subsample: expected a decimal number, got .nan"),
        (
            "features: simulation",
            "features: simulations",
            "params/v3.yaml, features: expected one of mechanics, raw, simulation, got 'simulations'; "
            "did you mean simulation?",
        ),
        ("max_depth:", "max_dept:", "params/v3.yaml, max_dept: unknown parameter, got 4; did you mean max_depth?"),
        ("n_jobs: 1", "", "params/v3.yaml, n_jobs: expected an integer at least 1 and at most 256, got none"),
        ("n_jobs: 1", "n_jobs:", "params/v3.yaml, n_jobs: expected an integer at least 1 and at most 256, got None"),
        ("n_jobs: 1", "n_jobs: 1\nmax_depth: 3", "params/v3.yaml, max_depth: expected this key once, got it 2 times"),
        (
            "n_jobs: 1",
            "on: 1",
            "params/v3.yaml, on: expected text, got a key that YAML does not read as text: put it in quotes",
        ),
        (
            "  max_depth: {low: 2",
            "  max_dept: {low: 2",
            "params/v3.yaml, search.max_dept: unknown parameter, got {'low': 2, 'high': 8}; did you mean max_depth?",
        ),
        (
            "  calibration_error: 0.015",
            "  calibration_eror: 0.015",
            "params/v3.yaml, gates.calibration_eror: unknown key, got 0.015; did you mean calibration_error?",
        ),
        (
            "  calibration_error: 0.015",
            "  calibration_error: 0",
            "params/v3.yaml, gates.calibration_error: expected a number above 0 and at most 1, got 0",
        ),
        (
            "  fresh_battles: 10",
            "  fresh_battles: 2.5",
            "params/v3.yaml, gates.fresh_battles: expected an integer at least 0 and at most 1000, got 2.5",
        ),
        (
            "  mirror_error: 1.0e-9",
            "  mirror_error: 1e-9",
            "params/v3.yaml, gates.mirror_error: expected a number at least 0 and at most 1, got '1e-9', "
            "which YAML reads as text: write it as in 1.0e-3",
        ),
        ("  memory_mb: 1000", "", "params/v3.yaml, gates.memory_mb: expected a number above 0, got none"),
        (
            "gates:  ",
            "gats:  ",
            "params/v3.yaml, gats: unknown parameter, got {'fresh_battles': 10, 'ahead_of_baselines': 0, "
            "'calibration_error': 0.015, 'b...; did you mean gates?",
        ),
        (
            "max_depth: {low: 2, high: 8}",
            "max_depth: {low: 8, high: 2}",
            "params/v3.yaml, search.max_depth: expected low below high, got low 8 and high 2",
        ),
        (
            "max_depth: {low: 2, high: 8}",
            "max_depth: {low: 2, hihg: 8}",
            "params/v3.yaml, search.max_depth.hihg: unknown key, got 8; did you mean high?",
        ),
        (
            "max_depth: {low: 2, high: 8}",
            "max_depth: {low: 2}",
            "params/v3.yaml, search.max_depth.high: expected an integer at least 1 and at most 20, got none",
        ),
        (
            "max_depth: {low: 2, high: 8}",
            "max_depth: {low: 2.5, high: 8}",
            "params/v3.yaml, search.max_depth.low: expected an integer at least 1 and at most 20, got 2.5",
        ),
        (
            "max_depth: {low: 2, high: 8}",
            "features: {choices: [raw, mechanic]}",
            "params/v3.yaml, search.features.choices: expected one of mechanics, raw, simulation, got 'mechanic'; "
            "did you mean mechanics?",
        ),
        (
            "max_depth: {low: 2, high: 8}",
            "max_depth: {choices: [3]}",
            "params/v3.yaml, search.max_depth.choices: expected at least two different values, got [3]",
        ),
        (
            "min_child_weight: {low: 1, high",
            "min_child_weight: {low: 0, high",
            "params/v3.yaml, search.min_child_weight.low: expected a number above 0, as log is true, got 0",
        ),
        (
            "max_depth: {low: 2, high: 8}",
            "max_depth: 8",
            "params/v3.yaml, search.max_depth: expected a range for each parameter, "
            "as in max_depth: {low: 2, high: 8}, got 8",
        ),
        ("version: v3", "version: v2", "params/v3.yaml, version: expected v3, the file's name, got v2"),
    ],
)
def test_faults_of_a_file_are_named(folder, old, new, expected):
    file = folder / "v3.yaml"
    text = file.read_text()
    assert text.count(old) >= 1
    file.write_text(text.replace(old, new, 1))
    assert refusal(CELL, {"version": "v3"}) == expected
    assert validate("train", CELL, {}).version == "sample"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- version",
        b"version: [",
        b"a: 1\n---\nb: 2\n",
        b"\xff\xfe\x00",
        b"\x00",
        b"v3",
        b"? [1, 2]\n: 3\n",
        b"version: !!python/object:os.system x\n",
    ],
)
def test_an_unreadable_file_is_one_line(folder, content):
    (folder / "v3.yaml").write_bytes(content)
    assert refusal(CELL, {"version": "v3"}).startswith("params/v3.yaml, ")


def test_a_folder_without_versions_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("POKEBATTLE_PARAMS", str(tmp_path / "params"))
    assert refusal(CELL, {}).endswith("params, version: expected a *.yaml file for each version, got none")


def test_an_earlier_execution_has_its_own_values_and_todays_gates(folder):
    before = load_params({"version": "v3"}).model_dump() | {"max_depth": 7, "n_trials": 30}
    before["gates"] = before["gates"] | {"calibration_error": 1.0}
    del before["n_folds"]
    params = recorded(before)
    assert (params.max_depth, params.n_folds, params.gates.calibration_error) == (7, 3, 0.015)
    with pytest.raises(ParamsError, match=r"parameters.json, max_depth: expected an integer at least 1 .* got 70"):
        recorded(before | {"max_depth": 70})
    with pytest.raises(ParamsError, match=r"parameters.json, version: expected one of .*, got 'v0'"):
        recorded(before | {"version": "v0"})


# What papermill is given


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"max_dept": 8}, "max_dept: unknown parameter, got 8; did you mean max_depth?"),
        ({"n_worker": 8}, "n_worker: unknown parameter, got 8; did you mean n_workers?"),
        ({"max_depth": "ten"}, "max_depth: expected an integer at least 1 and at most 20, got 'ten'"),
        ({"max_depth": 21}, "max_depth: expected an integer at least 1 and at most 20, got 21"),
        ({"max_depth": True}, "max_depth: expected an integer at least 1 and at most 20, got True"),
        ({"max_depth": None}, "max_depth: expected an integer at least 1 and at most 20, got None"),
        ({"subsample": float("nan")}, "subsample: expected a number above 0 and at most 1, got nan"),
        ({"learning_rate": True}, "learning_rate: expected a number above 0 and at most 1, got True"),
        ({"register_model": "true"}, "register_model: expected True or False, got 'true'; did you mean True?"),
        ({"register_model": 1}, "register_model: expected True or False, got 1"),
        ({"description": ""}, "description: expected text no shorter than 1, got ''"),
        (
            {"protocol": "both-unseen"},
            "protocol: expected one of pair, one_unseen, both_unseen, got 'both-unseen'; did you mean both_unseen?",
        ),
        ({"version": "v33"}, "version: expected one of sample, v3, got 'v33'; did you mean v3?"),
        ({"version": 3}, "version: expected one of sample, v3, got 3; did you mean v3?"),
        ({"version": "../params/v3"}, "version: expected one of sample, v3, got '../params/v3'"),
        ({"version": ["v3"]}, "version: expected one of sample, v3, got ['v3']; did you mean v3?"),
        ({"n_workers": 0}, "n_workers: expected an integer at least 1 and at most 256, got 0"),
        ({"n_workers": 2.5}, "n_workers: expected an integer at least 1 and at most 256, got 2.5"),
    ],
)
def test_faults_of_an_override_are_named(folder, overrides, expected):
    for file in folder.glob("*.yaml"):
        if file.stem not in ("sample", "v3"):
            file.unlink()
    assert refusal(CELL, overrides).startswith(f"notebooks/train.ipynb, -p {expected}")


def test_an_unknown_name_near_to_none_lists_them_all():
    message = refusal(CELL, {"foo": 1})
    assert all(name in message for name in [*Params.model_fields, "n_workers"])


def test_misspelt_and_wrong_at_once_reports_the_name_first():
    assert "did you mean max_depth?" in refusal(CELL, {"learning_rate": 7, "max_dept": 8})


def test_a_long_value_does_not_flood_the_line():
    assert len(refusal(CELL, {"description": list(range(10_000))})) < 250


def test_overrides_win_over_cell_and_cell_over_file():
    cell = CELL + "max_depth: int = 3\nn_estimators = 7\n"
    params = validate("train", cell, {"n_estimators": 9, "reg_lambda": 2})
    assert (params.max_depth, params.n_estimators, params.reg_lambda) == (3, 9, 2.0)
    assert params.learning_rate == load_params({"version": "sample"}).learning_rate


@pytest.mark.parametrize("version", versions())
def test_a_file_as_parameters_equals_its_version(root, version):
    values = yaml.safe_load((root / "params" / f"{version}.yaml").read_text())
    assert validate("train", CELL, values) == validate("train", CELL, {"version": version})


def test_params_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_params({"version": "sample"}).max_depth = 3


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("max_dept: int = 8", "max_dept: unknown parameter, got 8; did you mean max_depth?"),
        ("max_dept = 8", "max_dept: unknown parameter, got 8; did you mean max_depth?"),
        ("zeal = 8", "zeal: unknown parameter, got 8; expected one of version"),
        ("zeal: list = []", "zeal: expected one of the types int, float, str, bool, got list"),
        ("zeal: int = 'much'", "zeal: expected an integer, got 'much'"),
        ("max_depth, n_jobs = 30, 1", None),
        ("zeal: float = 1", None),
        ("import os\nhome = os.environ.get('HOME')", None),
    ],
)
def test_an_edited_parameters_cell_is_checked(line, expected):
    if expected is None:
        validate("train", CELL + line, {})
    else:
        assert refusal(CELL + line, {}).startswith(f"notebooks/train.ipynb, parameters cell, {expected}")


def test_a_cell_without_version_is_refused():
    assert "parameters cell, version: expected one of" in refusal("n_workers: int = 3", {})
    assert validate("train", "", {"version": "v3"}).version == "v3"


# What a kernel has executed


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([CELL], {"version": "sample"}),
        ([CELL, "# Parameters\nversion = 'v3'\n"], {"version": "v3", "register_model": True}),
        ([CELL, "# Parameters\nversion = 'v3'\nmax_depth = 2\n"], {"version": "v3", "max_depth": 2}),
        ([CELL, "x = 1", "# Parameters\nversion = 'v3'\n"], {"version": "v3"}),
        ([CELL, "# Parameters\nversion = 'v3'\n", CELL], {"version": "sample"}),
        ([CELL, "# Parameters\nmax_depth = 2\n", "# Parameters\nmax_depth = 3\n"], {"max_depth": 3}),
        ([CELL, CELL.replace("sample", "v3")], {"version": "v3"}),
        ([CELL + "max_depth = 2", CELL], {"max_depth": 6}),
        ([CELL + "max_depth: int = 2 + 2"], {"max_depth": 4}),
        ([CELL + "max_depth, n_estimators = 4, 9"], {"max_depth": 4, "n_estimators": 9}),
        (["names = ['v3']", 'version: "str" = names[0]'], {"version": "v3"}),
        ([CELL, "max_depth = 9; features = 'none'; protocol = None"], {"max_depth": 6, "protocol": "pair"}),
        ([CELL, "for version in ('a', 'b'): pass"], {"version": "sample"}),
        ([CELL, "def f():\n    version: str = 'v3'"], {"version": "sample"}),
        ([CELL, "import sys; version = sys.version"], {"version": "sample"}),
    ],
)
def test_only_the_parameters_cells_count(shell, cells, expected):
    params = load_params(shell(*cells))
    assert {name: getattr(params, name) for name in expected} == expected


def test_a_parameters_cell_with_a_syntax_error_changes_nothing(shell):
    shell(CELL)
    with pytest.raises(SyntaxError):
        shell('version: str = "v3')
    assert load_params(shell()).version == "sample"


def test_setting_up_in_the_parameters_cell_works(shell):
    assert shell(CELL + SETUP)["params"].version == "sample"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["x = 1"], "parameters cell, version: expected version: str = "),
        ([CELL, "version = 'v3'"], 'parameters cell, version: expected version: str = "v3" in this cell'),
        (["version = 'v3'"], 'parameters cell, version: expected version: str = "v3" in this cell'),
        ([CELL, "# Parameters\nmax_dept = 2\n"], "-p max_dept: unknown parameter, got 2; did you mean max_depth?"),
        (
            [CELL.replace("20", "0")],
            "parameters cell, n_workers: expected an integer at least 1 and at most 256, got 0",
        ),
        ([CELL.replace("sample", "vv3")], "parameters cell, version: expected one of "),
    ],
)
def test_faults_in_a_kernel_are_named(shell, cells, expected):
    namespace = shell(*cells)
    with pytest.raises(ParamsError) as caught:
        load_params(namespace)
    assert str(caught.value).startswith(expected)


def test_without_a_record_of_cells_the_names_of_the_schema_count(shell):
    """As under nbval, which leaves no history."""
    namespace = shell(CELL, "max_depth = 3", "table: list = []", store_history=False)
    params = load_params(namespace)
    assert (params.version, params.max_depth) == ("sample", 3)
    with pytest.raises(ParamsError, match="n_workers: expected an integer at least 1 and at most 256, got 0"):
        load_params(shell("n_workers: int = 0", store_history=False))


def test_without_ipython_the_names_of_the_schema_count():
    params = load_params({"version": "v3", "max_depth": 2, "n_workers": 0, "__name__": "__main__"})
    assert (params.version, params.max_depth) == ("v3", 2)
    with pytest.raises(ParamsError, match=r"version: expected one of .*, got none"):
        load_params({})


def notebook(*cells, parameters=None):
    """A notebook that ends by showing its parameters, with papermill's own injected cell."""
    nb = nbformat.v4.new_notebook()
    nb.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nb.metadata.papermill = {}
    nb.cells = [
        nbformat.v4.new_code_cell(source, metadata={"tags": []})
        for source in (*cells, SETUP, "print(params.model_dump_json())")
    ]
    nb.cells[0].metadata.tags.append("parameters")
    return parameterize_notebook(nb, parameters) if parameters else nb


def run(nb, tmp_path, monkeypatch):
    monkeypatch.setenv("POKEBATTLE_TRACKING", "off")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    NotebookClient(nb, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    return Params.model_validate_json(nb.cells[-1].outputs[-1].text)


def test_in_a_kernel_a_file_as_parameters_equals_its_version(root, tmp_path, monkeypatch):
    values = yaml.safe_load((root / "params/v3.yaml").read_text())
    ways = [CELL.replace("sample", "v3"), {"version": "v3"}, values]
    results = []
    for way in ways:
        cell, parameters = (way, None) if isinstance(way, str) else (CELL, way)
        results.append(run(notebook(cell, parameters=parameters), tmp_path, monkeypatch))
    assert results[0].version == "v3"
    assert all(one == other for one, other in pairwise(results))


def test_in_a_kernel_a_fault_stops_the_setup_cell(tmp_path, monkeypatch):
    nb = notebook(CELL, parameters={"learning_rate": "1e-3"})
    with pytest.raises(CellExecutionError, match="ParamsError: -p learning_rate: expected a number"):
        run(nb, tmp_path, monkeypatch)
    assert [len(cell.outputs) for cell in nb.cells] == [0, 0, 1, 0]
    assert len(nb.cells[2].outputs[0].traceback) == 1


def test_import_is_cheap():
    """Besides the standard library only pydantic and PyYAML are loaded."""
    code = (
        "import sys, pydantic.main, yaml; before = set(sys.modules); import pokebattle.params; "
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(loaded.split()) <= {"nbtrack", "pokebattle", "pydantic", "annotated_types"}


def test_package_folder_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.delenv("POKEBATTLE_PARAMS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert "v3" in versions()
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize(
    "words",
    [["adopt", "v33", "better"], ["retrain", "--version", "v33"], ["train", "--version", "v33", "--mlflow-tracking"]],
)
def test_a_verb_refuses_a_wrong_version_before_it_starts_anything(words: list[str], monkeypatch, verb) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # asking it would give another error
    done = verb(*words)
    assert done.exit_code == 1
    assert re.fullmatch(r"Error: version: expected one of .*, got 'v33'; did you mean v3\?\n", done.stderr)
