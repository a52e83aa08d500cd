"""Fighting matchups in the engine, in several worker processes, with a cache that an interrupted run continues from."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import pandas as pd

from pokebattle.engine.installation import MOD, SOURCES, VERSION, EngineError, install, node

STREAMS = ("training", "evaluation")
SEEDS = "sha256(stream/species_a/move_a/species_b/move_b/repetition), first 64 bits"
CHUNK_BATTLES = 1000
SIDES = ["species_a", "move_a", "species_b", "move_b"]

Request = dict[str, Any]


class Worker:
    """One engine process. It ends when its input does, so it cannot outlive the process that started it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [node(), str(SOURCES / "worker.js"), MOD], cwd=install(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"NODE_OPTIONS": ""},
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, request: Request) -> dict[str, list]:
        """Send one request and wait for its answer.

        Raises
        ------
        EngineError
            If the engine refuses the request or has stopped.
        """
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except (OSError, ValueError) as error:
            raise EngineError(f"the engine stopped: {error}") from error
        if not line:
            raise EngineError(f"the engine stopped with exit code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(f"the engine refused a battle: {answer['error']}")
        return answer


def watch(species_a: str, move_a: str, species_b: str, move_b: str, n_battles: int = 1, *,
          stream: str = "training") -> list[list[str]]:
    """Return the engine's logs of the first battles of a matchup, one list of lines each."""
    with Worker() as worker:
        request = {"matchups": [[species_a, move_a, species_b, move_b]], "n_battles": n_battles,
                   "stream": stream, "log": True}
        logs: list[list[str]] = worker.ask(request)["logs"][0]
        return logs


def fight(
    matchups: pd.DataFrame, n_battles: int, *, stream: str, cache: Path, n_processes: int = 1,
    progress: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Let the engine fight every matchup a number of times.

    The seed of a battle depends on the stream, the matchup and the repetition alone, so the result does not depend
    on the number of processes, on the order of the matchups, or on an interruption.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a, species_b, move_a, move_b (others are kept).
    n_battles : int
        Battles of each matchup, at least 1.
    stream : {"training", "evaluation"}
        Which of the two independent sequences of battles.
    cache : Path
        Folder of fought chunks; created when missing. A chunk is used again when engine, worker and request agree.
    n_processes : int, default 1
        Engine processes at the same time.
    progress : callable, optional
        Called with the number of battles done since the last call, e.g. `tqdm(total=...).update`.

    Returns
    -------
    DataFrame
        The matchups in their order and index, with wins_a (0 to n_battles), n_battles and turns (mean length).

    Raises
    ------
    EngineError
        If the engine is missing, stops, or refuses a matchup.
    ValueError
        If the stream is unknown or a number is below 1.
    """
    if stream not in STREAMS:
        raise ValueError(f"stream: unknown, got {stream!r}; there is {', '.join(STREAMS)}")
    for name, number in (("n_battles", n_battles), ("n_processes", n_processes)):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    cache.mkdir(parents=True, exist_ok=True)
    requests = list(_requests(matchups, n_battles, stream))
    answers = _answers(requests, cache, n_processes, progress or (lambda _: None))
    wins = [won for answer in answers for won in answer["wins_a"]]
    turns = [lasted / n_battles for answer in answers for lasted in answer["turns"]]
    return matchups.assign(wins_a=wins, n_battles=n_battles, turns=turns)


def _requests(matchups: pd.DataFrame, n_battles: int, stream: str) -> Iterator[Request]:
    rows = matchups[SIDES].to_numpy().tolist()
    size = max(1, CHUNK_BATTLES // n_battles)
    for start in range(0, len(rows), size):
        yield {"matchups": rows[start : start + size], "n_battles": n_battles, "stream": stream}


def _answers(requests: list[Request], cache: Path, n_processes: int,
             progress: Callable[[int], object]) -> list[dict[str, list]]:
    """Answer requests from the cache, and the rest from workers that share them out as they get free."""
    files = [cache / f"{_key(request)}.json" for request in requests]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    battles = [len(request["matchups"]) * request["n_battles"] for request in requests]
    progress(sum(battles) - sum(battles[number] for number in missing))
    free: SimpleQueue[Worker] = SimpleQueue()

    def run(number: int) -> int:
        worker = free.get()
        try:
            _write(files[number], worker.ask(requests[number]))
        finally:
            free.put(worker)
        return battles[number]

    with ThreadPoolExecutor(n_processes) as pool:
        workers = [Worker() for _ in range(min(n_processes, len(missing)))]
        try:
            for worker in workers:
                free.put(worker)
            for done in as_completed([pool.submit(run, number) for number in missing]):
                progress(done.result())
        finally:  # also on Ctrl-C: without workers the threads have nothing to wait for
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.__exit__(None, None, None)
    return [json.loads(file.read_text()) for file in files]


def _key(request: Request) -> str:
    """Name a chunk by everything that its result depends on."""
    parts = [VERSION, MOD, (SOURCES / "worker.js").read_text(), json.dumps(request, sort_keys=True)]
    return sha256("\n".join(parts).encode()).hexdigest()[:24]


def _write(file: Path, answer: dict[str, list]) -> None:
    """Write a chunk whole or not at all."""
    scratch = file.with_suffix(f".{os.getpid()}.part")
    scratch.write_text(json.dumps(answer))
    scratch.replace(file)
