"""Which matchups may teach and which may only judge: splits that no pair of species crosses."""

from hashlib import sha256

import numpy as np
import pandas as pd
from numpy.typing import NDArray

EVALUATION_FRACTION = 0.1


def pair_ids(matchups: pd.DataFrame) -> pd.Series:
    """Return the unordered pair of species of every matchup as text, `first|second`, first < second."""
    distinct, rows = distinct_pairs(matchups)
    return pd.Series(pd.array(distinct, dtype="str").take(rows), index=matchups.index)


def distinct_pairs(matchups: pd.DataFrame) -> tuple[list[str], NDArray[np.int64]]:
    """Return the ids of the unordered pairs that there are, sorted, and which of them every matchup has."""
    sides = pd.concat([matchups["species_a"], matchups["species_b"]])
    codes, names = pd.factorize(sides, sort=True)
    codes = np.sort(codes.reshape(2, -1), axis=0)
    distinct, rows = np.unique(codes[0] * len(names) + codes[1], return_inverse=True)
    return [f"{names[pair // len(names)]}|{names[pair % len(names)]}" for pair in distinct], rows


def pair_hashes(matchups: pd.DataFrame, purpose: str) -> NDArray[np.float64]:
    """Return a number in [0, 1) of every matchup: the hash of its unordered pair, for one purpose.

    Matchups of one pair have the same number whatever their moves, order and policy; purposes are independent.
    """
    distinct, rows = distinct_pairs(matchups)
    hashes = [sha256(f"{purpose}/{pair}".encode()).digest()[:8] for pair in distinct]
    return (np.array([int.from_bytes(digest, "big") for digest in hashes], dtype=float) / 2**64)[rows]


def evaluation_pairs(matchups: pd.DataFrame, fraction: float = EVALUATION_FRACTION) -> NDArray[np.bool_]:
    """Tell which matchups are set aside for evaluation: the pairs with the smallest hashes.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a and species_b.
    fraction : float, default 0.1
        Share of the pairs, between 0 and 1.

    Returns
    -------
    ndarray of bool, shape (n_matchups,)
    """
    hashes = pair_hashes(matchups, "evaluation")
    distinct = np.unique(hashes)
    count = round(fraction * len(distinct))
    return np.isin(hashes, distinct[:count])


def subset(matchups: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return `count` matchups (0: all) in their order: those whose pairs have the smallest hashes.

    A smaller subset is part of every larger one.
    """
    if not count:
        return matchups
    chosen = np.argsort(pair_hashes(matchups, "subset"), kind="stable")[:count]
    return matchups.iloc[np.sort(chosen)]


def check_disjoint(training: pd.DataFrame, evaluation: pd.DataFrame) -> None:
    """Refuse matchups of one unordered pair of species on both sides of a split.

    Raises
    ------
    ValueError
        Naming how many pairs are shared and the first of them.
    """
    shared = set(pair_ids(training)) & set(pair_ids(evaluation))
    if shared:
        raise ValueError(f"training and evaluation share {len(shared)} pairs of species, e.g. {min(shared)}")
