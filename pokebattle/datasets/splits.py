"""Protocols: rules that divide the pairs of species into a training part, a test part and a gate part.

A protocol assigns every unordered pair of species to one part. The training part (`train`) is for fitting, and is cut
into inner folds for tuning; the test part evaluates finished models; the gate part judges versions before promotion.
The protocols differ in what the test and gate parts hold out:

- `pair`: pairs of species. Each species occurs in other pairs of the training part.
- `one_unseen`: families (an evolution line with its Mega, Alolan and partner forms). In each test or gate pair, one
  species belongs to a held-out family and the other does not.
- `both_unseen`: the same families. In each test or gate pair, both species belong to held-out families.

Pairs and families are selected by hashes of their ids, so the parts do not depend on seeds, order or moves.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pokebattle.errors import UserError

PARTS = ("train", "test", "gate")
UNUSED = "unused"  # pairs that belong to no part under a protocol
PROTOCOLS = ("pair", "one_unseen", "both_unseen")
TEST, GATE = 0.1, 0.05  # shares of all pairs
UNSEEN = 0.36  # minimal share of held-out species: enough that the pairs among them fill a test part

Mask = NDArray[np.bool_]


class LeakError(UserError, ValueError):
    """Information about the test or gate part, or about the results, has reached the training."""


def pair_ids(matchups: pd.DataFrame) -> pd.Series:
    """Return the unordered pair of species of every matchup as text, `first|second`, first < second.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a and species_b.

    Returns
    -------
    Series of str
        With the index of `matchups`.
    """
    distinct, rows = distinct_pairs(matchups)
    return pd.Series(pd.array(distinct, dtype="str").take(rows), index=matchups.index)


def distinct_pairs(matchups: pd.DataFrame) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct unordered pairs, and the pair of every matchup.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a and species_b.

    Returns
    -------
    pairs : list of str
        Ids as from `pair_ids`, sorted.
    rows : ndarray of int, shape (n_matchups,)
        Positions in `pairs`.
    """
    sides = pd.concat([matchups["species_a"], matchups["species_b"]])
    codes, names = pd.factorize(sides, sort=True)
    codes, names = np.sort(codes.reshape(2, -1), axis=0), names.to_numpy(object)
    distinct, rows = np.unique(codes[0] * len(names) + codes[1], return_inverse=True)
    return [f"{names[pair // len(names)]}|{names[pair % len(names)]}" for pair in distinct], rows


def hashes(names: Sequence[str], purpose: str) -> NDArray[np.float64]:
    """Return a number in [0, 1) for every name: a hash of the purpose and the name.

    Parameters
    ----------
    names : sequence of str
    purpose : str
        Numbers for different purposes are independent.

    Returns
    -------
    ndarray of float, shape (n_names,)
    """
    digests = [sha256(f"{purpose}/{name}".encode()).digest()[:8] for name in names]
    return np.array([int.from_bytes(digest, "big") for digest in digests], dtype=float) / 2**64


def pair_hashes(matchups: pd.DataFrame, purpose: str) -> NDArray[np.float64]:
    """Return a number in [0, 1) for every matchup: the hash of its unordered pair. Moves and order do not matter.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a and species_b.
    purpose : str
        As in `hashes`.

    Returns
    -------
    ndarray of float, shape (n_matchups,)
    """
    distinct, rows = distinct_pairs(matchups)
    return hashes(distinct, purpose)[rows]


def unseen_species(families: pd.Series) -> set[str]:
    """Return the species of the families that the unseen protocols hold out, at least `UNSEEN` of all species.

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
    """Assign every pair of species to a part.

    Among the pairs that qualify for the test and gate parts under the protocol, those with the smallest hashes become
    the test part (`TEST` of all pairs) and the next ones the gate part (`GATE` of all pairs). If there are too few,
    they are divided two to one.

    Parameters
    ----------
    pairs : DataFrame
        Columns species_a and species_b; all unordered pairs, each once.
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
        raise ValueError(f"protocol: unknown, got {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
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


def parts_of_pairs(pairs: pd.DataFrame, families: pd.Series) -> pd.DataFrame:
    """Assign pairs of species to parts under every protocol, see `assign`.

    Parameters
    ----------
    pairs : DataFrame
        Columns species_a, species_b.
    families : Series
        Index species id, values the family.

    Returns
    -------
    DataFrame
        `pairs` with a column for each protocol.
    """
    return pairs.assign(**{protocol: assign(pairs, protocol, families) for protocol in PROTOCOLS})


def folds(training: pd.DataFrame, protocol: str, families: pd.Series, n_folds: int) -> Iterator[tuple[Mask, Mask]]:
    """Cut a training part into inner folds that hold out what the protocol holds out.

    Parameters
    ----------
    training : DataFrame
        Matchups of the training part.
    protocol : {"pair", "one_unseen", "both_unseen"}
    families : Series
        Index species id, values the family.
    n_folds : int
        At least 2.

    Yields
    ------
    fit, validate : ndarray of bool, shape (n_matchups,)
        Disjoint masks. Under `pair`, every matchup is in `validate` once. Under the other protocols, matchups that fit
        neither mask are left out of the fold.
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
    """Return the matchups whose pairs have the smallest hashes, in their original order.

    A smaller subset is part of every larger one.

    Parameters
    ----------
    matchups : DataFrame
    count : int
        Number of matchups; 0 returns all.
    """
    if not count:
        return matchups
    chosen = np.argsort(pair_hashes(matchups, "subset"), kind="stable")[:count]
    return matchups.iloc[np.sort(chosen)]


def subset_of_pairs(matchups: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return all matchups of the pairs with the smallest hashes.

    Parameters
    ----------
    matchups : DataFrame
    count : int
        Number of pairs; 0 returns all matchups.
    """
    drawn = pair_hashes(matchups, "subset")
    return matchups[np.isin(drawn, np.unique(drawn)[:count])] if count else matchups


def _count(matchups: pd.DataFrame, species: set[str]) -> NDArray[np.int64]:
    """Return how many of a matchup's two species (0, 1 or 2) are in a set."""
    a, b = (matchups[side].isin(species).to_numpy().astype(np.int64) for side in ("species_a", "species_b"))
    return a + b
