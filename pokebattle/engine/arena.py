"""Fighting matchups in the engine, on Dask workers, with a cache that an interrupted run continues from."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pokebattle import battles
from pokebattle.engine.process import Answer, EngineProcess, Request, fingerprint

STREAMS = ("training", "test", "gate")
FRESH = "fresh-"  # how the names of streams begin whose battles nobody has seen
SEEDS = "sha256(stream/species_a/move_a/species_b/move_b/repetition), first 64 bits"
DRAWS = "of the same hash the next 64 bits for the moves that A draws, the next for B's"
CHUNK_BATTLES = 4000  # about a second
SIDES = ["species_a", "move_a", "species_b", "move_b"]


def watch(species_a: str, move_a: str, species_b: str, move_b: str, n_battles: int = 1, *,
          stream: str = "training") -> list[list[str]]:
    """Return the engine's logs of the first battles of a matchup, one list of lines each."""
    matchup = pd.DataFrame([[species_a, move_a, species_b, move_b]], columns=SIDES)
    with EngineProcess() as process:
        logs: list[list[str]] = process.ask(_request(matchup, n_battles, stream) | {"log": True})["logs"][0]
        return logs


def fresh_stream() -> str:
    """Return the name of a stream of battles that were never fought: its seeds cannot have been seen by anyone."""
    return FRESH + secrets.token_hex(8)


def fight(
    matchups: pd.DataFrame, n_battles: int | None = None, *, stream: str, cache: Path, cluster: str = "",
    n_workers: int = 1, progress: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Let the engine fight every matchup a number of times.

    The seed of a battle depends on the stream, the matchup and the repetition alone, so the result does not depend
    on the workers, on the order of the matchups, or on an interruption. A chunk whose process or worker ends is fought
    again.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a, species_b, move_a, move_b (others are kept). A move is an id, or `battles.RANDOM`: then that
        side draws one of its damaging moves each turn, each usable one as likely, and uses what the game forces it to.
    n_battles : int, optional
        Battles of each matchup, at least 1; without it the column n_battles says how many.
    stream : {"training", "test", "gate"}
        Which of the independent sequences of battles; or one from `fresh_stream`.
    cache : Path
        Folder of fought chunks; created when missing. A chunk is used again when engine, programs and request agree.
    cluster : str, default ""
        Address of a Dask scheduler whose workers have this package, e.g. "tcp://127.0.0.1:8786"; they install the
        engine when it is missing. Without one this process starts its own workers, and ends them.
    n_workers : int, default 1
        Engine processes at the same time, without a cluster.
    progress : callable, optional
        Called with the number of battles done since the last call, e.g. `tqdm(total=...).update`.

    Returns
    -------
    DataFrame
        The matchups in their order and index, with wins_a (0 to n_battles), n_battles and turns (mean length).

    Raises
    ------
    EngineError
        If the engine is missing, stops again and again, or refuses a matchup; if the cluster does not answer.
    ValueError
        If the stream is unknown or a number is below 1.
    """
    if stream not in STREAMS and not stream.startswith(FRESH):
        raise ValueError(f"stream: unknown, got {stream!r}; there is {', '.join(STREAMS)}")
    fights = matchups["n_battles"] if n_battles is None else pd.Series(n_battles, index=matchups.index)
    for name, number in (("n_battles", fights.min() if len(fights) else 1), ("n_workers", n_workers)):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    cache.mkdir(parents=True, exist_ok=True)
    requests = list(_requests(matchups, np.asarray(fights, dtype=np.int64), stream))
    answers = _answers(requests, cache, cluster, n_workers, progress or (lambda _: None))
    wins = [won for answer in answers for won in answer["wins_a"]]
    turns = np.array([lasted for answer in answers for lasted in answer["turns"]])
    return matchups.assign(wins_a=wins, n_battles=fights, turns=turns / fights.to_numpy())


def _requests(matchups: pd.DataFrame, n_battles: NDArray[np.int64], stream: str) -> Iterator[Request]:
    """Cut the matchups into chunks of about equally many battles, whose matchups are fought equally often."""
    ends = [*np.flatnonzero(np.diff(n_battles)) + 1, len(matchups)]
    for first, end in zip([0, *ends], ends, strict=False):
        size = max(1, CHUNK_BATTLES // int(n_battles[first])) if end > first else 1
        for start in range(first, end, size):
            yield _request(matchups[start : min(start + size, end)], int(n_battles[first]), stream)


def _request(matchups: pd.DataFrame, n_battles: int, stream: str) -> Request:
    """Put a chunk into words, with the moves of the species that draw theirs."""
    drawing = {species for own in "ab" for species in
               matchups.loc[matchups[f"move_{own}"] == battles.RANDOM, f"species_{own}"]}
    known = battles.damaging_moves() if drawing else {}
    pools = {species: known.get(species, []) for species in sorted(drawing)}
    request = {"matchups": matchups[SIDES].to_numpy().tolist(), "n_battles": n_battles, "stream": stream}
    return request | {"pools": pools} if pools else request


def _answers(requests: list[Request], cache: Path, cluster: str, n_workers: int,
             progress: Callable[[int], object]) -> list[Answer]:
    """Answer requests from the cache, and let workers answer the rest."""
    files = [cache / f"{_key(request)}.json" for request in requests]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    n_fought = [len(request["matchups"]) * request["n_battles"] for request in requests]
    progress(sum(n_fought) - sum(n_fought[number] for number in missing))
    if missing:
        from pokebattle.engine import distribution  # Dask takes a second to import: only when something is to be fought

        asked = [requests[number] for number in missing]
        with closing(distribution.answers(asked, cluster, min(n_workers, len(missing)))) as answers:
            for asked_number, answer in answers:
                _write(files[missing[asked_number]], answer)
                progress(n_fought[missing[asked_number]])
    return [json.loads(file.read_text()) for file in files]


def _key(request: Request) -> str:
    """Name a chunk by everything that its result depends on."""
    return sha256("\n".join([fingerprint(), json.dumps(request, sort_keys=True)]).encode()).hexdigest()[:24]


def _write(file: Path, answer: Answer) -> None:
    """Write a chunk whole or not at all."""
    scratch = file.with_suffix(f".{os.getpid()}.part")
    scratch.write_text(json.dumps(answer))
    scratch.replace(file)
