"""Nothing that a notebook logs is lost or doubled, whatever happens to the server, the network or the sender.

Every row is a fault and runs real papermill processes; ``chaos.py`` repeats all rows with other draws.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import mlflow
import nbformat
import pytest
from faults import FaultProxy, Plan, Server, compare, database_away, environment

from nbtrack.kernel.execution import BUSIEST, FIRST, PAUSE, RESTART
from pokebattle.paths import state_dir

BIN = Path(sys.executable).parent
BESIDE = Path(__file__).with_name("beside.py")
PATIENCE = 240.0  # seconds that a notebook may take
STRIKES = 10.0  # seconds that a fault waits for a request that it strikes
LOCKED = 21.0  # seconds after which a server whose database is away says so
DENIED = "notes/n.txt"  # an artifact of every plan
DELAY = 0.5  # seconds that a call may delay its cell on a machine with a core to spare, except log_model
REQUESTS = 4  # that plain mlflow awaits within one such call, at most


class Case:
    """Notebooks in one folder with one state, executed by papermill or in Lab, and a proxy before a real server.

    Parameters
    ----------
    folder : Path
        Empty; its name begins the notebooks' names.
    uri : str
        The real server.
    database : Path
        Its SQLite file.
    seed : int
    notebooks : int
    models : bool
        Every notebook logs a model.
    pause : float
        Seconds between two calls of a notebook.
    server : Server, optional
        The notebooks go to this one, past the proxy, because it may be killed.
    console : bool
        The notebooks are executed as in JupyterLab, each with a console beside it that uses its kernel.
    """

    def __init__(
        self,
        folder: Path,
        uri: str,
        database: Path,
        seed: int,
        notebooks: int = 1,
        models: bool = False,
        pause: float = 0.05,
        server: Server | None = None,
        console: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.state, self.database, self.server = folder, folder / "state", database, server
        self.rng, self.pause, self.console = random.Random(seed), pause, console
        self.proxy = FaultProxy(uri, seed)
        self.client = mlflow.MlflowClient(server.uri if server else uri)
        address = server.uri if server else self.proxy.uri
        self.env = environment() | {"MLFLOW_TRACKING_URI": address, "POKEBATTLE_STATE": str(self.state)}
        unique = f"{folder.name}-{os.urandom(3).hex()}"
        self.plans = [Plan(seed * 100 + n, f"{unique}-{n}", folder, models) for n in range(notebooks)]
        self.problems: list[str] = []  # deviations that are not on the server
        self.kills = self.strikes = 0
        self.excused = 0.0
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.proxy.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.proxy.stop()
        for pid in _processes("environ", f"\0POKEBATTLE_STATE={self.state}\0"):
            _kill(pid)
        for process in self._running.values():
            process.wait()

    def begin(self, *plans: Plan) -> None:
        """Start to execute these notebooks, all without any."""
        for plan in plans or self.plans:
            nbformat.write(plan.notebook(self.pause), self.folder / f"{plan.stem}.ipynb")
            path = f"{plan.stem}.ipynb"
            papermill = [BIN / "papermill", path, f"{plan.stem}.out.ipynb", "--no-progress-bar"]
            command = [sys.executable, BESIDE, path] if self.console else papermill
            mine = self.env | {"FAULTS_NOTEBOOK": plan.stem}  # the sender inherits it: so it is known whose it is
            with (self.folder / f"{plan.stem}.log").open("wb") as log:
                self._running[plan.stem] = subprocess.Popen(command, cwd=self.folder, env=mine, stdout=log, stderr=log)

    def answer_late(self, seconds: float) -> None:
        """Let a server that is well answer so much later: calls that await it last longer then, as in plain mlflow."""
        self.excused, self.proxy.delay = REQUESTS * seconds, seconds
        self.proxy.mode = "slow"

    def reach(self, share: float, plan: Plan | None = None) -> None:
        """Wait until the notebook has made this share of its calls; 1.5 is five seconds after its end."""
        plan = plan or self.plans[0]
        process, deadline = self._running[plan.stem], time.monotonic() + PATIENCE
        while process.poll() is None and (share > 1 or plan.made() < share * len(plan.calls)):
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        time.sleep(max(0.0, share - 1) * 10)  # how long a fault outlasts the notebook is what is drawn

    def end(self, *plans: Plan) -> None:
        """Wait until the notebooks have ended; what is not exit code 0 is a problem."""
        deadline = time.monotonic() + PATIENCE
        for plan in plans or self.plans:
            process = self._running[plan.stem]
            code: int | str
            try:
                code = process.wait(max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                code = f"nothing within {PATIENCE:.0f} s"
            if code:
                last = (self.folder / f"{plan.stem}.log").read_text(errors="replace").splitlines()[-20:]
                self.problems.append(f"wrong: the notebook ended with {code}: {last}")

    def ended(self, plan: Plan) -> bool:
        """Return whether a notebook has ended."""
        return self._running[plan.stem].poll() is not None

    def start_sync(self) -> subprocess.Popen[bytes]:
        """Start ``python -m nbtrack sync``."""
        command = [sys.executable, "-m", "pokebattle", "sync"]
        with (self.folder / "sync.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=log, stderr=log)

    def sync(self, patience: float = 90.0) -> None:
        """Repeat it until it exits with 0; it is a problem when it does not."""
        deadline = time.monotonic() + patience
        while True:
            process = self.start_sync()
            try:
                process.wait(max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.returncode == 0:
                return
            log = (self.folder / "sync.log").read_text(errors="replace")
            if time.monotonic() > deadline or "No such command 'sync'" in log:
                self.problems.append(f"lost: sync ended with {process.returncode}: {log.splitlines()[-3:]}")
                return
            time.sleep(0.5)

    def kill_senders(self, plan: Plan | None = None) -> bool:
        """Kill the senders of a notebook (of all) with -9; return whether there was one."""
        pids = _processes("cmdline", "nbtrack.sender.process", str(self.state / "executions"))
        if plan:
            pids &= _processes("environ", f"\0FAULTS_NOTEBOOK={plan.stem}\0")
        for pid in pids:
            _kill(pid)
        if pids and not self.kills:  # the first question after it waits for the replacement
            self.excused += RESTART
        self.kills += len(pids)
        return bool(pids)

    def behind(self, plan: Plan) -> bool:
        """Return whether something that the notebook has logged until now is not on the server yet."""
        calls = None if self.ended(plan) else plan.made()
        return any(
            not deviation.startswith("doubled") for deviation in compare(self.client, plan, plan.stem, calls=calls)
        )

    def deviations(self) -> list[str]:
        """Return everything that is not as planned, of all notebooks."""
        return self.problems + [deviation for plan in self.plans for deviation in compare(self.client, plan, plan.stem)]

    def relieve(self) -> None:
        """End the proxy's fault once it has struck; it is a problem when it did nothing.

        Refusals are not counted: they have struck when the server has not got what was logged meanwhile.
        """
        mode, deadline = self.proxy.mode, time.monotonic() + STRIKES
        while not (struck := self.struck(mode)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.proxy.mode = "pass"
        self.strikes += struck
        if not struck:
            self.problems.append(f"wrong: {mode} did not happen")

    def struck(self, mode: str) -> int:
        """Return how often a fault of the proxy has struck; of refusals, how many notebooks they keep behind."""
        return sum(map(self.behind, self.plans)) if mode == "refuse" else self.proxy.struck[mode]

    def longest(self) -> dict[str, float]:
        """Return the longest delay of each kind of call, over all notebooks."""
        each = [item for plan in self.plans for item in plan.longest().items()]
        return {kind: max(seconds for other, seconds in each if other == kind) for kind, _ in each}


def _processes(file: str, *words: str) -> set[int]:
    """Return the processes whose file in /proc contains all these words."""
    pids = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            content = b"\0" + (folder / file).read_bytes()
            if all(word.encode() in content for word in words):
                pids.add(int(folder.name))
    return pids - {os.getpid()}


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# -- the matrix ---------------------------------------------------------------------------------------


def no_fault(case: Case) -> None:
    """Nothing happens."""
    case.begin()
    case.end()


def from_the_start(mode: str) -> Callable[[Case], None]:
    """Return the fault that is there before the notebook begins and goes when it has ended."""

    def run(case: Case) -> None:
        case.excused = FIRST if mode == "hang" else case.excused  # plain mlflow waits for minutes
        case.proxy.mode = mode
        case.begin()
        case.end()
        case.reach(1 + case.rng.uniform(0, 0.4))
        case.relieve()

    return run


def in_the_middle(mode: str, share: float = 1.0) -> Callable[[Case], None]:
    """Return the fault that comes while the notebook logs and goes before it has ended, or after that."""

    def run(case: Case) -> None:
        case.excused = PAUSE if mode == "hang" else case.excused
        begin = case.rng.uniform(0.1, 0.5)
        case.begin()
        case.reach(begin)
        case.proxy.share, case.proxy.mode = share, mode
        case.reach(case.rng.choice([begin + case.rng.uniform(0.2, 0.4), 1 + case.rng.uniform(0, 0.4)]))
        case.relieve()
        case.end()

    return run


def at_random(mode: str) -> Callable[[Case], None]:
    """Return the fault that strikes 30 % of all requests until some seconds after the notebook's end."""

    def run(case: Case) -> None:
        case.proxy.share, case.proxy.mode = 0.3, mode
        case.begin()
        case.end()
        case.reach(1.4)
        case.relieve()

    return run


def late_throughout(case: Case) -> None:
    """The server answers everything, and each time 0.4 s later than it could."""
    case.answer_late(0.4)
    from_the_start("slow")(case)


def slow(case: Case) -> None:
    """The server answers everything, and each time 2 s later than it could: a model takes some forty requests."""
    case.answer_late(2.0)
    from_the_start("slow")(case)


def item_denied(case: Case) -> None:
    """The server denies one artifact, and takes everything else; later it takes that too."""
    case.proxy.paths, case.proxy.mode = DENIED, "denied"
    case.begin()
    case.end()
    deadline = time.monotonic() + PATIENCE
    while len(deviations := case.deviations()) > 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    if [line.partition(":")[0] for line in deviations] != ["lost"] or DENIED not in deviations[0]:
        case.problems.append(f"wrong: only {DENIED} was denied, and there is {deviations}")
    case.relieve()


def database_locked(case: Case) -> None:
    """The server is there, its database is not: it keeps requests waiting and then fails them."""
    case.excused = LOCKED
    case.begin()
    case.reach(case.rng.uniform(0.1, 0.6))
    began = time.monotonic()
    with database_away(case.database):
        case.end()
        time.sleep(max(0.0, began + LOCKED - time.monotonic()))  # MLflow's own limit is passed
        case.strikes = case.struck("failed")


def server_killed(case: Case) -> None:
    """The server is killed with -9 and comes up again at the same address on the same store."""
    assert case.server
    case.begin()
    case.reach(case.rng.uniform(0.2, 0.7))
    case.server.kill()
    made = case.plans[0].made()
    case.reach(case.rng.uniform(0.8, 1.2))
    case.strikes = case.plans[0].made() - made  # calls that no server can have heard of
    case.server.start()
    case.end()


def sender_killed(case: Case) -> None:
    """The sender is killed with -9 at a few moments, the last of them after the notebook's end."""
    case.answer_late(0.2)
    case.begin()
    for share in [*sorted(case.rng.uniform(0.02, 0.98) for _ in range(2)), 1 + case.rng.uniform(0, 0.1)]:
        case.reach(share)
        case.strikes += case.kill_senders()
    case.proxy.mode = "pass"
    case.end()


def synced_by_two(case: Case) -> None:
    """Two people deliver at the same time."""
    from_the_start("refuse")(case)
    for process in [case.start_sync(), case.start_sync()]:
        process.wait(90)


def synced_twice(case: Case) -> None:
    """What has been delivered is delivered again."""
    from_the_start("refuse")(case)
    case.sync()
    case.problems += [f"after the first sync: {deviation}" for deviation in case.deviations()]
    case.sync()


@dataclass(frozen=True)
class Row:
    """A fault and what it needs: how many notebooks at once, a server of its own, a model, a console beside it.

    The short matrix, which is part of `make test`, leaves out what is ``long`` or much like another row.
    """

    fault: Callable[[Case], None]
    notebooks: int = 1
    own_server: bool = False
    model: bool = False
    long: bool = False
    console: bool = False


ROWS = {
    "none": Row(no_fault, model=True),
    "refused-from-start": Row(from_the_start("refuse"), model=True, long=True),
    "refused-in-the-middle": Row(in_the_middle("refuse"), model=True),
    "hung-from-start": Row(from_the_start("hang"), long=True),
    "hung-in-the-middle": Row(in_the_middle("hang")),
    "unavailable": Row(in_the_middle("unavailable")),
    "unauthorized-from-start": Row(from_the_start("unauthorized")),
    "denied-in-the-middle": Row(in_the_middle("denied"), long=True),
    "slow": Row(slow, long=True),
    "late-throughout": Row(late_throughout, long=True),
    "item-denied": Row(item_denied),
    "answers-lost": Row(at_random("lose-answer")),
    "committed-then-503": Row(at_random("commit-then-503"), long=True),
    "answered-twice": Row(at_random("answer-twice"), long=True),
    "requests-cut": Row(at_random("cut"), long=True),
    "database-away": Row(database_locked, long=True),
    "server-killed": Row(server_killed, own_server=True),
    "two-kernels": Row(in_the_middle("refuse"), notebooks=2),
    "sender-killed": Row(sender_killed),
    "console-beside": Row(in_the_middle("refuse"), console=True),
    "console-and-slow": Row(late_throughout, long=True, console=True),
    "console-and-denied": Row(item_denied, long=True, console=True),
    "synced-by-two": Row(synced_by_two, long=True),
    "synced-twice": Row(synced_twice, long=True),
}


@dataclass
class Outcome:
    """What became of a row: deviations in words, the longest delay of each kind of call, what the fault struck."""

    deviations: list[str]
    longest: dict[str, float]
    executions: int = 1
    strikes: int = 0  # requests, calls, notebooks or senders that the fault struck
    kills: int = 0  # senders
    excused: float = 0.0  # seconds that such a call may wait: for a server that is up, or for the sender's replacement

    @property
    def delay(self) -> float:
        """The longest delay by a call that is to return at once, beyond what is excused."""
        longest = max([seconds for kind, seconds in self.longest.items() if kind != "log_model"], default=0.0)
        return max(0.0, longest - self.excused)


def allowed() -> float:
    """Return the seconds that a call may delay its cell now: where many programs wait for a core, all take longer."""
    return DELAY * min(max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), BUSIEST)


def execute(name: str, folder: Path, uri: str, database: Path, seed: int, models: bool | None = None) -> Outcome:
    """Execute a row on a real server, deliver what waits and compare.

    Parameters
    ----------
    name : str
        One of ``ROWS``.
    folder : Path
        For this row alone.
    uri, database
        The real server and its SQLite file.
    seed : int
    models : bool, optional
        Whether the notebooks log models; without it as the row says.
    """
    row = ROWS[name]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(folder / "server")) if row.own_server else None
        models = row.model if models is None else models
        case = stack.enter_context(
            Case(folder, uri, database, seed, row.notebooks, models, server=server, console=row.console)
        )
        row.fault(case)
        case.sync()
        if (case.strikes > 0) == (row.fault is no_fault):
            case.problems.append(f"wrong: the fault struck {case.strikes} times")
        return Outcome(case.deviations(), case.longest(), row.notebooks, case.strikes, case.kills, case.excused)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.long])
def test_nothing_is_lost_or_doubled_and_no_cell_waits(name: str, tmp_path: Path, mlflow_server: str) -> None:
    database = state_dir() / "server" / "mlflow.db"
    seed = 1 + [*ROWS].index(name)
    outcome = execute(name, tmp_path / name, mlflow_server, database, seed)
    if outcome.delay > allowed() and outcome.deviations == []:  # a slow disk delays once, a wait comes again
        outcome = execute(name, tmp_path / "again", mlflow_server, database, 1000 + seed)
    assert outcome.deviations == []
    assert outcome.delay <= allowed(), f"{outcome.longest} at load {os.getloadavg()[0]} on {os.cpu_count()} cores"
    assert (outcome.strikes > 0) == (name != "none")
    assert (outcome.kills > 0) == (name == "sender-killed")
