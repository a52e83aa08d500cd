"""Answer requests as Dask tasks: on workers in this process, or on a cluster that is already running."""

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

ATTEMPTS = 3  # processes tried per request; if it ends all of them, the request itself is at fault
PATIENCE = 10.0  # seconds to wait for a scheduler's answer
LOST = (CommClosedError, CancelledError, KilledWorker, TimeoutError, OSError)


class Engines(WorkerPlugin):
    """The engine processes of one Dask worker: at most one per thread, reused, and ended with the worker.

    Parameters
    ----------
    name : str
        Name under which the plugin is registered.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def setup(self, worker: Worker) -> None:
        """Prepare the pool. Processes are started by the first requests.

        Parameters
        ----------
        worker : Worker
            Given by Dask.
        """
        self._lock = threading.Lock()
        self._idle: list[EngineProcess] = []
        self._all: set[EngineProcess] = set()
        self._closed = False

    def teardown(self, worker: Worker) -> None:
        """End all processes, including those that are fighting.

        Parameters
        ----------
        worker : Worker
            Given by Dask.
        """
        with self._lock:
            self._closed = True
            for process in self._all:
                process.stop()

    def ask(self, request: Request) -> Answer:
        """Answer a request with a process of the pool, or with another one if that process ends.

        Parameters
        ----------
        request : dict

        Returns
        -------
        dict
            The engine's answer. If that failed, {"error": message}.

        Raises
        ------
        EngineError
            If the engine cannot be installed.
        """
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
    except EngineError as error:  # the engine cannot be installed on the worker's machine
        return {"error": f"{get_worker().address}: {error}"}


def answers(requests: Sequence[Request], cluster: str, n_workers: int) -> Generator[tuple[int, Answer]]:
    """Answer requests, and yield each answer as soon as it is ready.

    Closing the generator ends everything that it started: tasks, workers and engine processes.

    Parameters
    ----------
    requests : sequence of dict
    cluster : str
        Address of a Dask scheduler, or "" for a worker in this process.
    n_workers : int
        Threads of the worker in this process.

    Yields
    ------
    tuple of int and dict
        The position of a request in `requests` and its answer.

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
    """Mixin for Dask servers without the HTTP port of the dashboard."""

    def start_http_server(self, *args: object, **kwargs: object) -> None:
        """Do nothing instead of opening a port."""


class _LocalScheduler(_Unserved, Scheduler):
    pass


class _LocalWorker(_Unserved, Worker):
    pass


@contextlib.contextmanager
def _client(cluster: str, n_workers: int) -> Iterator[Client]:
    """Connect to a cluster, or start one worker in this process.

    The worker has `n_workers` threads: they only wait for engine processes, so more workers would bring nothing.
    """
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
        # When Dask closes, it leaves pending tasks that asyncio would report. Real errors are in the answers.
        local.loop.asyncio_loop.set_exception_handler(lambda loop, context: None)
        yield client


@contextlib.contextmanager
def _engines(client: Client) -> Iterator[str]:
    """Register the engine processes on every worker, and end them afterwards."""
    name = f"pokebattle-engines-{uuid.uuid4().hex}"
    client.register_plugin(Engines(name))
    try:
        yield name
    finally:
        if client.status == "running":  # otherwise the call would wait for a scheduler that no longer exists
            with contextlib.suppress(*LOST):
                client.unregister_worker_plugin(name)
