"""No server, a server that comes up late, a port that is taken: notebooks continue, and one message is printed."""

import http.server
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from typing import Any

import nbformat
import psutil
import pytest
from faults import FaultProxy
from waiting import wait_for

from nbtrack import server, settings
from nbtrack.executions import run_address
from nbtrack.files import read_json


def test_without_a_server_a_notebook_ends_undelayed_and_says_so_once(away: Any, make_notebook: Any) -> None:
    tried = (
        "from pathlib import Path\nrecords = set()\n"  # of the attempts: each writes its own
        "while len(records) < 2:\n"
        "    records |= {file.stat().st_mtime_ns for file in Path('state').glob('executions/*/run.json')}\n"
    )
    path = away.write("alone.ipynb", make_notebook("print('here')", f"{tried}1 + 1"))
    began = time.monotonic()
    done = away.papermill(path)
    took = time.monotonic() - began
    plain = away.write("plain.ipynb", make_notebook("print('here')", "1 + 1"))
    began = time.monotonic()
    away.papermill(plain, POKEBATTLE_TRACKING="off")
    assert done.returncode == 0
    assert took < 10 + 2 * (time.monotonic() - began)  # MLflow's own client would stall for minutes
    lines = [line for line in done.stderr.splitlines() if line.startswith("pokebattle: ")]
    assert len(lines) == 1 and "http://127.0.0.1:9" in lines[0]
    cells = nbformat.read(away.folder / "out.ipynb", 4).cells
    assert [output.output_type for cell in cells for output in cell.outputs] == ["stream", "execute_result"]


def test_without_a_server_mlflow_calls_of_cells_can_be_read_back(away: Any, make_notebook: Any) -> None:
    cells = (
        "import mlflow\nmlflow.log_metric('kept', 4.5)",
        "run_id = mlflow.active_run().info.run_id\nprint(mlflow.get_run(run_id).data.metrics['kept'])",
        "client = mlflow.MlflowClient()\n"
        "print([len(client.get_metric_history(run_id, key)) for key in ('kept', 'cell/seconds')])",
    )
    done = away.papermill(away.write("kept.ipynb", make_notebook(*cells)))
    assert done.returncode == 0, done.stderr
    shown = [cell.outputs[-1].text for cell in nbformat.read(away.folder / "out.ipynb", 4).cells[1:]]
    assert shown == ["4.5\n", "[1, 0]\n"]
    assert (away.folder / "state" / "executions").stat().st_mode & 0o077 == 0


KEPT = """
import mlflow
client = mlflow.MlflowClient()
def error(function, *args, **kwargs):
    try:
        print('no error', function(*args, **kwargs))
    except Exception as raised:
        print(type(raised).__name__, str(raised).splitlines()[0].replace(run.info.run_id, 'RUN'))
experiment = mlflow.create_experiment('first name')
client.rename_experiment(experiment, 'second name')
with mlflow.start_run(experiment_id=experiment, run_name='kept') as run:
    mlflow.log_table({'n': [1]}, 'table.json')
    mlflow.log_table({'n': [2]}, 'table.json')
    mlflow.log_text('hello', 'folder/text.txt')
    print(client.get_parent_run(run.info.run_id).info.run_name)
    print([(f.path, f.is_dir, f.file_size) for f in client.list_artifacts(run.info.run_id)])
    print(mlflow.artifacts.load_text(run.info.artifact_uri + '/folder/text.txt'))
    mlflow.log_param('x', 1)
    error(mlflow.log_param, 'x', 2)
    error(mlflow.log_params, {'x': 3})
    print(client.get_run(run.info.run_id).data.params)
with mlflow.start_span('not kept'):
    pass
mlflow.flush_trace_async_logging()
client.create_registered_model('kept model')
version = client.create_model_version('kept model', run.info.artifact_uri + '/folder', run.info.run_id).version
client.transition_model_version_stage('kept model', version, 'Staging')
client.set_registered_model_alias('kept model', 'champion', version)
"""


def test_what_a_cell_did_without_a_server_is_there_once_it_answers(
    tracked: Any, make_notebook: Any, mlflow_server: str
) -> None:
    with FaultProxy(mlflow_server) as proxy:
        proxy.mode = "refuse"
        tracked.env["MLFLOW_TRACKING_URI"] = proxy.uri
        done = tracked.papermill(tracked.write("keeps.ipynb", make_notebook(KEPT)))
        assert done.returncode == 0, done.stderr
        proxy.mode = "pass"
        assert tracked.execute("python", "-m", "pokebattle", "sync").returncode == 0
    outputs = nbformat.read(tracked.folder / "out.ipynb", 4).cells[-1].outputs
    shown = "".join(output.text for output in outputs if output.get("name") == "stdout")
    said = [line for line in shown.splitlines() if not line.startswith(("🏃", "🧪"))]
    assert said == [
        "keeps",
        "[('folder', True, None), ('table.json', False, 34)]",
        "hello",
        "MlflowException INVALID_PARAMETER_VALUE: Changing param values is not allowed. Param with key='x' was already "
        "logged with value='1' for run ID='RUN'. Attempted logging new value '2'.",
        "RestException INVALID_PARAMETER_VALUE: Changing param values is not allowed. Params were already "
        "logged='[{'key': 'x', 'old_value': '1', 'new_value': '3'}]' for run ID='RUN'.",
        "{'x': '1'}",
    ]
    (run,) = tracked.runs("second name")
    assert tracked.artifact(run, "table.json") == {"columns": ["n"], "data": [[1], [2]]}
    version = tracked.client.get_model_version_by_alias("kept model", "champion")
    assert (version.current_stage, version.run_id) == ("Staging", run.info.run_id)
    (run,) = tracked.runs("keeps")
    assert "pokebattle.set_aside" not in run.data.tags


@pytest.fixture
def own_state(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A state folder of this test's own, and no address in the environment."""
    monkeypatch.setenv("POKEBATTLE_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def test_a_run_waits_for_a_server_that_comes_up(
    own_state: Any, away: Any, make_notebook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "DEFAULT_URI", "http://127.0.0.1:0")
    monkeypatch.setattr(settings, "DEFAULT_URI", "http://127.0.0.1:9")
    del away.env["MLFLOW_TRACKING_URI"]
    away.env["POKEBATTLE_LINGER"] = "120"  # the server may need longer than the notebook
    uri, _ = server.start(wait=False)
    try:
        assert settings.tracking_uri() == uri != "http://127.0.0.1:9"
        done = away.papermill(away.write("early.ipynb", make_notebook("1 + 1")))
        assert done.returncode == 0
        assert "no MLflow server" not in done.stderr
        (folder,) = away.executions()
        record = wait_for(lambda: read_json(folder / "run.json"), "delivery", 120, until=lambda said: "status" in said)
        assert record["status"] == "FINISHED"
        assert server.start()[0] == uri
    finally:
        assert server.stop() == uri
    assert not server.answers(uri)
    assert server.stop() is None


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_what_is_left_of_a_server_whose_first_process_was_killed_is_ended(
    own_state: Any, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(server, "tracking_uri", lambda: mlflow_server)
    folder = own_state / "server"
    folder.mkdir()
    code = "import subprocess, sys\nsubprocess.run(['sleep', '60'])"
    first = psutil.Popen([sys.executable, "-c", code], cwd=folder, start_new_session=True)
    record = {"uri": "http://127.0.0.1:9", "pid": first.pid, "created": first.create_time()}
    (own_state / "server.json").write_text(json.dumps(record))
    left = wait_for(first.children, "the first one's child")
    assert not server.end_remains(record, folder), "the first one is alive"
    first.kill()
    first.wait(10)
    assert not server.end_remains(record, own_state), "it is another program's group, which has got that number"
    assert [process.is_running() for process in left] == [True]
    if verb == "start":
        uri, (remark, _) = server.start()
        assert uri == mlflow_server and remark == "ended leftover processes of the MLflow server at http://127.0.0.1:9"
    else:
        assert server.stop() == "http://127.0.0.1:9"
    assert not psutil.wait_procs(left, timeout=10)[1]
    assert server.stop() is None


def test_a_port_held_by_something_else_is_named_and_another_taken(
    own_state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        monkeypatch.setattr(server, "DEFAULT_URI", f"http://127.0.0.1:{port}")
        taken, (remark,) = server._choose_port()
        (own_state / "server").mkdir()
        (own_state / "server" / "port").write_text(f"{taken}\n")
        assert server._choose_port()[0] == taken  # what a terminal has learned stays true
    assert taken != port
    assert f"port {port} is in use by" in remark and f"process {os.getpid()}" in remark and str(taken) in remark


def test_another_program_that_denies_at_the_default_port_is_no_mlflow_server(monkeypatch: pytest.MonkeyPatch) -> None:
    class Denying(http.server.BaseHTTPRequestHandler):  # as AirPlay does at port 5000 of macOS
        def do_GET(self) -> None:
            self.send_error(403)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Denying) as denying:
        threading.Thread(target=denying.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{denying.server_port}"
        assert server.answers(uri), "a gateway that denies is in front of the server that the user named"
        monkeypatch.setattr(server, "DEFAULT_URI", uri)
        assert not server.answers(uri)
        denying.shutdown()


def test_the_tests_own_server_leaves_the_default_port_alone(mlflow_server: str) -> None:
    assert not mlflow_server.endswith(":5000")


def test_the_address_is_the_environments_then_the_recorded_then_the_default(
    own_state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.tracking_uri() == "http://127.0.0.1:5000"
    (own_state / "server.json").write_text('{"uri": "http://127.0.0.1:5055", "pid": 1}')
    assert settings.tracking_uri() == "http://127.0.0.1:5055"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5077/")
    assert settings.tracking_uri() == "http://127.0.0.1:5077"


def test_only_a_server_started_just_now_is_waited_for(own_state: Any) -> None:
    record = {"uri": "http://127.0.0.1:9", "pid": os.getpid(), "created": time.time() - 5}
    for change, expected in ({}, True), ({"created": time.time() - 3600}, False), ({"uri": "http://other"}, False):
        (own_state / "server.json").write_text(json.dumps(record | change))
        assert settings.server_is_starting("http://127.0.0.1:9") is expected
    (own_state / "server.json").write_text(json.dumps({"uri": "http://127.0.0.1:9"}))
    assert settings.server_is_starting("http://127.0.0.1:9") is False


def test_a_server_that_was_not_started_here_is_called_so(
    own_state: Any, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "tracking_uri", lambda: mlflow_server)
    uri, (remark,) = server.start()
    assert uri == mlflow_server and "not started by this checkout" in remark and "--own" in remark
    gone = {"uri": mlflow_server, "pid": os.getpid(), "created": 0.0}  # ours, which had that port before
    (own_state / "server.json").write_text(json.dumps(gone))
    assert server.start() == (mlflow_server, [remark])
    (own_state / "server.json").write_text(json.dumps(gone | {"created": psutil.Process().create_time()}))
    assert server.start() == (mlflow_server, [])


def test_the_recorded_server_may_come_up_elsewhere(own_state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_state / "server.json").write_text('{"uri": "http://127.0.0.1:5055"}')
    assert settings.is_local("http://127.0.0.1:5055") and settings.is_local("http://127.0.0.1:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5055")
    assert settings.is_local("http://127.0.0.1:5055") and not settings.is_local("http://127.0.0.1:5000")
    began = {"uri": "http://127.0.0.1:5044", "experiment_id": "1", "run_id": "2"}
    assert run_address(began).startswith("http://127.0.0.1:5044/")
    assert run_address(began | {"local_server": True}).startswith("http://127.0.0.1:5055/")


def test_a_stale_record_is_not_taken_for_the_server(own_state: Any) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    record = {"uri": "http://127.0.0.1:9", "pid": ended.pid, "created": 0.0}
    assert server.process(record) is None
    alive = psutil.Process()
    assert server.process(record | {"pid": alive.pid}) is None  # another program has got the number since
    assert server.process(record | {"pid": alive.pid, "created": alive.create_time()}) == alive


def test_a_store_that_is_no_server_is_left_to_mlflow(away: Any, make_notebook: Any) -> None:
    cells = (
        "import mlflow\nmlflow.log_metric('a', 1.5)\nmlflow.end_run()",
        "with mlflow.start_run():\n    mlflow.log_metric('b', 2.5)",
    )
    away.env["MLFLOW_TRACKING_URI"] = "sqlite:///own.db"
    done = away.papermill(away.write("own_store.ipynb", make_notebook(*cells)))
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(away.folder / "own.db") as store:
        assert dict(store.execute("select key, value from metrics")) == {"a": 1.5, "b": 2.5}
        assert store.execute("select count(distinct run_uuid) from metrics").fetchone() == (2,)
    assert away.executions() == []
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("pokebattle: ")]
    assert "http(s) servers, not at sqlite:///own.db" in line
    doctor = away.execute("python", "-m", "pokebattle", "doctor")
    assert doctor.returncode == 1 and "expected http://host:port, got 'sqlite:///own.db'" in doctor.stdout


def test_no_failure_of_tracking_reaches_a_cell(away: Any, make_notebook: Any) -> None:
    cells = (
        "import mlflow\nmlflow.log_metric('kept', 1.0)",
        "import os, shutil\nshutil.rmtree(os.environ['POKEBATTLE_STATE'])",
        "mlflow.log_text('x', 'a.txt')\nmlflow.log_metric('kept', 2.0)\nprint('one')",
        "from nbtrack.kernel import extension, mlflow_requests\n"
        "extension._tracker.execution.journal.stage = extension._tracker.execution.emit = None\n"
        "mlflow.log_text('x', 'a.txt')\nmlflow.log_metric('kept', 3.0)\nprint('two')",
        "mlflow_requests.requests = None\nmlflow.log_metric('kept', 4.0)\nprint('three')",
    )
    done = away.papermill(away.write("bare.ipynb", make_notebook(*cells)))
    assert done.returncode == 0, done.stderr
    out = nbformat.read(away.folder / "out.ipynb", 4).cells
    assert [cell.outputs[0].text for cell in out[2:]] == ["one\n", "two\n", "three\n"]
    assert done.stderr.count("pokebattle: a call of mlflow's was not recorded (TypeError") == 1
