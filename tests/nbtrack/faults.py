"""What the fault tests are made of: faults, notebooks whose content the driver knows, and the comparison.

Nothing here reads what the product writes down. What a notebook logged is known from its plan, what arrived is asked
from the real server, and how long a cell was delayed was measured by the cell itself.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import mlflow
import nbformat
from guard import guarded
from mlflow.entities import Run
from waiting import wait_for

from nbtrack import server

PARENT = "mlflow.parentRunId"
MODES = {
    "pass",
    "refuse",
    "hang",
    "unavailable",
    "unauthorized",
    "denied",
    "slow",
    "lose-answer",
    "cut",
    "commit-then-503",
    "answer-twice",
}
ANSWERS = {
    "unavailable": ("503 Service Unavailable", "TEMPORARILY_UNAVAILABLE"),
    "unauthorized": ("401 Unauthorized", "UNAUTHENTICATED"),
    "denied": ("403 Forbidden", "PERMISSION_DENIED"),
}
# What the product adds to a run by itself, beside the names that a plan expects.
AUTOMATIC = ("cell/", "fit/LogisticRegression/", "fit/LinearRegression/", "LogisticRegression.", "LinearRegression.")


# -- faults ------------------------------------------------------------------------------------------


class FaultProxy:
    """An HTTP/1.1 proxy on a fixed port in front of a real server, with faults that are switched while it runs.

    Parameters
    ----------
    upstream : str
        Address of the real server.
    seed : int
        Of the draw that picks the faulty requests when ``share`` is below 1.

    Attributes
    ----------
    mode : str
        ``pass``; ``refuse`` (no server listens, connections are cut); ``hang`` (reads, never answers, never forwards);
        ``unavailable``, ``unauthorized``, ``denied`` (503, 401, 403, not forwarded); ``slow`` (forwards after
        ``delay`` seconds); ``lose-answer`` (forwards, waits for the answer and closes without passing it on);
        ``commit-then-503`` (the same, and answers 503); ``answer-twice`` (passes the answer on two times); ``cut``
        (closes in the middle of the request's body, not forwarded). A change acts at once, also on requests that wait.
    share : float
        Share of the requests that the fault strikes; ``refuse`` strikes all.
    paths : str
        Only requests whose path contains this are struck; ``refuse`` strikes all.
    answer_500 : bytes
        Requests whose body contains this are answered by 500 and not forwarded, in mode ``pass`` too.
    requests, struck : Counter
        Requests by (method, path), and faults by mode; ``failed`` are the real server's own answers of 500 and above.
        Who is refused is not seen here, except the connections that are cut when it begins.
    """

    def __init__(self, upstream: str, seed: int = 0) -> None:
        parts = urllib.parse.urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 0)
        self.share, self.delay, self.paths = 1.0, 5.0, ""
        self.answer_500 = b""
        self.requests: Counter[tuple[str, str]] = Counter()
        self.struck: Counter[str] = Counter()
        self._mode, self._rng = "pass", random.Random(seed)
        self._socket = _bound(0)
        self.port: int = self._socket.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._await(self._listen())

    def stop(self) -> None:
        """Close every connection and the port."""
        self._await(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._socket.close()

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        assert mode in MODES, mode
        self._await(self._change(mode))

    def count(self, method: str, prefix: str) -> int:
        """Return how many requests came with this method, for paths that begin like this."""
        return sum(n for (verb, path), n in list(self.requests.items()) if verb == method and path.startswith(prefix))

    def _await(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._socket)

    async def _end(self) -> None:
        if self._server:
            self._server.close()
        tasks = [task for task in self._clients.values() if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _change(self, mode: str) -> None:
        before, self._mode = self._mode, mode
        if mode == before:
            return
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if mode == "refuse" and self._server:
            self._server.close()
            self._socket = _bound(self.port)  # bound but not listening: it refuses, and no other process takes the port
            for writer in self._clients:
                writer.transport.abort()
        elif before == "refuse":
            await self._listen()

    def _decide(self, path: str) -> str:
        mode = self._mode if self._rng.random() < self.share and self.paths in path else "pass"
        if mode != "pass":
            self.struck[mode] += 1
        return mode

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients[writer] = asyncio.current_task()
        upstream = _Upstream(*self._upstream)
        try:
            if self._mode == "refuse":  # was in the queue of the socket that has been closed
                writer.transport.abort()
                return
            with contextlib.suppress(OSError, EOFError):
                while await self._relay(reader, writer, upstream):
                    pass
        except asyncio.CancelledError:  # the proxy is stopped; asyncio would print a traceback for every connection
            return
        finally:
            del self._clients[writer]
            writer.close()
            upstream.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: "_Upstream") -> bool:
        """Handle one request; return whether the connection stays open."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path = head.decode("latin-1").split(" ", 2)[:2]
        self.requests[method, path.partition("?")[0]] += 1
        fields = _fields(head)
        mode, body = self._decide(path), _body(reader, fields)
        while mode == "slow":
            try:
                await asyncio.wait_for(self._changed.wait(), self.delay)
            except TimeoutError:
                mode = "pass"
            else:
                mode = self._decide(path)
        if mode == "cut":
            if length := int(fields.get("content-length", 0)):
                await reader.readexactly(length // 2)
            elif "chunked" in fields.get("transfer-encoding", ""):
                await reader.readline()
        elif mode in {"hang", *ANSWERS}:
            changed = self._changed
            async for _ in body:
                pass
            if mode in ANSWERS:
                writer.write(_answer(*ANSWERS[mode]))
                await writer.drain()
                return True
            await changed.wait()
        elif self.answer_500 and self.answer_500 in (whole := b"".join([piece async for piece in body])):
            writer.write(_answer("500 Internal Server Error", ""))
            await writer.drain()
            return True
        else:
            body = _pieces(whole) if self.answer_500 else body
            client = None if mode in {"lose-answer", "commit-then-503"} else _Twice(writer, mode == "answer-twice")
            kept, status = await upstream.forward(method, head, body, client)
            if status >= 500:
                self.struck["failed"] += 1
            if client:
                await client.end()
            elif mode == "commit-then-503":
                writer.write(_answer(*ANSWERS["unavailable"]))
                await writer.drain()
                return True
            return kept
        writer.transport.abort()
        return False


class _Twice:
    """A client who may be given the whole answer a second time."""

    def __init__(self, writer: asyncio.StreamWriter, twice: bool) -> None:
        self.writer, self.twice, self.received = writer, twice, b""

    async def write(self, piece: bytes) -> None:
        self.received += piece if self.twice else b""
        self.writer.write(piece)
        await self.writer.drain()

    async def end(self) -> None:
        self.writer.write(self.received)
        await self.writer.drain()


class _Upstream:
    """One client connection's own connection to the real server."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.used = 0.0

    def close(self) -> None:
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None

    async def forward(
        self, method: str, head: bytes, body: AsyncIterator[bytes], client: _Twice | None
    ) -> tuple[bool, int]:
        """Forward a request, and the answer to a client; return whether the connection stays usable, and the status."""
        if self.reader is None or self.reader.at_eof() or time.monotonic() - self.used > 2:  # uvicorn closes after 5
            self.close()
            self.reader, self.writer = await asyncio.open_connection(*self.address)
        assert self.reader is not None and self.writer is not None
        self.writer.write(head)
        async for piece in body:
            self.writer.write(piece)
            await self.writer.drain()
        answer = await self.reader.readuntil(b"\r\n\r\n")
        status, fields = int(answer.split(b" ", 2)[1]), _fields(answer)
        empty = method == "HEAD" or status in {204, 304}
        ends = not empty and not {"content-length", "transfer-encoding"} & set(fields)
        content = _body(self.reader, {} if empty else fields, to_end=ends)
        if client is not None:
            await client.write(answer)
        async for piece in content:
            if client is not None:
                await client.write(piece)
        self.used = time.monotonic()
        if client is None or ends or "close" in {fields.get("connection", ""), _fields(head).get("connection", "")}:
            self.close()
            return False, status
        return True, status


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _fields(head: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip().lower() for name, _, value in pairs if name}


async def _body(reader: asyncio.StreamReader, fields: dict[str, str], to_end: bool = False) -> AsyncIterator[bytes]:
    """Yield a message's body as it is on the wire, chunks with their sizes."""
    if "chunked" in fields.get("transfer-encoding", ""):
        while True:
            line = await reader.readuntil(b"\r\n")
            yield line
            left = int(line.partition(b";")[0], 16) + 2
            while left:
                piece = await reader.readexactly(min(left, 65536))
                left -= len(piece)
                yield piece
            if int(line.partition(b";")[0], 16) == 0:
                return
    left = int(fields.get("content-length", 0))
    while left or to_end:
        piece = await reader.read(65536 if to_end else min(left, 65536))
        if not piece and to_end:
            return
        if not piece:
            raise EOFError
        left -= 0 if to_end else len(piece)
        yield piece


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _answer(status: str, code: str) -> bytes:
    body = json.dumps({"error_code": code, "message": "the fault proxy is at work"}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextlib.contextmanager
def database_away(sqlite_file: Path) -> Iterator[None]:
    """Lock a server's database: its requests wait for 20 s, MLflow's limit, and fail with 503 after that."""
    connection = sqlite3.connect(sqlite_file, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()  # rolls back


class Server:
    """A real MLflow server on a fixed port and a store of its own, which may be killed and started again."""

    options: tuple[str, ...] = ()  # on artifacts, instead of a folder of its own
    program: tuple[str, ...] = ()  # more options

    def __init__(self, folder: Path) -> None:
        self.folder, self.database = folder, folder / "mlflow.db"
        self.env: dict[str, str] = {}  # more variables
        (folder / "artifacts").mkdir(parents=True)
        self.uri = f"http://127.0.0.1:{_fixed_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            self.uri.rpartition(":")[2],
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{self.database}",
            *(self.options or ("--artifacts-destination", str(self.folder / "artifacts"))),
            *self.program,
        ]
        env = environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=env | self.env, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
            )
        self._guard.enter_context(guarded(self._process.pid))
        process = self._process
        what = f"a server that answers; its log is {self.folder / 'server.log'}"
        try:
            wait_for(lambda: process.poll() is not None or server.answers(self.uri), what, 120)
            assert process.poll() is None, f"expected {what}"
        except BaseException:  # an interrupted test run leaves no server behind either
            self.kill()
            raise

    def kill(self) -> None:
        """End it with SIGKILL, its workers included."""
        if self._process:
            self._guard.close()
            self._process.wait()
            self._process = None


def environment() -> dict[str, str]:
    """Return the environment without what concerns tracking."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "POKEBATTLE_"))}
    mine.pop("PYTEST_CURRENT_TEST", None)
    return mine


def _fixed_port() -> int:
    """Return a free port below those of outgoing connections: no other process takes it while the server is down."""
    while True:
        port = random.randrange(20000, 30000)
        with contextlib.suppress(OSError), _bound(port):
            return port


# -- plans -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One ``mlflow`` call of a notebook: its kind, its code, and what must be on the server because of it.

    An effect is ``(what, run, key, value)``; ``run`` is empty for the execution's own run.
    """

    kind: str
    code: str
    effects: tuple[tuple[str, str, str, Any], ...] = ()


class Expected:
    """What calls must have left on the server."""

    def __init__(self, calls: list[Call]) -> None:
        self.params: dict[str, dict[str, str]] = defaultdict(dict)
        self.tags: dict[str, dict[str, str]] = defaultdict(dict)
        self.points: dict[str, dict[str, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
        self.artifacts: dict[str, bytes] = {}
        self.children: list[str] = []
        self.model = False
        for what, run, key, value in (effect for call in calls for effect in call.effects):
            if what == "point":
                self.points[run][key].append(value)
            elif what == "artifact":
                self.artifacts[key] = value
            elif what == "child":
                self.children.append(run)
            elif what == "model":
                self.model = True
            else:
                getattr(self, f"{what}s")[run][key] = value


class Plan:
    """What one notebook logs.

    Parameters
    ----------
    seed : int
        Of the draw that makes keys, values and the order of the cells.
    stem : str
        Name of the notebook, unique on the server: it names the experiment and the registered model.
    folder : Path
        Where the file of delays is written.
    model : bool
        Log and register a tiny model too.
    """

    def __init__(self, seed: int, stem: str, folder: Path, model: bool = False) -> None:
        self.seed, self.stem, self.delays = seed, stem, folder.absolute() / f"{stem}.delays"
        self.registered = f"{stem}-model"
        rng = random.Random(seed)
        self.line = (rng.randint(1, 9), rng.randint(-9, 9))  # the model's prediction for x is line[0] * x + line[1]
        blocks = [self._values(rng), self._series(rng), self._children(rng), self._artifacts(rng), self._fit(rng)]
        if model:
            blocks.append(self._model())
        rng.shuffle(blocks)
        self.blocks = [*blocks, self._late(rng)]
        self.calls = [item for block in self.blocks for item in block if isinstance(item, Call)]
        self.cells = len(self.blocks) + 2

    @staticmethod
    def _point(run: str, key: str, value: float, step: int | None) -> Call:
        how = "" if step is None else f", step={step}"
        return Call(
            "log_metric",
            f"mlflow.log_metric({key!r}, float({str(value)!r}){how})",
            (("point", run, key, (step or 0, str(value))),),
        )

    def _values(self, rng: random.Random) -> list[Any]:
        drawn = [rng.randint(1, 99), rng.uniform(0, 1), "naïve · Wörter", "long " * rng.randint(50, 90), True]
        values = {f"p{n}": value for n, value in enumerate(rng.sample(drawn, rng.randint(3, 5)))}
        calls: list[Any] = [
            Call("log_param", f"mlflow.log_param({key!r}, {value!r})", (("param", "", key, str(value)),))
            for key, value in values.items()
        ]
        more = {"q0": rng.randint(1, 99), "q1": "word"}
        calls.append(Call("log_params", f"mlflow.log_params({more!r})", _each("param", more)))
        tags = {"stage": f"trial {rng.randint(1, 9)}", "owner": "Ash"}
        calls.append(Call("set_tags", f"mlflow.set_tags({tags!r})", _each("tag", tags)))
        calls.append(Call("set_tag", "mlflow.set_tag('phase', 'first')", (("tag", "", "phase", "first"),)))
        return calls

    def _series(self, rng: random.Random) -> list[Any]:
        calls: list[Any] = []
        for key in rng.sample(["loss", "accuracy", "val/loss"], rng.randint(1, 3)):
            steps = sorted(rng.sample(range(20), rng.randint(3, 6)))
            calls += [self._point("", key, rng.uniform(-1, 1), step) for step in steps]
        calls.append(self._point("", "diverged", float("nan"), 3))
        calls += [self._point("", "unstepped", rng.uniform(0, 1), None) for _ in range(3)]
        both = {"f1": rng.uniform(0, 1), "auc": rng.uniform(0, 1)}
        effects = tuple(("point", "", key, (7, str(value))) for key, value in both.items())
        calls.append(Call("log_metrics", f"mlflow.log_metrics({both!r}, step=7)", effects))
        return calls

    def _children(self, rng: random.Random) -> list[Any]:
        calls: list[Any] = []
        for name in ("first child", "second child")[: rng.randint(1, 2)]:
            width = rng.randint(1, 99)
            calls += [
                Call(
                    "start_run", f"with mlflow.start_run(run_name={name!r}, nested=True):", (("child", name, "", None),)
                ),
                Call("log_param", f"mlflow.log_param('width', {width})", (("param", name, "width", str(width)),)),
                *[self._point(name, "score", rng.uniform(0, 1), step) for step in range(rng.randint(2, 4))],
                Call("end_run", ""),
            ]
        return calls

    def _artifacts(self, rng: random.Random) -> list[Any]:
        text, blob = f"Pokémon {rng.random()}\n", f"{self.stem}.blob"
        contents = {"tree/a.txt": b"a", "tree/sub/b.txt": str(rng.random()).encode()}
        return [
            Call("log_text", f"mlflow.log_text({text!r}, 'notes/n.txt')", _each("artifact", {"notes/n.txt": text})),
            Call("log_text", "mlflow.log_text('old', 'twice.txt')", _each("artifact", {"twice.txt": "old"})),
            f"Path({blob!r}).write_bytes(random.Random({self.seed}).randbytes(200_000))",
            Call(
                "log_artifact",
                f"mlflow.log_artifact({blob!r}, 'binary')",
                (("artifact", "", f"binary/{blob}", random.Random(self.seed).randbytes(200_000)),),
            ),
            f"Path({blob!r}).write_bytes(b'overwritten after it was logged')",
            f"tree = Path('{self.stem}.tree')",
            "(tree / 'sub').mkdir(parents=True)",
            *[f"(tree / {path[5:]!r}).write_bytes({content!r})" for path, content in contents.items()],
            Call("log_artifacts", "mlflow.log_artifacts(tree, 'tree')", _each("artifact", contents)),
            "shutil.rmtree(tree)",
        ]

    def _fit(self, rng: random.Random) -> list[Any]:
        """A fit that the notebook does not log; the product does, as soon as the next call is written down."""
        self.penalty = round(rng.uniform(0.1, 9), 3)
        return [
            "from sklearn.linear_model import LogisticRegression",
            f"LogisticRegression(C={self.penalty}).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])",
        ]

    def _model(self) -> list[Any]:
        slope, offset = self.line
        ys = [slope * x + offset for x in range(4)]
        code = (
            "mlflow.sklearn.log_model(line, name='model', pip_requirements=['scikit-learn'], "
            f"registered_model_name={self.registered!r})"
        )
        return [
            "import mlflow.sklearn",
            "from sklearn.linear_model import LinearRegression",
            f"line = LinearRegression().fit([[0.0], [1.0], [2.0], [3.0]], {ys})",
            Call("log_model", code, (("model", "", "", None),)),
        ]

    def _late(self, rng: random.Random) -> list[Any]:
        return [
            Call("set_tag", "mlflow.set_tag('phase', 'second')", (("tag", "", "phase", "second"),)),
            Call("log_text", "mlflow.log_text('new', 'twice.txt')", _each("artifact", {"twice.txt": "new"})),
            *[self._point("", "late", rng.uniform(0, 1), step) for step in range(4)],
        ]

    def notebook(self, pause: float = 0.0) -> Any:
        """Return the notebook, which rests ``pause`` seconds after every call.

        What mlflow loads and asks git for at the first run of any process, tracked or not (0.26 s here, 0.7 s beside
        three more kernels), it does before the first call, and the time in which the thread stood in the queue for a
        processor is left out, so that the delays are those of tracking on a machine of any load.
        """
        helper = (
            "def now():\n"
            "    queue = Path('/proc/thread-self/schedstat')\n"
            "    return time.perf_counter() - (int(queue.read_text().split()[1]) / 1e9 if queue.exists() else 0)\n"
            "def note(kind, began):\n"
            "    seconds = now() - began\n"
            f"    with open({str(self.delays)!r}, 'a') as file:\n"
            "        file.write(f'{kind} {seconds:.6f}\\n')\n"
            f"    time.sleep({pause})\n"
            "from mlflow.tracking.context.registry import resolve_tags\n"
            "resolve_tags()\n"
            "mlflow.set_tags({})"  # what begins the run, which log_model does not
        )
        sources = ["import random\nimport shutil\nimport time\nfrom pathlib import Path\nimport mlflow", helper]
        sources += [_source(block) for block in self.blocks]
        cells = [
            nbformat.v4.new_code_cell(f"{source}\nprint('done {n}')", id=f"cell-{n}")
            for n, source in enumerate(sources)
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        return nbformat.v4.new_notebook(cells=cells, metadata=kernel)

    def made(self) -> int:
        """Return how many calls the notebook has made so far."""
        return self.delays.read_bytes().count(b"\n") if self.delays.exists() else 0

    def longest(self) -> dict[str, float]:
        """Return the longest delay of each kind of call."""
        longest: dict[str, float] = {}
        for line in self.delays.read_text().splitlines() if self.delays.exists() else []:
            kind, seconds = line.split()
            longest[kind] = max(longest.get(kind, 0.0), float(seconds))
        return longest


def _each(what: str, values: dict[str, Any]) -> tuple[tuple[str, str, str, Any], ...]:
    as_stored = (lambda v: v if isinstance(v, bytes) else v.encode()) if what == "artifact" else str
    return tuple((what, "", key, as_stored(value)) for key, value in values.items())


def _source(block: list[Any]) -> str:
    lines, indent = [], ""
    for item in block:
        if isinstance(item, str):
            lines.append(indent + item)
            continue
        lines.append(f"{indent}began = now()")
        if item.kind == "end_run":  # leaving the with statement is the call
            indent = ""
        else:
            lines.append(indent + item.code)
        if item.kind == "start_run":
            indent = "    "
        lines.append(f"{indent}note({item.kind!r}, began)")
    return "\n".join(lines)


# -- comparison --------------------------------------------------------------------------------------


def compare(
    client: mlflow.MlflowClient, plan: Plan, experiment: str, status: str = "FINISHED", calls: int | None = None
) -> list[str]:
    """Return every deviation of the real server's content from the plan.

    Parameters
    ----------
    client : MlflowClient
        On the server's own address.
    plan : Plan
    experiment : str
        The experiment that contains only this execution.
    status : str
        That the execution's run must have.
    calls : int, optional
        Only ask whether the first so many calls have arrived, while the notebook may still run.

    Returns
    -------
    list of str
        Each begins with ``lost``, ``doubled``, ``status`` or ``wrong``.
    """
    known = client.get_experiment_by_name(experiment)
    runs = client.search_runs([known.experiment_id], max_results=1000) if known else []
    top = [run for run in runs if PARENT not in run.data.tags and "pokebattle.execution" in run.data.tags]
    if known is None or not top:
        return [f"lost: the run of {experiment} ({len(runs)} other runs)"]
    top_run, whole, expected = top[0], calls is None, Expected(plan.calls[:calls])
    deviations = [f"doubled: {len(top)} runs of one execution"] if len(top) > 1 else []
    children: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.data.tags.get(PARENT) == top_run.info.run_id:
            children[run.info.run_name].append(run)
        elif run not in top:
            deviations.append(f"doubled: a run {run.info.run_name!r} ({run.info.status}) that nobody started")
    if whole:
        deviations += [
            f"doubled: a child {name!r} that nobody started" for name in set(children) - set(expected.children)
        ]
    for name in expected.children:
        if len(children[name]) != 1:
            deviations.append(f"{'doubled' if children[name] else 'lost'}: {len(children[name])} runs {name!r}")
    everything = [(run, "", status) for run in top]
    everything += [(run, name, "FINISHED") for name in expected.children for run in children[name]]
    for run, name, end in everything:
        deviations += _compare_values(client, run, name, expected, whole, end)
    for path, content in expected.artifacts.items():
        deviations += _compare_artifact(path, artifact(client, top_run, path), content)
    if whole:
        deviations += _compare_automatic(client, top_run, plan)
    if expected.model:
        deviations += _compare_model(client, top_run, plan)
    return deviations


def _compare_values(
    client: mlflow.MlflowClient, run: Run, name: str, expected: Expected, whole: bool, status: str
) -> list[str]:
    where, deviations = f"of {name!r}" if name else "of the run", []
    if whole and (run.info.status != status or run.info.end_time is None):
        deviations.append(f"status: {where[3:]} is {run.info.status} (end {run.info.end_time}), expected {status}")
    for what, wanted, got in (("param", expected.params, run.data.params), ("tag", expected.tags, run.data.tags)):
        for key, value in wanted[name].items():
            if key not in got:
                deviations.append(f"lost: {what} {key} {where}")
            elif got[key] != value and whole:
                deviations.append(f"wrong: {what} {key} {where} is {got[key]!r}, expected {value!r}")
    for key, points in expected.points[name].items():
        stored = Counter((m.step, str(m.value)) for m in client.get_metric_history(run.info.run_id, key))
        missing, more = Counter(points) - stored, stored - Counter(points)
        deviations += [f"lost: metric {key} {where} at (step, value) {point}" for point in missing.elements()]
        deviations += [f"doubled: metric {key} {where} at (step, value) {point}" for point in more.elements() if whole]
    if whole:
        for what, keys in (("param", run.data.params), ("metric", run.data.metrics)):
            planned = expected.params[name] if what == "param" else expected.points[name]
            extra = [key for key in keys if key not in planned and (name or not key.startswith(AUTOMATIC))]
            deviations += [f"doubled: {what} {key} {where} was not logged" for key in extra]
    return deviations


def artifact(client: mlflow.MlflowClient, run: Run, path: str) -> bytes | None:
    """Return an artifact's content, None when it is not there."""
    query = urllib.parse.urlencode({"run_uuid": run.info.run_id, "path": path})
    try:
        with urllib.request.urlopen(f"{client.tracking_uri}/get-artifact?{query}", timeout=30) as reply:
            return bytes(reply.read())
    except urllib.error.HTTPError:
        return None


def _compare_artifact(path: str, got: bytes | None, content: bytes) -> list[str]:
    if got is None:
        return [f"lost: artifact {path}"]
    if got != content:
        return [f"wrong: artifact {path} has {len(got)} bytes {got[:40]!r}, expected {len(content)} {content[:40]!r}"]
    return []


def _compare_automatic(client: mlflow.MlflowClient, run: Run, plan: Plan) -> list[str]:
    """Compare what is recorded automatically: the executed notebook, the cells' durations, the fit."""
    deviations = []
    if run.data.params.get("LogisticRegression.C") != str(plan.penalty):
        deviations.append(
            f"lost: the fit's C is {run.data.params.get('LogisticRegression.C')}, expected {plan.penalty}"
        )
    for key, steps in ("cell/seconds", [*range(1, plan.cells + 1)]), ("fit/LogisticRegression/seconds", [0]):
        got = sorted(point.step for point in client.get_metric_history(run.info.run_id, key))
        if got != steps:
            deviations.append(f"{'lost' if len(got) < len(steps) else 'doubled'}: steps of {key} are {got}")
    content = artifact(client, run, f"{plan.stem}.ipynb")
    if content is None:
        return [*deviations, f"lost: the executed notebook {plan.stem}.ipynb"]
    cells = [cell for cell in json.loads(content)["cells"] if cell["cell_type"] == "code"]
    executed = [cell for cell in cells if cell["execution_count"] is not None]
    if len(executed) != plan.cells:
        deviations.append(f"lost: {plan.stem}.ipynb has {len(executed)} executed cells, expected {plan.cells}")
    for number, cell in enumerate(executed):
        shown = "".join("".join(output.get("text", "")) for output in cell["outputs"])
        if shown.count(f"done {number}\n") != 1:
            deviations.append(f"wrong: cell {number} of {plan.stem}.ipynb shows {shown[-200:]!r}")
    return deviations


def _compare_model(client: mlflow.MlflowClient, run: Run, plan: Plan) -> list[str]:
    models = [m for m in client.search_logged_models([run.info.experiment_id]) if m.name == "model"]
    if len(models) != 1:
        return [f"{'doubled' if models else 'lost'}: {len(models)} logged models {[m.model_id for m in models]}"]
    (model,), deviations = models, []
    if str(model.status) not in {"READY", "LoggedModelStatus.READY"} or model.source_run_id != run.info.run_id:
        deviations.append(f"status: model {model.model_id} is {model.status} of run {model.source_run_id}")
    outputs = [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]
    if outputs != [model.model_id]:
        deviations.append(f"{'doubled' if len(outputs) > 1 else 'lost'}: outputs of the run are {outputs}")
    versions = client.search_model_versions(f"name = '{plan.registered}'")
    registered = {
        (one["name"], str(one["version"])) for one in json.loads(model.tags.get("mlflow.modelVersions", "[]"))
    }
    if registered != {(one.name, str(one.version)) for one in versions}:
        deviations.append(f"lost: model {model.model_id} is registered as {sorted(registered)}, its tag says")
    if len(versions) != 1:
        return [*deviations, f"{'doubled' if versions else 'lost'}: {len(versions)} versions of {plan.registered}"]
    (version,) = versions
    if version.run_id != run.info.run_id or model.model_id not in {version.model_id, version.source.split("/")[-1]}:
        deviations.append(f"wrong: version {version.version} is of run {version.run_id}, source {version.source}")
    try:
        predicted = _predict(client.tracking_uri, f"models:/{plan.registered}/{version.version}")
    except Exception as error:  # whatever keeps it from loading is the finding
        return [*deviations, f"lost: {plan.registered} does not load: {type(error).__name__}: {error}"]
    if abs(predicted - (plan.line[0] * 10 + plan.line[1])) > 1e-6:
        deviations.append(f"wrong: {plan.registered} predicts {predicted} on the line {plan.line}")
    return deviations


_loading = threading.Lock()  # the address is mlflow's own global


def _predict(uri: str, model: str) -> float:
    with _loading:
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        try:
            return float(mlflow.pyfunc.load_model(model).predict([[10.0]])[0])
        finally:
            mlflow.set_tracking_uri(before)
            os.environ.pop("MLFLOW_TRACKING_URI", None)
