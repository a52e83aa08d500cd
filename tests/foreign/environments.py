"""The environment in use, the same without the product, and an MLflow server for both."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "nbtrack"))  # the guard of servers that tests start
HIDDEN = ("pokebattle", "_pokebattle", "_editable_impl_pokebattle")  # the product's names in site-packages


def without_product(folder: Path) -> Path:
    """Make an environment of all packages of this one but the product; return its prefix.

    Nothing is installed: it links to this environment's packages, whose versions are the lock's. What loads the product
    into kernels (``etc/ipython``), papermill and pytest (entry points) does not exist there.
    """
    environment = Path(sys.prefix)
    prefix = folder / "plain"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(prefix)], check=True)
    packages = next((prefix / "lib").glob("python*/site-packages"))
    for package in (environment / packages.relative_to(prefix)).iterdir():
        if not package.name.startswith(HIDDEN):
            (packages / package.name).symlink_to(package)
    for script in (environment / "bin").iterdir():
        if not (prefix / "bin" / script.name).exists() and script.is_file():
            _copy_script(script, prefix / "bin" / script.name, environment, prefix)
    for name in ("share", "etc"):
        _link_tree(environment / name, prefix / name)
    return prefix


def _copy_script(script: Path, to: Path, environment: Path, prefix: Path) -> None:
    start = f"#!{environment}/bin/python".encode()
    text = script.read_bytes()
    if text.startswith(start) and not (b"pokebattle" in text or b"nbtrack" in text):
        to.write_bytes(text.replace(start, f"#!{prefix}/bin/python".encode(), 1))
        shutil.copymode(script, to)


def _link_tree(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file() and file.name != "ipython_kernel_config.json":
            link = target / file.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)


def variables(prefix: Path, state: Path, uri: str, *modules: Path) -> dict[str, str]:
    """Return the variables for programs of an environment; the product, where it is there, tracks on ``uri``.

    ``modules`` are folders whose modules the programs find too.
    """
    ours = ("MLFLOW_", "POKEBATTLE_", "PYTEST_", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    programs = os.pathsep.join([str(prefix / "bin"), environment.get("PATH", os.defpath)])
    python_path = os.pathsep.join(filter(None, [*map(str, modules), environment.get("PYTHONPATH", "")]))
    return environment | {
        "PATH": programs,
        "PYTHONPATH": python_path,
        "MLFLOW_TRACKING_URI": uri,
        "POKEBATTLE_STATE": str(state),
        "POKEBATTLE_LINGER": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


@contextlib.contextmanager
def served() -> Iterator[tuple[Path, str]]:
    """Run an MLflow server on a store of its own; give a folder for the state and the server's address."""
    from guard import guarded

    from nbtrack import server
    from nbtrack.settings import server_record

    with tempfile.TemporaryDirectory(prefix="foreign-") as folder:
        os.environ["POKEBATTLE_STATE"] = folder
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        server.DEFAULT_URI = "http://127.0.0.1:0"
        server.tracking_uri = lambda: "http://127.0.0.1:9"  # none of the user's
        server.start(wait=False)
        with guarded(server_record()["pid"]):
            try:
                yield Path(folder), server.start()[0]
            finally:
                server.stop()
