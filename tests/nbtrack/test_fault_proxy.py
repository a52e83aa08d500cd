"""The fault harness itself: every mode of the proxy does what it says, and the comparison sees what is planted.

The ground truth is MLflow's own client: a notebook's code executed without the product is as planned.
"""

import contextlib
import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from faults import PARENT, FaultProxy, Plan, compare, database_away
from waiting import wait_for

from pokebattle.paths import state_dir


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[FaultProxy]:
    """A proxy before the tests' server."""
    with FaultProxy(mlflow_server) as started:
        yield started


class Client:
    """One connection that is kept alive."""

    def __init__(self, port: int, timeout: float = 15.0) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Send one request; return status and answer."""
        headers = {"Content-Type": "application/json"} if isinstance(body, dict) else {}
        self.connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content.startswith(b"{") else {"raw": content}

    def create(self, name: str) -> tuple[int, dict[str, Any]]:
        """Create an experiment."""
        return self.call("POST", "/api/2.0/mlflow/experiments/create", {"name": name})

    def search(self) -> tuple[int, dict[str, Any]]:
        """Read something."""
        return self.call("POST", "/api/2.0/mlflow/experiments/search", {"max_results": 5})


@pytest.fixture
def client(proxy: FaultProxy) -> Client:
    """A client of the proxy."""
    return Client(proxy.port)


@pytest.fixture
def direct(mlflow_server: str) -> mlflow.MlflowClient:
    """A client of the real server."""
    return mlflow.MlflowClient(mlflow_server)


BROKEN = (ConnectionError, http.client.HTTPException)


def test_a_request_is_carried_out_and_answered_by_503(
    proxy: FaultProxy, client: Client, direct: mlflow.MlflowClient
) -> None:
    proxy.mode = "commit-then-503"
    assert client.create("proxy-committed")[0] == 503
    proxy.mode = "pass"
    assert client.search()[0] == 200, "the connection stays"
    assert direct.get_experiment_by_name("proxy-committed")


def test_an_answer_comes_twice(proxy: FaultProxy) -> None:
    proxy.mode = "answer-twice"
    with socket.create_connection(("127.0.0.1", proxy.port), 15) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while received.count(b"HTTP/1.1 200") < 2:
            received += (piece := connection.recv(65536))
            assert piece
    assert proxy.struck["answer-twice"] == 1


def test_passing_keeps_connections_alive_and_streams_bodies(proxy: FaultProxy, client: Client) -> None:
    assert client.create("proxy-pass")[0] == 200
    sock = client.connection.sock
    content = os.urandom(5_000_000)
    address = "/api/2.0/mlflow-artifacts/artifacts/proxy/big.bin"
    for body in (io.BytesIO(content), iter([content])):  # by length, in chunks
        headers = {"Content-Length": str(len(content))} if hasattr(body, "read") else {}
        client.connection.request("PUT", address, body, headers, encode_chunked=not headers)
        assert client.connection.getresponse().read() is not None
        assert client.call("GET", address)[1]["raw"] == content
    assert client.call("GET", "/version")[0] == 200
    assert client.connection.sock is sock
    assert proxy.count("PUT", "/api/2.0/mlflow-artifacts/") == 2
    assert proxy.requests["POST", "/api/2.0/mlflow/experiments/create"] == 1
    assert not proxy.struck


def test_a_connection_that_idled_is_no_fault(closing: Any) -> None:
    with FaultProxy(f"http://127.0.0.1:{closing.servers[0].sockets[0].getsockname()[1]}") as proxy:
        client = Client(proxy.port)
        assert client.search()[0] == 200
        wait_for(lambda: not closing.server_state.connections, "the server to close its side")
        assert client.search()[0] == 200


def test_refusing_cuts_what_is_open_and_comes_back_on_the_same_port(proxy: FaultProxy, client: Client) -> None:
    assert client.search()[0] == 200
    for _ in range(2):
        proxy.mode = "refuse"
        with pytest.raises(BROKEN):
            client.search()
        client.connection.close()
        with pytest.raises(ConnectionRefusedError):
            client.search()
        client.connection.close()
        proxy.mode = "pass"
        assert client.search()[0] == 200


def test_hanging_requests_are_never_forwarded(proxy: FaultProxy, client: Client, direct: mlflow.MlflowClient) -> None:
    proxy.mode = "hang"
    short = Client(proxy.port, timeout=0.5)
    with pytest.raises(TimeoutError):
        short.create("proxy-hang")
    timer = threading.Timer(0.5, setattr, (proxy, "mode", "pass"))
    timer.start()
    began = time.monotonic()
    with pytest.raises(BROKEN):
        client.create("proxy-hang")
    assert 0.3 < time.monotonic() - began < 5
    timer.join()
    assert direct.get_experiment_by_name("proxy-hang") is None
    client.connection.close()
    assert client.create("proxy-hang")[0] == 200


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("unavailable", (503, "TEMPORARILY_UNAVAILABLE")),
        ("unauthorized", (401, "UNAUTHENTICATED")),
        ("denied", (403, "PERMISSION_DENIED")),
    ],
    ids=["unavailable", "unauthorized", "denied"],
)
def test_a_refusal_is_an_answer_and_not_forwarded(
    proxy: FaultProxy, client: Client, direct: mlflow.MlflowClient, mode: str, expected: tuple[int, str]
) -> None:
    proxy.mode, name = mode, f"proxy-{mode}"
    for _ in range(2):
        status, answer = client.create(name)
        assert (status, answer["error_code"]) == expected
    sock = client.connection.sock
    proxy.mode = "pass"
    assert direct.get_experiment_by_name(name) is None
    assert client.create(name)[0] == 200
    assert client.connection.sock is sock


def test_slow_requests_arrive_late_unless_the_fault_ends(proxy: FaultProxy, client: Client) -> None:
    assert proxy.delay == 5.0
    proxy.delay = 0.5
    proxy.mode = "slow"
    began = time.monotonic()
    assert client.search()[0] == 200
    assert time.monotonic() - began >= 0.5
    proxy.delay = 60.0
    timer = threading.Timer(0.3, setattr, (proxy, "mode", "pass"))
    timer.start()
    assert client.search()[0] == 200
    timer.join()


def test_a_lost_answer_is_a_write_that_has_happened(
    proxy: FaultProxy, client: Client, direct: mlflow.MlflowClient
) -> None:
    proxy.mode = "lose-answer"
    with pytest.raises(BROKEN):
        client.create("proxy-lost")
    assert direct.get_experiment_by_name("proxy-lost") is not None


def test_a_cut_request_is_not_forwarded(proxy: FaultProxy, client: Client, direct: mlflow.MlflowClient) -> None:
    proxy.mode = "cut"
    address = "/api/2.0/mlflow-artifacts/artifacts/proxy/cut.bin"
    for send in (
        lambda: client.create("proxy-cut"),
        lambda: client.call("PUT", address, io.BytesIO(bytes(3_000_000))),
        lambda: client.call("GET", "/version"),
    ):
        with pytest.raises(BROKEN):
            send()
        client.connection.close()
    proxy.mode = "pass"
    assert direct.get_experiment_by_name("proxy-cut") is None
    assert client.call("GET", address)[0] >= 400


def test_a_share_strikes_some_requests_only(proxy: FaultProxy) -> None:
    proxy.share, proxy.mode = 0.3, "unavailable"
    client = Client(proxy.port)
    answers = [client.search()[0] for _ in range(60)]
    assert set(answers) == {200, 503}
    assert 6 <= answers.count(503) == proxy.struck["unavailable"] <= 32


def test_a_locked_database_keeps_requests_waiting(client: Client, direct: mlflow.MlflowClient) -> None:
    database = state_dir() / "server" / "mlflow.db"
    short = Client(client.connection.port, timeout=1.0)
    with database_away(database), pytest.raises(TimeoutError):
        short.search()  # reads wait as well
    assert client.search()[0] == 200


# -- plans and their comparison -----------------------------------------------------------------------


@contextlib.contextmanager
def plain_run(uri: str, plan: Plan) -> Iterator[dict[str, Any]]:
    """Open a run by MLflow's own means, fill in what the product adds, and close it."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(plan.stem)
    try:
        with mlflow.start_run(run_name=plan.stem, tags={"pokebattle.execution": "by-hand"}):
            mlflow.log_param("LogisticRegression.C", plan.penalty)
            mlflow.log_metric("fit/LogisticRegression/seconds", 0.1)
            yield {}
    finally:
        mlflow.set_tracking_uri("")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
            os.environ.pop(name, None)
        mlflow.tracking.fluent._active_experiment_id = None


def log_by_hand(uri: str, plan: Plan, folder: Path, leave_out: str | None = None) -> None:
    """Execute the plan's notebook without the product, leaving out the line that contains these words."""
    document = plan.notebook()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with plain_run(uri, plan) as namespace:
            for number, cell in enumerate(document.cells):
                lines = [line for line in cell.source.splitlines() if not leave_out or leave_out not in line]
                assert len(lines) == len(cell.source.splitlines()) or leave_out
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    exec("\n".join(lines), namespace)
                shown = printed.getvalue()[printed.getvalue().index("done") :]  # MLflow talks about child runs
                cell.outputs = [{"output_type": "stream", "name": "stdout", "text": shown}]
                cell.execution_count = number + 1
                mlflow.log_metric("cell/seconds", 0.1, step=number + 1)
            mlflow.log_text(json.dumps(document), f"{plan.stem}.ipynb")
    finally:
        os.chdir(before)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_plain_mlflow_logs_is_as_planned(
    seed: int, mlflow_server: str, direct: mlflow.MlflowClient, tmp_path: Path
) -> None:
    plan = Plan(seed, f"by-hand-{seed}", tmp_path, model=seed == 3)
    assert 5 <= plan.cells <= 9
    log_by_hand(mlflow_server, plan, tmp_path)
    assert compare(direct, plan, plan.stem) == []
    assert plan.made() == len(plan.calls)
    assert {"log_metric", "log_param", "set_tag", "log_artifact", "log_text", "start_run", "end_run"} <= set(
        plan.longest()
    )
    assert ("log_model" in plan.longest()) == (seed == 3)


def test_equal_seeds_are_equal_plans(tmp_path: Path) -> None:
    one, two, other = (Plan(seed, "same", tmp_path).notebook() for seed in (7, 7, 8))
    assert one == two != other


def test_what_is_left_out_is_lost(mlflow_server: str, direct: mlflow.MlflowClient, tmp_path: Path) -> None:
    plan = Plan(4, "left-out", tmp_path)
    log_by_hand(mlflow_server, plan, tmp_path, leave_out="'late', float")
    deviations = compare(direct, plan, plan.stem)
    assert len(deviations) == 4 and all(
        line.startswith("lost: metric late of the run at (step, value)") for line in deviations
    )
    before = next(n for n, call in enumerate(plan.calls) if "'late'" in call.code)
    assert compare(direct, plan, plan.stem, calls=before) == []
    assert len(compare(direct, plan, plan.stem, calls=before + 1)) == 1
    assert compare(direct, plan, "no-such-experiment")[0].startswith("lost: the run")


def test_every_planted_deviation_is_seen(mlflow_server: str, direct: mlflow.MlflowClient, tmp_path: Path) -> None:
    plan = Plan(5, "planted", tmp_path, model=True)
    log_by_hand(mlflow_server, plan, tmp_path)
    assert compare(direct, plan, plan.stem) == []
    experiment = direct.get_experiment_by_name(plan.stem).experiment_id
    runs = {run.info.run_name: run for run in direct.search_runs([experiment])}
    run_id, child = runs[plan.stem].info.run_id, runs["first child"].info.run_id
    seen: set[str] = set()

    def planted(*expected: str) -> None:
        """Check that these beginnings, and nothing else, are new."""
        new = [line for line in compare(direct, plan, plan.stem) if line not in seen]
        assert len(new) == len(expected), new
        for line, beginning in zip(sorted(new), sorted(expected), strict=True):
            assert line.startswith(beginning)
        seen.update(new)

    direct.log_metric(run_id, "late", 99.0, step=1)
    planted("doubled: metric late of the run at (step, value) (1, '99.0')")
    direct.log_param(run_id, "p0.2", "again")
    direct.set_tag(run_id, "phase", "first")
    planted("doubled: param p0.2", "wrong: tag phase of the run is 'first'")
    direct.log_text(run_id, "old", "twice.txt")
    planted("wrong: artifact twice.txt")
    direct.log_text(run_id, "x", f"binary/{plan.stem}.blob")
    planted(f"wrong: artifact binary/{plan.stem}.blob")
    direct.log_metric(child, "score", 99.0, step=9)
    direct.log_metric(child, "cell/seconds", 1.0)
    planted("doubled: metric score of 'first child'", "doubled: metric cell/seconds of 'first child'")
    direct.set_terminated(child, "FAILED")
    planted("status: 'first child' is FAILED")
    direct.update_run(run_id, "RUNNING")
    planted("status: the run is RUNNING")
    direct.set_terminated(run_id, "FINISHED")
    notebook = {"cells": [{"cell_type": "code", "execution_count": None, "outputs": []}]}
    direct.log_dict(run_id, notebook, f"{plan.stem}.ipynb")
    planted(f"lost: {plan.stem}.ipynb has 0 executed cells")
    direct.create_run(experiment, run_name="stray")
    planted("doubled: a run 'stray' (RUNNING) that nobody started")
    direct.create_run(experiment, run_name="stranger", tags={PARENT: run_id})
    planted("doubled: a child 'stranger' that nobody started")
    source = direct.search_model_versions(f"name = '{plan.registered}'")[0].source
    direct.create_model_version(plan.registered, source, run_id, model_id=source.split("/")[-1])
    planted(f"doubled: 2 versions of {plan.registered}")
    direct.create_logged_model(experiment, "model", source_run_id=run_id)
    planted("doubled: 2 logged models")

    twin = direct.create_run(experiment, run_name="first child", tags={PARENT: run_id}).info.run_id
    direct.set_terminated(twin)
    deviations = [line for line in compare(direct, plan, plan.stem) if line not in seen]
    assert "doubled: 2 runs 'first child'" in deviations
    assert "lost: param width of 'first child'" in deviations
    direct.create_run(experiment, run_name=plan.stem, tags={"pokebattle.execution": "by-hand"})
    assert "doubled: 2 runs of one execution" in compare(direct, plan, plan.stem)
