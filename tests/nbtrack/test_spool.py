"""What stays in the spool, and what does not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from nbtrack import health, spool
from nbtrack.executions import execution_folder, run_address
from nbtrack.files import read_json
from nbtrack.journal import Journal
from nbtrack.mlflow_rest import MlflowRest
from nbtrack.sender import sender
from nbtrack.settings import SPOOL_RESERVE


def put(root: Path, name: str, **files: str) -> None:
    folder = root / "executions" / name
    folder.mkdir(parents=True)
    for stem, text in files.items():
        (folder / {"run": "run.json", "journal": "journal.jsonl", "aside": "aside.jsonl"}[stem]).write_text(text)


def test_only_the_latest_executions_are_kept_and_all_that_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POKEBATTLE_STATE", str(tmp_path))
    monkeypatch.setattr(spool, "KEPT", 2)
    settled = json.dumps({"status": "FINISHED"})
    put(tmp_path, "20260101-waits", journal='{"kind": "start"}', run=json.dumps({"away": "no answer"}))
    put(tmp_path, "20260102-set-aside", run=settled, aside="{}")
    put(tmp_path, "20260103-settled", run=settled)
    put(tmp_path, "20260104-never-began")
    put(tmp_path, "20260105-settled", run=settled)
    put(tmp_path, "20260106-settled", run=settled)
    spool.forget_old()
    left = sorted(folder.name for folder in (tmp_path / "executions").iterdir())
    assert left == ["20260101-waits", "20260102-set-aside", "20260105-settled", "20260106-settled"]


def test_one_process_waits_for_a_server_that_is_away_and_others_leave(tracked: Any, write: Any) -> None:
    write("20260101-away", uri="http://127.0.0.1:9")
    command = [sys.executable, "-c", "from nbtrack import spool; spool.drain_until_empty()"]
    env = tracked.env | {"POKEBATTLE_LINGER": "600"}
    with subprocess.Popen(command, env=env) as first:
        try:
            record = execution_folder("20260101-away") / "run.json"  # is written under the lock that keeps others away
            wait_for(lambda: first.poll() is not None or "away" in read_json(record), "the first to look")
            assert first.poll() is None
            subprocess.run(command, env=env, check=True, timeout=30)
            assert first.poll() is None
        finally:
            first.kill()


def test_the_page_of_a_run_moves_with_the_own_server_and_with_no_other(tracked: Any, write: Any) -> None:
    """A server that is not this checkout's may have been at the default address; the own one comes up elsewhere."""
    moved = Path(tracked.env["POKEBATTLE_STATE"]) / "server.json"
    write("20260101-guest", uri=tracked.uri, local_server=True)
    assert set(spool.drain().values()) == {"delivered"}
    moved.write_text(json.dumps({"uri": tracked.uri}))
    write("20260102-own", uri="http://127.0.0.1:9", local_server=True)
    assert set(spool.drain().values()) == {"delivered"}
    moved.write_text('{"uri": "http://127.0.0.1:5055"}')
    guest, own = (
        run_address(read_json(execution_folder(name) / "run.json")) for name in ("20260101-guest", "20260102-own")
    )
    assert guest.startswith(f"{tracked.uri}/#/") and own.startswith("http://127.0.0.1:5055/#/")


def test_what_follows_a_broken_record_is_delivered(tracked: Any, write: Any) -> None:
    write("20260101-no-server", uri="sqlite:///x.db")
    write("20260102-odd-port", uri="http://127.0.0.1:port")
    write("20260103-no-number", {"kind": "cell_end", "cell": "first"})
    write("20260104-whole", {"kind": "params", "values": {"depth": 3}})
    took = {folder.name: result for folder, result in spool.drain(retry_refused=True).items()}
    assert took.pop("20260104-whole") == "delivered"
    assert [result.partition(" (")[0] for result in took.values()] == ["refused: it cannot be delivered"] * 3
    assert tracked.runs("20260104-whole")[0].data.params == {"depth": "3"}
    findings = {finding.text.split()[0]: finding for finding in health._waiting()}
    assert set(findings) == set(took) and {finding.subject for finding in findings.values()} == {"refused"}
    assert "expected http://host:port" in findings["20260101-no-server"].text
    assert spool.drain() == {}  # only on demand


def _is_locked(file: Path) -> bool:
    with spool.locked(file) as got:
        return not got


def test_what_the_server_fails_at_is_set_aside_after_a_minute_and_tried_again_on_demand(
    tracked: Any, write: Any, make_notebook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file and a folder of one name: MLflow answers 500; a name with a line feed: 404 without a reason."""
    cells = (
        "import mlflow\nmlflow.log_text('a', 'plots')\nmlflow.log_text('b', 'plots/b.txt')",
        "mlflow.log_text('c', 'odd\\nname.txt')\nmlflow.log_metric('after', 1.0)",
    )
    assert tracked.papermill(tracked.write("collide.ipynb", make_notebook(*cells))).returncode == 0
    (folder,) = tracked.executions()
    wait_for(lambda: not _is_locked(folder / "lock"), "the sender to leave")
    write("20990101-behind", {"kind": "params", "values": {"depth": 3}})
    assert sorted(result.partition(":")[0] for result in spool.drain().values()) == ["delivered", "held up"]
    (waits,) = health._waiting()
    assert "HTTP 500" in waits.text and "set aside" in waits.fix
    assert [result.partition(":")[0] for result in spool.drain().values()] == ["held up"], "it may pass"
    place = tracked.client.get_experiment_by_name("collide").experiment_id
    (run,) = tracked.client.search_runs([place])
    assert run.info.status == "RUNNING" and run.data.metrics["after"] == 1.0, "nothing waits behind it"
    monkeypatch.setattr(sender, "PERSISTENCE", 0.0)
    assert [result.partition(":")[0] for result in spool.drain().values()] == ["delivered"]
    (run,) = tracked.runs("collide")
    assert run.info.status == "FINISHED"
    assert run.data.tags["pokebattle.set_aside"].startswith("2: ")
    artifacts = {item.path for item in tracked.client.list_artifacts(run.info.run_id)}
    assert {"plots", "collide.ipynb", "cells.json"} <= artifacts
    (folder,) = (Path(tracked.env["POKEBATTLE_STATE"]) / "executions").glob("*/aside.jsonl")
    assert "2, the first" in (said := health._set_aside()[0]).text and "retries it" in said.fix
    assert [result.partition(":")[0] for result in spool.retry_aside().values()] == ["set aside"]
    root = run.info.artifact_uri.removeprefix("mlflow-artifacts:")
    MlflowRest(tracked.uri).request("DELETE", f"/api/2.0/mlflow-artifacts/artifacts{root}/plots")
    spool.retry_aside()
    assert tracked.download(run_id=run.info.run_id, artifact_path="plots/b.txt").read_text() == "b"
    assert len(folder.read_text().splitlines()) == 1


def test_three_executions_at_once_stay_below_the_limit_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may write its reserve beyond the limit, and checks what the others have written every MB."""
    monkeypatch.setenv("POKEBATTLE_STATE", str(tmp_path))
    monkeypatch.setenv("POKEBATTLE_SPOOL_MB", "8")
    journals = [Journal(execution_folder(f"20260101-{n}")) for n in range(3)]
    kept = [0, 0]
    for _ in range(30):
        for journal in journals:
            kept[0] += journal.append("output", text="x" * 300_000)
            kept[1] += journal.stage(b"y" * 300_000) is not None
    for journal in journals:
        assert journal.append("cell_end", cell=0, ok=True), "how it ended is always written down"
        journal.close()
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert 7 << 20 < size <= (8 << 20) + 3 * 2 * SPOOL_RESERVE
    dropped = [json.loads((journal.folder / "dropped.json").read_text()) for journal in journals]
    assert sum(one["events"] for one in dropped) == 180 - sum(kept)
