"""Which matchups may teach, and which may only judge: protocols that no pair of species, or no family, crosses.

A protocol puts every unordered pair of species into one part: *train* teaches (and is cut into inner folds for
tuning), *test* judges a finished model, *gate* compares models for promotion. What a protocol holds back:

- `pair`: pairs. Every species is known from other pairs.
- `one_unseen`: families of species (an evolution line with its Mega, Alolan and partner forms). Of a judging pair one
  species belongs to them and one is known.
- `both_unseen`: the same families. Both species belong to them.

Hashes of the ids draw pairs and families, so a part does not depend on seeds, order or moves.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256

import numpy as np
import pandas as pd
from numpy.typing import NDArray

PARTS = ("train", "test", "gate")
UNUSED = "unused"  # pairs that a protocol neither teaches nor judges with
PROTOCOLS = ("pair", "one_unseen", "both_unseen")
TEST, GATE = 0.1, 0.05  # of all pairs
UNSEEN = 0.36  # of the species, at least: so that their own pairs make a whole test part

Mask = NDArray[np.bool_]


class LeakError(ValueError):
    """Something that judges is known, in some form, from what teaches."""


def pair_ids(matchups: pd.DataFrame) -> pd.Series:
    """Return the unordered pair of species of every matchup as text, `first|second`, first < second."""
    distinct, rows = distinct_pairs(matchups)
    return pd.Series(pd.array(distinct, dtype="str").take(rows), index=matchups.index)


def distinct_pairs(matchups: pd.DataFrame) -> tuple[list[str], NDArray[np.int64]]:
    """Return the ids of the unordered pairs that there are, sorted, and which of them every matchup has."""
    sides = pd.concat([matchups["species_a"], matchups["species_b"]])
    codes, names = pd.factorize(sides, sort=True)
    codes, names = np.sort(codes.reshape(2, -1), axis=0), names.to_numpy(object)
    distinct, rows = np.unique(codes[0] * len(names) + codes[1], return_inverse=True)
    return [f"{names[pair // len(names)]}|{names[pair % len(names)]}" for pair in distinct], rows


def hashes(names: Sequence[str], purpose: str) -> NDArray[np.float64]:
    """Return a number in [0, 1) for every name, independent from purpose to purpose."""
    digests = [sha256(f"{purpose}/{name}".encode()).digest()[:8] for name in names]
    return np.array([int.from_bytes(digest, "big") for digest in digests], dtype=float) / 2**64


def pair_hashes(matchups: pd.DataFrame, purpose: str) -> NDArray[np.float64]:
    """Return a number in [0, 1) for every matchup: the hash of its unordered pair, whatever moves and order."""
    distinct, rows = distinct_pairs(matchups)
    return hashes(distinct, purpose)[rows]


def unseen_species(families: pd.Series) -> set[str]:
    """Return the species of the families that the unseen protocols hold back, at least `UNSEEN` of all species.

    Parameters
    ----------
    families : Series
        Index species id, values the family.
    """
    sizes = families.value_counts().sort_index()
    order = np.argsort(hashes(list(sizes.index), "unseen"), kind="stable")
    enough = int(np.searchsorted(sizes.to_numpy()[order].cumsum(), UNSEEN * len(families))) + 1
    return set(families.index[families.isin(sizes.index[order[:enough]])])


def assign(pairs: pd.DataFrame, protocol: str, families: pd.Series) -> pd.Series:
    """Put every pair of species into a part.

    Of the pairs that a protocol may judge with, those with the smallest hashes are the test part (`TEST` of all pairs)
    and the next the gate part (`GATE`); where there are not enough they share what there is, two to one.

    Parameters
    ----------
    pairs : DataFrame
        Columns species_a and species_b; every unordered pair that there is, once.
    protocol : {"pair", "one_unseen", "both_unseen"}
    families : Series
        Index species id, values the family.

    Returns
    -------
    Series of str
        "train", "test", "gate", or "unused", with the index of `pairs`.

    Raises
    ------
    ValueError
        If there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: unknown, got {protocol!r}; there is {', '.join(PROTOCOLS)}")
    if protocol == "pair":
        judging, known = np.ones(len(pairs), dtype=bool), np.ones(len(pairs), dtype=bool)
    else:
        count = _count(pairs, unseen_species(families))
        judging, known = count == PROTOCOLS.index(protocol), count == 0
    test, gate = (round(share * len(pairs)) for share in (TEST, GATE))
    if judging.sum() < test + gate:
        test = round(judging.sum() * 2 / 3)
    order = np.flatnonzero(judging)[np.argsort(pair_hashes(pairs[judging], protocol), kind="stable")]
    part = np.where(known, "train", UNUSED).astype(object)
    part[order[:test]], part[order[test : test + gate]] = "test", "gate"
    return pd.Series(part, index=pairs.index, dtype="str", name=protocol)


def folds(training: pd.DataFrame, protocol: str, families: pd.Series, n_folds: int) -> Iterator[tuple[Mask, Mask]]:
    """Cut a train part into inner folds that hold back what its protocol holds back.

    Parameters
    ----------
    training : DataFrame
        Matchups.
    families : Series
        Index species id, values the family.
    n_folds : int
        At least 2.

    Yields
    ------
    fit, validate : ndarray of bool, shape (n_matchups,)
        Disjoint. Under `pair` every matchup validates once; under the others matchups between folds are left out.
    """
    if protocol == "pair":
        number = (pair_hashes(training, "fold") * n_folds).astype(int)
        for fold in range(n_folds):
            yield number != fold, number == fold
        return
    present = families[families.index.isin({*training["species_a"].unique(), *training["species_b"].unique()})]
    names = sorted(set(present))
    order = np.argsort(hashes(names, "fold"), kind="stable")
    for fold in range(n_folds):
        held = present.index[present.isin([names[number] for number in order[fold::n_folds]])]
        count = _count(training, set(held))
        yield count == 0, count == PROTOCOLS.index(protocol)


def subset(matchups: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return `count` matchups (0: all) in their order: those whose pairs have the smallest hashes.

    A smaller subset is part of every larger one.
    """
    if not count:
        return matchups
    chosen = np.argsort(pair_hashes(matchups, "subset"), kind="stable")[:count]
    return matchups.iloc[np.sort(chosen)]


def subset_of_pairs(matchups: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return all matchups of `count` pairs (0: of all), those with the smallest hashes."""
    drawn = pair_hashes(matchups, "subset")
    return matchups[np.isin(drawn, np.unique(drawn)[:count])] if count else matchups


def _count(matchups: pd.DataFrame, species: set[str]) -> NDArray[np.int64]:
    """Count how many of the two sides (0, 1, 2) are among these species."""
    a, b = (matchups[side].isin(species).to_numpy().astype(np.int64) for side in ("species_a", "species_b"))
    return a + b
