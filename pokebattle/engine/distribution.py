"""Requests as tasks of Dask: on workers of this process, or on a cluster that runs already."""

import contextlib
import logging
import threading
import uuid
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError

from distributed import (
    Client,
    Future,
    KilledWorker,
    Scheduler,
    SpecCluster,
    Worker,
    WorkerPlugin,
    as_completed,
    get_worker,
)
from distributed.comm.core import CommClosedError

from pokebattle.engine.installation import EngineError
from pokebattle.engine.process import Answer, EngineProcess, EngineStoppedError, Request, fingerprint

ATTEMPTS = 3  # processes that may end under one request: what ends three of them is the request's fault
PATIENCE = 10.0  # seconds in which a scheduler must answer
LOST = (CommClosedError, CancelledError, KilledWorker, TimeoutError, OSError)


class Engines(WorkerPlugin):
    """The engine processes of one Dask worker: one for each of its threads, used again, gone with the worker."""

    def __init__(self, name: str) -> None:
        self.name = name

    def setup(self, worker: Worker) -> None:
        """Be ready to start processes; the first requests start them."""
        self._lock = threading.Lock()
        self._idle: list[EngineProcess] = []
        self._all: set[EngineProcess] = set()
        self._closed = False

    def teardown(self, worker: Worker) -> None:
        """End all processes, also those that are fighting."""
        with self._lock:
            self._closed = True
            for process in self._all:
                process.stop()

    def ask(self, request: Request) -> Answer:
        """Let a process answer, and another one when it ends meanwhile. What went wrong is an answer, too."""
        stopped = ""
        for _ in range(ATTEMPTS):
            process = self._take()
            if process is None:
                break
            try:
                answer = process.ask(request)
            except EngineStoppedError as error:
                self._drop(process)
                stopped = str(error)
                continue
            except EngineError as error:
                answer = {"error": str(error)}
            self._idle.append(process)
            return answer
        return {"error": stopped or "the worker has ended"}

    def _take(self) -> EngineProcess | None:
        with self._lock:
            if self._closed:
                return None
            if self._idle:
                return self._idle.pop()
            process = EngineProcess()
            self._all.add(process)
            return process

    def _drop(self, process: EngineProcess) -> None:
        with self._lock:
            self._all.discard(process)
        process.stop()


def _ask(name: str, expected: str, request: Request) -> Answer:
    """Answer a request on a Dask worker."""
    if expected != fingerprint():
        return {"error": f"{get_worker().address} has another version of pokebattle or of the engine"}
    engines = get_worker().plugins[name]
    assert isinstance(engines, Engines)
    try:
        return engines.ask(request)
    except EngineError as error:  # the engine cannot be installed there
        return {"error": f"{get_worker().address}: {error}"}


def answers(requests: Sequence[Request], cluster: str, n_workers: int) -> Generator[tuple[int, Answer]]:
    """Answer requests, in the order in which they are done; when the iterator is closed, all that works for it ends.

    Yields
    ------
    tuple of int and dict
        The number of a request and its answer.

    Raises
    ------
    EngineError
        If the engine refuses a request, or the cluster cannot be reached or is lost.
    """
    with _client(cluster, n_workers) as client:
        try:
            with _engines(client) as name:
                futures = [client.submit(_ask, name, fingerprint(), request, pure=False) for request in requests]
                numbers: dict[Future, int] = {future: number for number, future in enumerate(futures)}
                del futures
                for future in as_completed(list(numbers), loop=client.loop):
                    answer = future.result()
                    if "error" in answer:
                        raise EngineError(answer["error"])
                    yield numbers.pop(future), answer
        except LOST as error:
            raise EngineError(f"the cluster {cluster or 'in this process'} was lost: {error}") from error


class _Unserved:
    """What Dask calls a server, without the port that it would open for browsers."""

    def start_http_server(self, *args: object, **kwargs: object) -> None:
        """Open no port."""


class _LocalScheduler(_Unserved, Scheduler):
    pass


class _LocalWorker(_Unserved, Worker):
    pass


@contextlib.contextmanager
def _client(cluster: str, n_workers: int) -> Iterator[Client]:
    """Connect to a cluster, or to one worker in this process with so many threads: engines are processes anyway."""
    if cluster:
        try:
            client = Client(cluster, timeout=PATIENCE, set_as_default=False)
        except LOST as error:
            raise EngineError(f"cluster: no Dask scheduler answers at {cluster}: {error}") from error
        with client:
            yield client
        return
    scheduler = {"cls": _LocalScheduler, "options": {"protocol": "inproc://", "dashboard": False}}
    worker = {"cls": _LocalWorker, "options": {"nthreads": n_workers, "dashboard": False, "memory_limit": None}}
    with (
        SpecCluster(scheduler=scheduler, workers={0: worker}, silence_logs=logging.CRITICAL) as local,
        Client(local, set_as_default=False) as client,
    ):
        # Dask leaves waits behind when it closes, whose ends asyncio would report; what goes wrong is in the answers.
        local.loop.asyncio_loop.set_exception_handler(lambda loop, context: None)
        yield client


@contextlib.contextmanager
def _engines(client: Client) -> Iterator[str]:
    """Give every worker its engines, and end them afterwards."""
    name = f"pokebattle-engines-{uuid.uuid4().hex}"
    client.register_plugin(Engines(name))
    try:
        yield name
    finally:
        if client.status == "running":  # else it would wait for a scheduler that is gone
            with contextlib.suppress(*LOST):
                client.unregister_worker_plugin(name)
