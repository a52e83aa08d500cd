"""Fight matchups in the engine, on Dask workers. Results are cached, so that an interrupted run can continue."""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nbtrack.files import write_atomically
from pokebattle.engine.process import Answer, EngineProcess, Request, fingerprint
from pokebattle.game import matchups as battles

STREAMS = ("training", "test", "gate")
FRESH = "fresh-"  # prefix of the names of streams from `fresh_stream`
SEEDS = "sha256(stream/species_a/move_a/species_b/move_b/repetition), first 64 bits"
DRAWS = "of the same hash the next 64 bits for the moves that A draws, the next for B's"
CHUNK_BATTLES = 4000  # about a second
SIDES = ["species_a", "move_a", "species_b", "move_b"]


def battle_logs(
    species_a: str, move_a: str, species_b: str, move_b: str, n_battles: int = 1, *, stream: str = "training"
) -> list[list[str]]:
    """Return the engine's logs of the first battles of a matchup.

    Parameters
    ----------
    species_a, move_a, species_b, move_b : str
        Ids; a move may be `matchups.RANDOM`.
    n_battles : int, default 1
    stream : str, default "training"
        As in `fight`.

    Returns
    -------
    list of list of str
        The lines of each battle's log.

    Raises
    ------
    EngineError
        If the engine is missing, stops, or refuses the matchup.
    """
    matchup = pd.DataFrame([[species_a, move_a, species_b, move_b]], columns=SIDES)
    with EngineProcess() as process:
        logs: list[list[str]] = process.ask(_request(matchup, n_battles, stream) | {"log": True})["logs"][0]
        return logs


def fresh_stream() -> str:
    """Return a random name for a stream, so that its seeds and battles cannot be known in advance."""
    return FRESH + secrets.token_hex(8)


def fight(
    matchups: pd.DataFrame,
    n_battles: int | None = None,
    *,
    stream: str,
    cache: Path,
    cluster: str = "",
    n_workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Fight every matchup in the engine a number of times.

    The seed of a battle depends only on the stream, the matchup and the repetition. The result therefore does not
    depend on the workers, the order of the matchups, or interruptions. If a process or worker ends, its chunk of
    matchups is fought again.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a, species_b, move_a, move_b; other columns are kept. A move is an id, or `matchups.RANDOM`:
        then the side draws one of its usable damaging moves every turn, all equally likely, unless the game forces a
        move.
    n_battles : int, optional
        Battles of each matchup, at least 1. By default the column n_battles of `matchups`.
    stream : {"training", "test", "gate"} or str from `fresh_stream`
        Name of an independent sequence of random numbers.
    cache : Path
        Folder for results; created if it is missing. A result is reused if the engine's version, the programs that
        run it, and the request are the same.
    cluster : str, default ""
        Address of a Dask scheduler whose workers have this package, e.g. "tcp://127.0.0.1:8786". The workers install
        the engine if it is missing. By default this process starts its own workers and stops them afterwards.
    n_workers : int, default 1
        Number of simultaneous engine processes; ignored with a cluster.
    progress : callable, optional
        Called with the number of battles done since the last call, e.g. `tqdm(total=...).update`.

    Returns
    -------
    DataFrame
        The matchups in their order and index, with wins_a (0 to n_battles), n_battles and turns (mean length).

    Raises
    ------
    EngineError
        If the engine cannot be installed, stops repeatedly, or refuses a matchup; if the cluster does not answer.
    ValueError
        If the stream is unknown, or `n_battles` or `n_workers` is below 1.
    """
    if stream not in STREAMS and not stream.startswith(FRESH):
        raise ValueError(f"stream: unknown, got {stream!r}; expected one of {', '.join(STREAMS)}")
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
    """Cut the matchups into chunks of about `CHUNK_BATTLES` battles; all matchups of a chunk have equal n_battles."""
    ends = [*np.flatnonzero(np.diff(n_battles)) + 1, len(matchups)]
    for first, end in zip([0, *ends], ends, strict=False):
        size = max(1, CHUNK_BATTLES // int(n_battles[first])) if end > first else 1
        for start in range(first, end, size):
            yield _request(matchups[start : min(start + size, end)], int(n_battles[first]), stream)


def _request(matchups: pd.DataFrame, n_battles: int, stream: str) -> Request:
    """Return the engine's request for a chunk, including the moves of all species that draw their moves."""
    drawing = {
        species for own in "ab" for species in matchups.loc[matchups[f"move_{own}"] == battles.RANDOM, f"species_{own}"]
    }
    known = battles.damaging_moves() if drawing else {}
    pools = {species: known.get(species, []) for species in sorted(drawing)}
    request = {"matchups": matchups[SIDES].to_numpy().tolist(), "n_battles": n_battles, "stream": stream}
    return request | {"pools": pools} if pools else request


def _answers(
    requests: list[Request], cache: Path, cluster: str, n_workers: int, progress: Callable[[int], object]
) -> list[Answer]:
    """Answer requests from the cache, and send the others to workers."""
    files = [cache / f"{_key(request)}.json" for request in requests]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    n_fought = [len(request["matchups"]) * request["n_battles"] for request in requests]
    progress(sum(n_fought) - sum(n_fought[number] for number in missing))
    if missing:
        from pokebattle.engine import dask_workers  # not at the top: importing Dask takes a second

        asked = [requests[number] for number in missing]
        with closing(dask_workers.answers(asked, cluster, min(n_workers, len(missing)))) as answers:
            for asked_number, answer in answers:
                write_atomically(files[missing[asked_number]], json.dumps(answer))
                progress(n_fought[missing[asked_number]])
    return [json.loads(file.read_text()) for file in files]


def _key(request: Request) -> str:
    """Return the cache key of a chunk: a hash of everything that its result depends on."""
    return sha256("\n".join([fingerprint(), json.dumps(request, sort_keys=True)]).encode()).hexdigest()[:24]
