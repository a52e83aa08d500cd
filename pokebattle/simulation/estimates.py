"""Estimate win probabilities of matchups by simulating battles.

Each matchup has its own random number generator, seeded from the matchup and `random_state`. An estimate therefore
does not depend on the other matchups, their order or their number.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pokebattle.game.matchups import RANDOM, damaging_moves, rows_of

if TYPE_CHECKING:
    from pokebattle.simulation.records import Tables

N_SIMULATIONS = 2048  # the standard error of a win probability is at most 0.011
TURN = 256  # matchups per task of a thread, about a quarter of a second
SIDES = ["species_a", "move_a", "species_b", "move_b"]
MIRRORED = ["species_b", "move_b", "species_a", "move_a"]


def simulate(matchups: pd.DataFrame, n_simulations: int = N_SIMULATIONS, random_state: int = 0) -> pd.DataFrame:
    """Estimate the outcomes of matchups.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a, species_b, move_a, move_b; a move is an id or `matchups.RANDOM`.
    n_simulations : int, default `N_SIMULATIONS`
        Battles per distinct matchup, at least 1. A matchup and the same matchup with swapped sides share their battles.
    random_state : int, default 0
        Seed.

    Returns
    -------
    DataFrame
        The index of `matchups`; columns win_probability (share of the battles that A won), turns (mean length),
        hp_left_a and hp_left_b (mean share of the HP that is left at the end). Swapping the sides of a matchup swaps
        its numbers exactly. A side against itself wins with probability 1/2.

    Raises
    ------
    ValueError
        If `n_simulations` is below 1, a species is unknown, or a move is unknown or deals no damage.
    """
    if n_simulations < 1:
        raise ValueError(f"n_simulations: expected at least 1, got {n_simulations}")
    from pokebattle.simulation.records import tables  # here, because importing numba takes half a second

    sides = matchups[SIDES].astype(object).to_numpy()
    mirrored = matchups[MIRRORED].astype(object).to_numpy()
    turned = np.array([tuple(own) > tuple(other) for own, other in zip(sides, mirrored, strict=True)], dtype=bool)
    canonical = pd.DataFrame(np.where(turned[:, None], mirrored, sides), columns=SIDES)
    rows = canonical.groupby(SIDES, sort=False).ngroup().to_numpy()
    frame = canonical.drop_duplicates(ignore_index=True)  # in the order of their group numbers
    game = tables()
    species = np.column_stack(
        [rows_of(frame[name], game.species_ids, "species") for name in ("species_a", "species_b")]
    )
    pools, starts, sizes = _pools(frame, species, game)
    seeds = np.array([_seed(row, random_state) for row in frame.to_numpy()], dtype=np.uint64)
    wins, turns, left = _fight(species, pools, starts, sizes, seeds, n_simulations, game)
    shares = left / n_simulations / game.fighters["hp"][species]
    same = (frame["species_a"] == frame["species_b"]) & (frame["move_a"] == frame["move_b"])
    shares[same] = shares[same].mean(axis=1, keepdims=True)
    chance = np.where(same, 0.5, _share(wins, n_simulations))
    chance, shares = chance[rows], shares[rows]
    chance, shares[turned] = np.where(turned, 1 - chance, chance), shares[turned][:, ::-1]
    columns = {"win_probability": chance, "turns": turns[rows] / n_simulations}
    return pd.DataFrame(columns | {"hp_left_a": shares[:, 0], "hp_left_b": shares[:, 1]}, index=matchups.index)


def _fight(
    species: NDArray[np.int64],
    pools: NDArray[np.int64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    n_battles: int,
    game: Tables,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Call `simulator.fight` on parts of `TURN` matchups, in as many threads as numba is configured for."""
    from numba import config

    from pokebattle.simulation.simulator import fight

    def fight_rows(rows: slice) -> tuple[NDArray[np.int64], ...]:
        sides = species[rows], pools, starts[rows], sizes[rows]
        return fight(*sides, seeds[rows], n_battles, game.moves, game.fighters, game.effectiveness)

    turns = [slice(first, first + TURN) for first in range(0, max(len(seeds), 1), TURN)]
    with ThreadPoolExecutor(config.NUMBA_NUM_THREADS) as threads:  # type: ignore[attr-defined]
        wins, lengths, left = zip(*threads.map(fight_rows, turns), strict=True)
    return np.concatenate(wins), np.concatenate(lengths), np.concatenate(left)


def _share(wins: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Return A's share of wins, rounded so that the shares of the two sides add up to exactly 1."""
    larger = np.maximum(wins, n - wins) / n
    return np.where(2 * wins >= n, larger, 1 - larger)


def _pools(
    frame: pd.DataFrame, species: NDArray[np.int64], game: Tables
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return one array with all single moves and all learnsets, and the start and length of each side's part of it."""
    moves, offsets, lengths = _learnsets()
    starts, sizes = np.empty_like(species), np.ones_like(species)
    for side, name in enumerate(("move_a", "move_b")):
        draws = (frame[name] == RANDOM).to_numpy()
        own = species[:, side]
        if (lengths[own[draws]] == 0).any():
            raise ValueError(f"move: expected a species with damaging moves where the move is {RANDOM!r}")
        starts[draws, side], sizes[draws, side] = offsets[own[draws]], lengths[own[draws]]
        starts[~draws, side] = rows_of(frame.loc[~draws, name], game.move_ids, "move")
    return moves, starts, sizes


@cache
def _learnsets() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return all single moves followed by the damaging moves of each species, and the start and length of its part."""
    from pokebattle.simulation.records import tables

    game, known = tables(), damaging_moves()
    learnsets = [game.move_ids.get_indexer(pd.Index(known.get(name, []), dtype=object)) for name in game.species_ids]
    single = np.arange(len(game.move_ids))
    lengths = np.array([len(moves) for moves in learnsets])
    return np.concatenate([single, *learnsets]), len(single) + np.cumsum(lengths) - lengths, lengths


def _seed(row: NDArray[np.object_], random_state: int) -> int:
    return int.from_bytes(sha256("/".join([*row, str(random_state)]).encode()).digest()[:8], "big")
