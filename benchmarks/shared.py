"""How much load a team's server handles: runs per second from eight accounts at once, and the longest call.

`python benchmarks/shared.py` compares it with the local server of one person (SQLite, no accounts), side by side. A run
here consists of the same calls as a notebook's run: it is created, gets one batch of ten metric points and five
parameters, and is closed.
"""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nbtrack.mlflow_rest import MlflowRest
from nbtrack.team import settings
from nbtrack.team.accounts import AccountsClient
from nbtrack.team.settings import Login

ROUNDS, WRITERS, RUNS = 5, 8, 25
POINTS = [{"key": f"m{number}", "value": 1.0, "timestamp": 1, "step": 0} for number in range(10)]
PARAMS = {f"p{number}": number for number in range(5)}


def one_run(rest: MlflowRest, experiment: str, took: list[float]) -> None:
    """Write one run and append the seconds of each call to ``took``."""

    def timed(call: Callable[[], dict | None]) -> dict | None:
        began = time.perf_counter()
        answer = call()
        took.append(time.perf_counter() - began)
        return answer

    made = timed(lambda: rest.call("POST", "runs/create", experiment_id=experiment, start_time=1))
    run_id = made["run"]["info"]["run_id"]
    timed(lambda: rest.log_batch(run_id, POINTS, PARAMS))
    timed(lambda: rest.call("POST", "runs/update", run_id=run_id, status="FINISHED", end_time=2))


def crowd(clients: list[MlflowRest], experiment: str) -> tuple[float, float]:
    """Let all clients write at the same time; return runs per second and the seconds of the longest call."""
    took: list[float] = []

    def write(rest: MlflowRest) -> None:
        for _ in range(RUNS):
            one_run(rest, experiment, took)

    threads = [threading.Thread(target=write, args=(rest,)) for rest in clients]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == 3 * RUNS * len(clients), "a call failed"
    return RUNS * len(clients) / (time.perf_counter() - began), max(took)


@contextlib.contextmanager
def team(folder: Path, workers: int) -> Iterator[list[MlflowRest]]:
    """Start a team's server and yield its clients, each with an account of its own."""
    folder.mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "POSTGRES_"))}
    env |= {
        "POKEBATTLE_STATE": str(folder),
        "POKEBATTLE_ENV_FILE": str(folder / ".env"),
        "MLFLOW_PORT": str(free_port()),
        "MLFLOW_WORKERS": str(workers),
    }
    command = [sys.executable, "-m", "pokebattle", "shared"]
    try:
        subprocess.run([*command, "start"], env=env, check=True, stdout=subprocess.DEVNULL)
        uri = f"http://127.0.0.1:{env['MLFLOW_PORT']}"
        admin = AccountsClient(uri, settings.login(settings.read_env(folder / ".env"), "ADMIN"))
        people = [Login(f"person{number}", f"{number}-has-a-long-password") for number in range(WRITERS)]
        for person in people:
            admin.add(person, "team")
        yield [AccountsClient(uri, person) for person in people]
    finally:
        subprocess.run([*command, "stop"], env=env, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[list[MlflowRest]]:
    """Start one person's server and yield its clients."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    env |= {"POKEBATTLE_STATE": str(folder)}
    command = [sys.executable, "-m", "pokebattle", "server"]
    try:
        subprocess.run([*command, "start", "--own"], env=env, check=True, stdout=subprocess.DEVNULL)
        uri = json.loads((folder / "server.json").read_text())["uri"]
        yield [MlflowRest(uri) for _ in range(WRITERS)]
    finally:
        subprocess.run([*command, "stop"], env=env, check=True, stdout=subprocess.DEVNULL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as servers:
        kinds = {
            "team, 2 workers": servers.enter_context(team(Path(name) / "two", 2)),
            "team, 1 worker": servers.enter_context(team(Path(name) / "one", 1)),
            "one person's": servers.enter_context(alone(Path(name) / "alone")),
        }
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        stalls: dict[str, list[float]] = {kind: [] for kind in kinds}
        experiments = {kind: clients[0].experiment("crowd")["experiment_id"] for kind, clients in kinds.items()}
        for kind, clients in kinds.items():  # warm-up: an account's first call hashes its password
            crowd(clients, experiments[kind])
        for _ in range(ROUNDS):
            for kind, clients in kinds.items():
                rate, stall = crowd(clients, experiments[kind])
                rates[kind].append(rate)
                stalls[kind].append(stall)
        sys.stdout.write(f"{WRITERS} writers, {ROUNDS} rounds of {WRITERS * RUNS} runs\n")
        for kind in kinds:
            rate, low, high = statistics.median(rates[kind]), min(rates[kind]), max(rates[kind])
            figures = f"{rate:5.1f} runs/s [{low:.1f}, {high:.1f}], longest call {max(stalls[kind]):.2f} s"
            sys.stdout.write(f"{kind:<18} {figures}\n")


if __name__ == "__main__":
    main()
