"""What all tests share."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kernel_ports import reserve_ports

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a script: tests interrupt programs
    signal.signal(signal.SIGINT, signal.default_int_handler)

reserve_ports()

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def verb() -> Callable[..., Result]:
    """`verb("gate", "3")` runs `pokebattle gate 3` in this process; an error that is not for the user is raised."""
    return _verb


def _verb(*words: str) -> Result:
    from pokebattle.cli import main

    return CliRunner(catch_exceptions=False).invoke(main, words)


@pytest.fixture(scope="session")
def require() -> Callable[[str], str]:
    """`require("node")` gives the path of a program, and skips the test without it; under CI the test fails."""
    return _require


def _require(program: str) -> str:
    beside = str(Path(sys.executable).parent)
    path = shutil.which(program, path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))
    if path:
        return path
    missing = f"{program} is not installed"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def installed_engine() -> None:
    """Install the battle engine once; without Node or npm the test is skipped, under CI it fails."""
    from pokebattle import engine

    try:
        engine.install()
    except engine.EngineError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
