"""Artifacts that the server does not take itself: with a way to them they arrive, without one that is said."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import nbformat
import pytest
from faults import Server
from guard import guarded
from waiting import wait_for

from nbtrack import artifact_stores
from nbtrack.errors import ServerError
from nbtrack.mlflow_rest import MlflowRest

WORD = "a-word"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": WORD, "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an emulator of S3 that has the bucket ``team``; this process knows its address, and no key."""
    import boto3

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "s3.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    with guarded(child.pid):
        wait_for(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), "the emulator of S3")
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="key",
            aws_secret_access_key=WORD,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="team")
        yield client
        child.terminate()
        child.wait(20)


def test_a_store_with_credentials_takes_artifacts_and_without_them_says_so(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = MlflowRest("http://127.0.0.1:9")
    place = "s3://team/1/run/artifacts"
    with pytest.raises(
        ServerError, match="NOT_PROXIED: clients have to store artifacts in s3://team/1/run/artifacts themselves"
    ) as raised:
        rest.upload(place, "plots/a.txt", lambda: [b"x"])
    assert raised.value.permanent and "credentials" in raised.value.message
    assert "this machine cannot (" in artifact_stores.problem(place)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    artifact_stores.problem.cache_clear()
    rest.upload(place, "plots/a.txt", lambda: [b"some ", b"text"])
    assert bucket.get_object(Bucket="team", Key="1/run/artifacts/plots/a.txt")["Body"].read() == b"some text"
    assert artifact_stores.problem(place) == ""


def test_a_folder_that_cannot_be_written_costs_the_artifact(tmp_path: Path) -> None:
    rest = MlflowRest("http://127.0.0.1:9")
    rest.upload(f"file://{tmp_path}/a%20b", "c/d.txt", lambda: [b"x"])
    assert (tmp_path / "a b" / "c" / "d.txt").read_bytes() == b"x"
    assert artifact_stores.problem(f"file://{tmp_path}/anywhere") == ""
    with pytest.raises(ServerError, match="NOT_WRITABLE"):
        rest.upload("file:///proc/nobody", "d.txt", lambda: [b"x"])
    assert "cannot be written here" in artifact_stores.problem("file:///proc/nobody")


def test_a_file_that_is_gone_costs_itself_and_is_no_server_that_is_away(tmp_path: Path) -> None:
    from nbtrack.mlflow_rest import file_chunks

    with pytest.raises(ServerError, match="NOT_READABLE"):
        MlflowRest("http://127.0.0.1:9").upload("mlflow-artifacts:/1", "a.txt", file_chunks(tmp_path / "gone"))


def test_papermill_reads_from_a_bucket_and_writes_to_it(tracked: Any, bucket: Any, make_notebook: Any) -> None:
    source = nbformat.writes(make_notebook("print(alpha)", parameters="alpha = 1")).encode()
    bucket.put_object(Bucket="team", Key="deep/by_bucket.ipynb", Body=source)
    address, done = "s3://team/deep/by_bucket.ipynb", "s3://team/done/out.ipynb"
    said = tracked.execute(
        "papermill", address, done, "-p", "alpha", "2", **KEYS, BOTO3_ENDPOINT_URL=os.environ["MLFLOW_S3_ENDPOINT_URL"]
    )
    assert said.returncode == 0, said.stderr
    (run,) = tracked.runs("by_bucket")
    assert (run.info.run_name, run.info.status, run.data.params) == ("by_bucket", "FINISHED", {"alpha": "2"})
    assert run.data.tags["mlflow.source.name"] == address
    written = bucket.get_object(Bucket="team", Key="done/out.ipynb")["Body"].read().decode()
    assert nbformat.reads(written, 4).cells[-1].outputs[0].text == "2\n"


class Unproxied(Server):
    """A server that leaves its artifacts to its clients."""

    options = ("--no-serve-artifacts", "--default-artifact-root", "s3://team/root")


def test_a_server_that_leaves_artifacts_to_clients_is_reported_at_the_start_and_by_doctor(
    tracked: Any, bucket: Any, make_notebook: Any, lab_kernel: Any, tmp_path: Path
) -> None:
    bucket_env = {
        name: os.environ[name]
        for name in ("MLFLOW_S3_ENDPOINT_URL", "AWS_EC2_METADATA_DISABLED", "AWS_SHARED_CREDENTIALS_FILE")
    }
    with Unproxied(tmp_path / "unproxied") as server:
        tracked.env |= bucket_env | {"MLFLOW_TRACKING_URI": server.uri}
        said = tracked.execute("python", "-m", "pokebattle", "doctor").stdout
        assert (
            "BAD  artifacts  clients have to store artifacts in s3://team/root/" in said
            and "--artifacts-destination" in said
        )
        kernel = lab_kernel(tracked, tracked.write("far.ipynb", make_notebook("1")))
        try:
            kernel.run("1", "cell-0")
            log, message = tmp_path / "kernel.log", "artifacts cannot be delivered: clients have to"
            wait_for(log.read_text, message, 120, until=lambda text: message in text)
        finally:
            kernel.stop()
        tracked.client = mlflow.MlflowClient(server.uri)
        (run,) = tracked.runs("far")
        assert "far.ipynb" in run.data.tags["pokebattle.set_aside"] and run.info.status == "FINISHED"
