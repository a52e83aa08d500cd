"""A file is replaced as a whole or not at all."""

from pathlib import Path

import pytest

from nbtrack.files import replacing


def test_a_file_is_replaced_with_the_named_permissions(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("old")
    with replacing(file, 0o600, sync=True) as stream:
        stream.write(b"new")
        assert file.read_text() == "old"
    assert file.read_text() == "new" and file.stat().st_mode & 0o777 == 0o600


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("old")
    with pytest.raises(OSError, match="full"), replacing(file) as stream:
        stream.write(b"new")
        raise OSError("the disk is full")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
