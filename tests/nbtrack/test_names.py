"""What a run is called, and where it says that it comes from, with each executor."""

import contextlib
import functools
import http.server
import json
import shutil
import sys
import sysconfig
import threading
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill  # noqa: F401 - it imports the engine
import pytest

from nbtrack.notebook_context import Context, FollowedFile, detect

BIN = Path(sys.executable).parent
VSCODE = "vscode-notebook-cell:{0}#W{1}sZmlsZQ%3D%3D"


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder by HTTP; yields its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_papermill_names_what_it_reads_from_elsewhere(tracked: Any, make_notebook: Any) -> None:
    """An address without its query, the file behind standard input, the output's name for a notebook in memory."""
    for name in ("by_http", "by_stdin", "by_cwd"):
        tracked.write(f"{name}.ipynb", make_notebook("x = 1"))
    (tracked.folder / "work").mkdir()
    with served(tracked.folder) as address:
        done = [tracked.execute("papermill", f"{address}/by_http.ipynb?key=pw4711", "out.ipynb")]
    done.append(tracked.execute("/bin/sh", "-c", f"{BIN}/papermill - out.ipynb < by_stdin.ipynb"))
    done.append(tracked.execute("papermill", "by_cwd.ipynb", "out.ipynb", "--cwd", "work"))
    node = "import nbformat, papermill; nb = nbformat.read('by_http.ipynb', 4); nb.metadata.note = 'pw4711'\n"
    call = "papermill.execute_notebook(nb, 'by_node.ipynb', progress_bar=False)"
    done.append(tracked.execute("python", "-c", node + call))
    assert [one.returncode for one in done] == [0] * 4, [one.stderr for one in done]
    runs = {name: tracked.runs(name) for name in ("by_http", "by_stdin", "by_cwd", "by_node")}
    assert [len(listed) for listed in runs.values()] == [1] * 4
    sources = {name: listed[0].data.tags["mlflow.source.name"] for name, listed in runs.items()}
    local = {name: str(tracked.folder / f"{name}.ipynb") for name in ("by_stdin", "by_cwd")}
    assert sources == local | {"by_http": f"{address}/by_http.ipynb", "by_node": "by_node"}
    for name, (run,) in runs.items():
        assert run.info.run_name == name
        document = tracked.artifact(run, f"{name}.ipynb")
        assert json.dumps(document).count("pw4711") == (name == "by_node")  # in its own metadata


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("s3://bucket/deep/a.ipynb", "s3://bucket/deep/a.ipynb"),
        ("https://me:" + "pw@host/a.ipynb?sig=1", "https://host/a.ipynb"),
    ],
)
def test_an_address_is_recorded_without_its_credentials(path: str, name: str) -> None:
    assert sys.modules["nbtrack.executors.papermill"]._source(path)["address"] == name


def test_a_program_that_uses_nbclient_names_its_notebooks(tracked: Any, make_notebook: Any) -> None:
    """By the first cell, in the program's folder or where the kernel runs; else by the program."""
    tracked.write("in_script.ipynb", make_notebook("x = 'script'"))
    tracked.write("staging/in_staging.ipynb", make_notebook("x = 'staged'"))
    tracked.write("given/with_defaults.ipynb", make_notebook("depth", parameters="depth = 3  # a default"))
    (tracked.folder / "nightly.py").write_text(
        "import nbclient, nbformat\n"
        "nbclient.NotebookClient(nbformat.read('in_script.ipynb', 4)).execute()\n"
        "staged = nbformat.read('staging/in_staging.ipynb', 4)\n"
        "staged.cells.insert(0, nbformat.v4.new_code_cell('injected = 1'))  # as jupyter-scheduler does\n"
        "nbclient.NotebookClient(staged, resources={'metadata': {'path': 'staging'}}).execute()\n"
        "given = nbformat.read('given/with_defaults.ipynb', 4)\n"
        "given.cells.insert(1, nbformat.v4.new_code_cell('depth = 5'))\n"
        "nbclient.NotebookClient(given, resources={'metadata': {'path': 'given'}}).execute()\n"
        "nbclient.NotebookClient(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('y = 2')])).execute()\n"
    )
    done = tracked.execute("python", "nightly.py")
    assert done.returncode == 0, done.stderr
    runs_of = {name: tracked.runs(name) for name in ("in_script", "in_staging", "with_defaults", "nightly")}
    assert [(run.info.run_name, run.data.params) for runs in runs_of.values() for run in runs] == [
        ("in_script", {}),
        ("staging/in_staging", {"injected": "1"}),
        ("given/with_defaults", {"depth": "5"}),
        ("nightly", {}),
    ]
    assert runs_of["in_script"][0].data.tags["mlflow.source.name"] == str(tracked.folder / "in_script.ipynb")


def test_a_notebook_executed_by_a_cell_in_lab_is_not_taken_for_its_parent(
    tracked: Any, make_notebook: Any, lab_kernel: Any
) -> None:
    tracked.write("of_a_cell.ipynb", make_notebook("x = 'of a cell'"))
    execute = "import nbclient, nbformat\nnbclient.NotebookClient(nbformat.read('of_a_cell.ipynb', 4)).execute();"
    kernel = lab_kernel(tracked, tracked.write("parent.ipynb", make_notebook(execute)))
    try:
        kernel.run(execute, "cell-0")
    finally:
        kernel.stop()
    (parent,), (child,) = tracked.runs("parent"), tracked.runs("of_a_cell")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_runs_of_vscode_carry_the_notebooks_name(tracked: Any, make_notebook: Any, lab_kernel: Any) -> None:
    """VS Code's cells have ids of its own, which no file contains; its hidden requests come before and between."""
    path = tracked.write("in_vscode.ipynb", make_notebook("print('one')", "1 / 0", "print('one')"))
    kernel = lab_kernel(tracked, None)
    try:
        kernel.wait(kernel.send(f"__vsc_ipynb_file__ = {str(path)!r}", store_history=False))
        for number, source in enumerate(("print('one')", "1 / 0", "print('one')")):
            kernel.run(source, VSCODE.format(path, number))
            kernel.wait(kernel.send("print(dir())", store_history=False))
        kernel.run("1", VSCODE.format(path, 1))  # edited, not saved
    finally:
        kernel.stop()
    (run,) = tracked.runs("in_vscode")
    assert (run.info.run_name, run.info.status) == ("in_vscode", "FINISHED")
    assert run.data.tags["pokebattle.executor"] == "vscode"
    assert run.data.tags["mlflow.source.name"] == str(path)
    executed = tracked.artifact(run, "in_vscode.ipynb")["cells"]
    assert [(cell["source"], cell["execution_count"]) for cell in executed] == [
        ("print('one')", 1),
        ("1", 4),
        ("print('one')", 3),
    ]


@pytest.mark.parametrize("session", ["deep/a.ipynb", "RTC:deep/a.ipynb", "deep%2Fa.ipynb"])
def test_a_session_of_lab_names_its_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: str) -> None:
    notebook = tmp_path / "deep" / "a.ipynb"
    notebook.parent.mkdir()
    notebook.write_text(json.dumps({"cells": []}))
    monkeypatch.setenv("JPY_SESSION_NAME", f"{tmp_path}/{session}")
    assert detect("1").notebook == notebook


def test_notebooks_of_one_name_in_two_folders_are_distinguished(tracked: Any, make_notebook: Any) -> None:
    for folder in ("first", "second"):
        path = tracked.write(f"{folder}/twice.ipynb", make_notebook("1"))
        done = tracked.execute("papermill", path.relative_to(tracked.folder), "out.ipynb")
        assert done.returncode == 0, done.stderr
    assert [run.info.run_name for run in tracked.runs("twice", count=2)] == ["first/twice", "second/twice"]


@pytest.mark.parametrize(
    ("notebook", "top", "name"),
    [
        ("a.ipynb", "", "a"),
        ("deep/down/a.ipynb", "", "deep/down/a"),
        ("deep/a.ipynb", "elsewhere", "a"),
        (".staging/4711/a.ipynb", "", "a"),
        ("checkout/a.ipynb", "", "a"),
        ("checkout/deep/a.ipynb", "", "deep/a"),
    ],
)
def test_a_name_contains_the_folders_below_the_checkout_or_the_programs(
    tmp_path: Path, notebook: str, top: str, name: str
) -> None:
    (tmp_path / "checkout" / ".git").mkdir(parents=True)
    assert Context("papermill", tmp_path / notebook, top=tmp_path / top).names({}) == ("a", name)


def test_braces_in_a_notebooks_name_are_no_template() -> None:
    assert Context("papermill", Path("/a{b}.ipynb")).names({"b": 1}) == ("a{b}", "a{b}")


def test_a_notebook_renamed_in_lab_gives_the_next_cells_their_name(
    tracked: Any, make_notebook: Any, lab_kernel: Any
) -> None:
    named = {"pokebattle": {"experiment": "of_its_own", "run_name": "of_its_own"}}
    for name, metadata in (("untitled", {}), ("fixed", named)):
        document = make_notebook("x = 1", "x += 1", metadata=metadata)
        kernel = lab_kernel(tracked, tracked.write(f"{name}.ipynb", document))
        try:
            kernel.run("x = 1", "cell-0")
            (tracked.folder / f"{name}.ipynb").rename(tracked.folder / f"{name}_renamed.ipynb")
            kernel.run("x += 1", "cell-1")
        finally:
            kernel.stop()
    (before,), (after,), (fixed,) = (tracked.runs(name) for name in ("untitled", "untitled_renamed", "of_its_own"))
    assert [cell["source"] for run in (before, after) for cell in tracked.artifact(run, "cells.json")] == [
        "x = 1",
        "x += 1",
    ]
    assert after.info.run_name == "untitled_renamed"
    for run, name in ((after, "untitled_renamed"), (fixed, "fixed_renamed")):
        assert run.data.tags["mlflow.source.name"] == str(tracked.folder / f"{name}.ipynb")
        assert len(tracked.artifact(run, f"{name}.ipynb")["cells"]) == 2
    assert len(tracked.artifact(fixed, "cells.json")) == 2


def test_a_file_is_followed_when_it_is_renamed_but_not_into_the_trash(tmp_path: Path) -> None:
    first, second, elsewhere = (tmp_path / name for name in ("a.ipynb", "b.ipynb", "deep/c.ipynb"))
    elsewhere.parent.mkdir()
    first.write_text("1")
    file = FollowedFile(first)
    assert file.now() == first
    first.rename(second)
    assert file.now() == second
    second.write_text("2")  # saved
    shutil.copy(second, first)
    assert file.now() == second
    draft = tmp_path / "draft"
    draft.write_text("3")
    draft.replace(second)  # saved by another program
    assert file.now() == second
    second.rename(elsewhere)
    assert file.now() == elsewhere
    trash = tmp_path / ".Trash-0" / "files"
    trash.mkdir(parents=True)
    elsewhere.rename(trash / "c.ipynb")
    assert file.now() == elsewhere


def test_a_parameter_that_is_no_number_leaves_json_that_everybody_reads(tracked: Any, make_notebook: Any) -> None:
    path = tracked.write("nan.ipynb", make_notebook("x", parameters="x = 1.0"))
    done = tracked.papermill(path, "-p", "x", "nan", "-p", "y", "-inf")
    assert done.returncode == 0, done.stderr
    (run,) = tracked.runs("nan")
    assert run.data.params == {"x": "nan", "y": "-inf"}
    folder = tracked.download(run_id=run.info.run_id, artifact_path="")
    for file in [
        *folder.rglob("*.json"),
        *folder.rglob("*.ipynb"),
        *tracked.folder.rglob("run.json"),
        tracked.folder / "out.ipynb",
    ]:
        json.loads(file.read_text(), parse_constant=lambda word, file=file: pytest.fail(f"{file.name}: {word}"))
    assert tracked.artifact(run, "parameters.json") == {"x": "NaN", "y": "-Infinity"}


ECHO = """\
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel


class Echo(Kernel):
    implementation, implementation_version, banner = "echo", "1", "echo"
    language_info = {"name": "echo", "mimetype": "text/plain", "file_extension": ".txt"}

    def _says(self, kind, **content):
        self.send_response(self.iopub_socket, kind, content)

    async def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **more):
        answer = {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}
        if code.startswith("fail"):
            error = {"ename": "EchoError", "evalue": code, "traceback": [code]}
            self._says("error", **error)
            return answer | error | {"status": "error"}
        self._says("stream", name="stdout", text=code)
        return answer


IPKernelApp.launch_instance(kernel_class=Echo)
"""


def test_of_a_kernel_without_the_extension_papermills_side_is_known(tracked: Any) -> None:
    spec = tracked.folder / "share" / "kernels" / "echo"
    spec.mkdir(parents=True)
    (spec / "echo.py").write_text(ECHO)
    argv = ["python", str(spec / "echo.py"), "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Echo", "language": "echo"}))
    tracked.env["JUPYTER_PATH"] = str(tracked.folder / "share")
    kernel = {"kernelspec": {"name": "echo", "display_name": "Echo", "language": "echo"}}
    for name, last in (("echoes", "two"), ("fails", "fail now")):
        cells = [nbformat.v4.new_code_cell(source) for source in ("one", "", last)]
        path = tracked.write(f"{name}.ipynb", nbformat.v4.new_notebook(cells=cells, metadata=kernel))
        done = tracked.papermill(path)
        assert done.returncode == (name == "fails"), done.stderr
        assert "MLflow run: http" in done.stderr
    (well,), (failed,) = tracked.runs("echoes"), tracked.runs("fails")
    assert (well.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert well.data.tags["pokebattle.known"] == (
        "recorded by papermill only: the kernel echo does not load nbtrack's extension"
    )
    assert "pokebattle.python" not in well.data.tags
    assert (failed.data.tags["pokebattle.error"], failed.data.tags["pokebattle.failed_cell"]) == (
        "EchoError: fail now",
        "2",
    )
    executed = tracked.artifact(well, "echoes.ipynb")["cells"]
    assert [output["text"] for cell in executed for output in cell["outputs"]] == ["one", "two"]
    assert all(cell["ok"] for cell in tracked.artifact(well, "cells.json"))
    doctor = tracked.execute("python", "-m", "pokebattle", "doctor")
    assert doctor.returncode == 0 and "echo (Echo) does not load the extension" in doctor.stdout


def test_of_a_kernel_of_another_environment_papermills_side_is_known(tracked: Any, make_notebook: Any) -> None:
    """It has ipykernel, and everything else of this one, but no configuration that names the extension."""
    other, spec = tracked.folder / "other", tracked.folder / "share" / "kernels" / "other"
    venv.create(other)
    (packages,) = other.glob("lib/python*/site-packages")
    (packages / "of_this_one.pth").write_text(sysconfig.get_path("purelib") + "\n")
    spec.mkdir(parents=True)
    argv = [str(other / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Other", "language": "python"}))
    tracked.env["JUPYTER_PATH"] = str(tracked.folder / "share")
    kernel = {"kernelspec": {"name": "other", "display_name": "Other", "language": "python"}}
    run = tracked.run_of("in_other.ipynb", make_notebook("import sys\nprint(sys.prefix)", metadata=kernel))
    assert run.data.tags["pokebattle.known"] == (
        "recorded by papermill only: the kernel other does not load nbtrack's extension"
    )
    assert tracked.artifact(run, "in_other.ipynb")["cells"][0]["outputs"][0]["text"] == f"{other}\n"
    doctor = tracked.execute("python", "-m", "pokebattle", "doctor").stdout
    assert "other (Other) does not load the extension" in doctor
