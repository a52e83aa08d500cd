"""Which matchups may teach and which may only judge: splits that no pair of species crosses."""

from hashlib import sha256

import numpy as np
import pandas as pd
from numpy.typing import NDArray

EVALUATION_FRACTION = 0.1


def pair_ids(matchups: pd.DataFrame) -> pd.Series:
    """Return the unordered pair of species of every matchup as text, `first|second`, first < second."""
    first = matchups[["species_a", "species_b"]].min(axis=1)
    second = matchups[["species_a", "species_b"]].max(axis=1)
    return first + "|" + second


def pair_hashes(matchups: pd.DataFrame, purpose: str) -> NDArray[np.float64]:
    """Return a number in [0, 1) of every matchup: the hash of its unordered pair, for one purpose.

    Matchups of one pair have the same number whatever their moves, order and policy; purposes are independent.
    """
    hashes = [sha256(f"{purpose}/{pair}".encode()).digest()[:8] for pair in pair_ids(matchups)]
    return np.array([int.from_bytes(digest, "big") for digest in hashes], dtype=float) / 2**64


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
