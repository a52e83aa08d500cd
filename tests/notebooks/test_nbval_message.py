"""What nbval's failure says about stored and new outputs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat


def test_a_failure_says_which_output_is_stored_and_how_to_store_the_new_one(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "notebooks" / "conftest.py", tmp_path)
    stored = nbformat.v4.new_output("execute_result", {"text/plain": "3"}, execution_count=1)
    cell = nbformat.v4.new_code_cell("1 + 1", outputs=[stored], execution_count=1)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), tmp_path / "sum.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "sum.ipynb"],
        cwd=tmp_path,
        env=os.environ | {"POKEBATTLE_TRACKING": "off"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "'3' == '2'" in done.stdout
    assert "reference_output is the stored output" in done.stdout and "`make reference`" in done.stdout
