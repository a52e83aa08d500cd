"""What stays in the spool, and what does not."""

import json
from pathlib import Path

import pytest

from pokebattle.tracking.shipping import spool


def put(root: Path, name: str, **files: str) -> None:
    folder = root / "executions" / name
    folder.mkdir(parents=True)
    for stem, text in files.items():
        (folder / {"run": "run.json", "journal": "journal.jsonl", "aside": "aside.jsonl"}[stem]).write_text(text)


def test_only_the_latest_executions_are_kept_and_all_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
