"""Every way of executing a notebook gives exactly one run, and the notebook does not notice."""

import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from waiting import wait_for

from nbtrack.journal import read_events

PLAIN = ("x = 20", "print('seen')\nx + 1")
IN_PROCESS = {
    "papermill-api": "import papermill; papermill.execute_notebook('{0}', 'out.ipynb', progress_bar=False)",
    "nbclient": "import nbformat, nbclient; nbclient.NotebookClient(nbformat.read('{0}', 4)).execute()",
}
COMMANDS = {
    "papermill": ["papermill", "{0}", "out.ipynb"],
    "nbconvert": ["jupyter-nbconvert", "--to", "notebook", "--execute", "--output=out.ipynb", "{0}"],
    "jupyter-execute": ["jupyter-execute", "{0}"],
    "nbval": ["pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", "{0}"],
}
EXPECTED = {
    "papermill": ("papermill", "{stem}"),
    "papermill-api": ("papermill", "{stem}"),
    "nbconvert": ("nbconvert", "{stem}"),
    "jupyter-execute": ("jupyter-execute", "{stem}"),
    "nbval": ("nbval", "notebook-tests"),
    "nbclient": ("kernel", "{stem}"),
}


@pytest.mark.parametrize("way", EXPECTED)
def test_one_execution_is_one_finished_run(tracked: Any, make_notebook: Any, way: str) -> None:
    stem = f"plain_{way.replace('-', '_')}"
    tracked.write(f"{stem}.ipynb", make_notebook(*PLAIN))
    if way in COMMANDS:
        command = [word.format(f"{stem}.ipynb") for word in COMMANDS[way]]
    else:
        command = ["python", "-c", IN_PROCESS[way].format(f"{stem}.ipynb")]
    done = tracked.execute(*command)
    assert done.returncode == 0, done.stderr

    executor, experiment = EXPECTED[way]
    runs = tracked.runs(experiment.format(stem=stem))
    (run,) = [run for run in runs if experiment != "notebook-tests" or run.info.run_name == stem]
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.source.type"] == "NOTEBOOK"
    assert run.data.tags["pokebattle.executor"] == executor
    assert Path(run.data.tags["mlflow.source.name"]) == tracked.folder / f"{stem}.ipynb"
    steps = [metric.step for metric in tracked.client.get_metric_history(run.info.run_id, "cell/seconds")]
    assert steps == ([0, 1] if way == "nbval" else [1, 2])
    executed = tracked.artifact(run, f"{stem}.ipynb")
    outputs = [cell["outputs"] for cell in executed["cells"] if cell["cell_type"] == "code"]
    assert [output["output_type"] for output in outputs[1]] == ["stream", "execute_result"]
    nbformat.validate(nbformat.from_dict(executed))


def test_tracking_changes_no_output_no_exit_code_and_no_file(tracked: Any, make_notebook: Any) -> None:
    cells = (
        "import sys; print('out'); print('err', file=sys.stderr); 6 * 7",
        "from IPython.display import display; h = display('first', display_id=True); h.update('second')",
        "1 / 0",
    )
    path = tracked.write("same.ipynb", make_notebook(*cells))
    outputs, files = [], []
    for switch in ("on", "off"):
        done = tracked.papermill(path, POKEBATTLE_TRACKING=switch)
        cells_out = nbformat.read(tracked.folder / "out.ipynb", 4).cells
        outputs.append((done.returncode, [cell.get("outputs") for cell in cells_out]))
        (tracked.folder / "out.ipynb").unlink()
        files.append({file for file in tracked.folder.rglob("*") if "state" not in file.parts})
    assert outputs[0] == outputs[1]
    assert files[0] == files[1] == {path}
    assert outputs[0][0] == 1
    assert len(tracked.runs("same")) == 1  # the other one was off


def test_a_failing_cell_fails_the_run_and_is_named(tracked: Any, make_notebook: Any) -> None:
    raising = f"# {'long ' * 2000}\nraise LookupError('no such battle')"
    path = tracked.write("broken.ipynb", make_notebook("x = 1", raising, "x = 2"))
    assert tracked.papermill(path).returncode == 1
    (run,) = tracked.runs("broken")
    assert run.info.status == "FAILED"
    assert run.data.tags["pokebattle.failed_cell"] == "2"
    assert run.data.tags["pokebattle.error"] == "LookupError: no such battle"
    assert run.data.tags["pokebattle.failed_source"] == raising[:8000]  # MLflow's limit
    assert "raise LookupError" in run.data.tags["pokebattle.traceback"]
    whole = tracked.download(run_id=run.info.run_id, artifact_path="traceback.txt").read_text()
    assert whole.endswith("LookupError: no such battle\n")
    executed = tracked.artifact(run, "broken.ipynb")
    assert [cell["execution_count"] for cell in executed["cells"]] == [1, 2, None]


def test_an_expected_error_does_not_fail_the_run(tracked: Any, make_notebook: Any) -> None:
    document = make_notebook("raise ValueError('meant')", "print('on')")
    document.cells[0].metadata["tags"] = ["raises-exception"]
    tracked.write("expected.ipynb", document)
    command = [word.format("expected.ipynb") for word in COMMANDS["nbconvert"]]
    assert tracked.execute(*command).returncode == 0
    assert tracked.runs("expected")[0].info.status == "FINISHED"


@pytest.mark.parametrize(
    ("cell", "code", "status", "error"),
    [
        ("%run broken.py", 1, "FAILED", "ValueError: broken script"),  # the cell itself succeeds
        ("import sys\nsys.exit(0)", 0, "FINISHED", None),
        ("import sys\nsys.exit(3)", 1, "FAILED", "SystemExit: 3"),
    ],
    ids=["an error shown", "exit 0", "exit 3"],
)
def test_a_run_ends_as_papermill_does(
    tracked: Any, make_notebook: Any, cell: str, code: int, status: str, error: str | None
) -> None:
    (tracked.folder / "broken.py").write_text("raise ValueError('broken script')")
    name = f"as_papermill_{code}_{status}_{len(cell)}"
    assert tracked.papermill(tracked.write(f"{name}.ipynb", make_notebook("1", cell, "2"))).returncode == code
    (run,) = tracked.runs(name)
    assert (run.info.status, run.data.tags.get("pokebattle.error")) == (status, error)


def test_a_picture_that_is_none_and_an_odd_name_do_not_stop_the_record(tracked: Any, make_notebook: Any) -> None:
    show = "from IPython.display import display\ndisplay({'image/png': 'not base64!!'}, raw=True)"
    assert tracked.papermill(tracked.write("odd #1 100%25.ipynb", make_notebook(show))).returncode == 0
    (run,) = tracked.runs("odd #1 100%25")
    assert run.info.status == "FINISHED" and "pokebattle.set_aside" not in run.data.tags
    assert "odd _1 100_25.ipynb" in {item.path for item in tracked.client.list_artifacts(run.info.run_id)}


def test_a_kernel_killed_in_a_cell_leaves_a_killed_run(tracked: Any, make_notebook: Any) -> None:
    opened = "while not list(pathlib.Path('state').glob('executions/*/run.json')):\n    time.sleep(0.01)\n"
    cells = ("import os, pathlib, signal, time", opened + "os.kill(os.getpid(), signal.SIGKILL)")
    path = tracked.write("killed.ipynb", make_notebook(*cells))
    assert tracked.papermill(path).returncode != 0
    (run,) = tracked.runs("killed")
    assert run.info.status == "KILLED"
    assert run.data.tags["pokebattle.cause"] == "SIGKILL, cause unknown"


def test_templates_name_experiment_and_run_before_it_is_created(tracked: Any, make_notebook: Any) -> None:
    metadata = {"pokebattle": {"experiment": "named_{version}", "run_name": "training_{version}"}}
    document = make_notebook("version", parameters='version: str = "sample"', metadata=metadata)
    path = tracked.write("named.ipynb", document)
    assert tracked.papermill(path, "-p", "version", "v3").returncode == 0
    (run,) = tracked.runs("named_v3")
    assert run.info.run_name == "training_v3"
    assert run.data.params == {"version": "v3"}
    # the executed notebook contains papermill's injected cell: executing it again must not begin under the default
    assert tracked.execute("jupyter-nbconvert", "--to", "notebook", "--execute", "out.ipynb").returncode == 0
    again = tracked.runs("named_v3", count=2)[1]
    assert again.data.params == {"version": "v3"}
    assert tracked.client.get_experiment_by_name("named_sample") is None


def test_foreign_notebooks_take_any_parameter(tracked: Any, make_notebook: Any) -> None:
    path = tracked.write("foreign.ipynb", make_notebook("foo + 1", parameters="foo = 3"))
    assert tracked.papermill(path, "-p", "foo", "1", "-p", "unheard", "2.5").returncode == 0
    (run,) = tracked.runs("foreign")
    assert run.data.params == {"foo": "1", "unheard": "2.5"}


def test_bad_parameters_are_refused_before_a_kernel_starts(tracked: Any, make_notebook: Any) -> None:
    document = make_notebook("1", parameters='version: str = "sample"', metadata={"pokebattle": {"schema": "params"}})
    path = tracked.write("strict.ipynb", document)
    for switch in ("off", "on"):
        done = tracked.papermill(path, "-p", "max_dept", "8", POKEBATTLE_TRACKING=switch)
        assert done.returncode == 1
        (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert "max_dept" in error and "max_depth" in error
        assert "Traceback" not in done.stderr
    assert not (tracked.folder / "out.ipynb").exists()
    (run,) = tracked.runs("strict")  # the other one was off
    assert f"/runs/{run.info.run_id}" in done.stderr
    assert run.info.status == "FAILED"
    assert run.data.tags["pokebattle.error"].startswith("ParameterError: ")
    assert run.data.params == {"max_dept": "8"}


def test_an_unknown_version_is_refused_into_no_versions_experiment(tracked: Any, make_notebook: Any) -> None:
    metadata = {"pokebattle": {"schema": "params", "experiment": "refused_{version}"}}
    document = make_notebook("1", parameters='version: str = "sample"', metadata=metadata)
    assert tracked.papermill(tracked.write("unknown.ipynb", document), "-p", "version", "v33").returncode == 1
    (run,) = tracked.runs("refused_unknown")
    assert (run.info.status, run.data.params) == ("FAILED", {"version": "v33"})
    assert all(tracked.client.get_experiment_by_name(f"refused_{version}") is None for version in ("v33", "sample"))


def test_off_leaves_no_trace(tracked: Any, make_notebook: Any) -> None:
    path = tracked.write("untracked.ipynb", make_notebook("1"))
    assert tracked.papermill(path, POKEBATTLE_TRACKING="off").returncode == 0
    assert not (tracked.folder / "state").exists()


def test_an_idle_kernel_is_no_run(tracked: Any, lab_kernel: Any) -> None:
    kernel = lab_kernel(tracked, None)
    kernel.stop()
    assert tracked.executions() == []


def _addresses(tracked: Any) -> list[str]:
    """What the log of a kernel says of runs: JupyterLab's users see it on its terminal."""
    return [line for line in (tracked.folder / "kernel.log").read_text().splitlines() if "MLflow run: http" in line]


def test_a_changed_version_starts_a_new_run(tracked: Any, make_notebook: Any, lab_kernel: Any) -> None:
    metadata = {"pokebattle": {"experiment": "lab_{version}", "run_name": "work_{version}"}}
    document = make_notebook("version", parameters='version: str = "one"', metadata=metadata)
    kernel = lab_kernel(tracked, tracked.write("lab.ipynb", document))
    try:
        kernel.run('version: str = "one"', "params")
        kernel.run("version", "cell-0")
        kernel.run("1 / 0", "cell-new")
        kernel.run("version", "cell-0")
        kernel.run('version: str = "two"', "params")  # edited, not saved
        kernel.run("version", "cell-0")
        addresses = wait_for(lambda: _addresses(tracked), "two addresses", until=lambda lines: len(lines) >= 2)
    finally:
        kernel.stop()
    (one,), (two,) = tracked.runs("lab_one"), tracked.runs("lab_two")
    assert (one.info.run_name, two.info.run_name) == ("work_one", "work_two")
    assert (one.data.params, two.data.params) == ({"version": "one"}, {"version": "two"})
    assert (one.info.status, two.info.status) == ("FINISHED", "FINISHED")  # what failed was mended
    ran = tracked.artifact(one, "cells.json")
    assert [cell["ok"] for cell in ran] == [True, True, False, True]
    assert one.data.tags["pokebattle.executor"] == "jupyterlab"
    assert [run.info.run_id in line for run, line in zip((one, two), addresses, strict=True)] == [True, True]


def test_the_extension_is_in_no_other_program(tracked: Any) -> None:
    code = "import sys, mlflow, papermill; print('nbtrack.kernel.extension' in sys.modules)"
    assert tracked.execute("python", "-c", code).stdout.strip() == "False"
    shell = tracked.execute("ipython", "-c", "import sys; print('pokebattle' in sys.modules)")
    assert shell.stdout.strip() == "False", sys.executable


@pytest.mark.parametrize("way", EXPECTED)
def test_a_notebook_that_is_not_to_be_tracked_leaves_nothing_behind(away: Any, make_notebook: Any, way: str) -> None:
    path = away.write("off.ipynb", make_notebook("print('hidden')", metadata={"pokebattle": {"track": False}}))
    command = [word.format(path.name) for word in COMMANDS.get(way, [])]
    if way == "jupyter-execute":  # one after the other, of which two begin alike
        for name in ("one.ipynb", "two.ipynb"):
            away.write(name, make_notebook("import sys", f"print({name!r})"))
        command = ["jupyter-execute", "one.ipynb", "two", path.name]
    done = away.execute(*(command or ["python", "-c", IN_PROCESS[way].format(path.name)]))
    assert done.returncode == 0, done.stderr
    journals = [[event for _, _, event in read_events(folder)] for folder in away.executions()]
    ran = {
        Path(events[0]["notebook"]).name: [e["source"] for e in events if e["kind"] == "cell_start"]
        for events in journals
    }
    both = {name: ["import sys", f"print({name!r})"] for name in ("one.ipynb", "two.ipynb")}
    assert ran == (both if way == "jupyter-execute" else {}) and len(journals) == len(ran)


def test_a_notebook_that_is_not_to_be_tracked_leaves_nothing_behind_in_lab(
    away: Any, make_notebook: Any, lab_kernel: Any
) -> None:
    path = away.write("off.ipynb", make_notebook("1", metadata={"pokebattle": {"track": False}}))
    kernel = lab_kernel(away, path)
    kernel.run("print('hidden')", "cell-0")
    kernel.stop()
    assert away.executions() == []


@pytest.mark.parametrize("way", ["papermill", "nbval", "nbconvert"])
def test_a_state_folder_that_cannot_be_used_is_said_and_changes_nothing(
    away: Any, make_notebook: Any, way: str
) -> None:
    path = away.write("nowhere.ipynb", make_notebook(*PLAIN))
    done = away.execute(*[word.format(path.name) for word in COMMANDS[way]], POKEBATTLE_STATE="/dev/null/state")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("pokebattle: ")]
    assert "tracked (" in line and "NotADirectoryError" in line
