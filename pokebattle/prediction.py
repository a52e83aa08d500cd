"""Predict one matchup from the names of two species."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pokebattle.errors import UserError, did_you_mean
from pokebattle.game import dex
from pokebattle.game.matchups import MATCHUP, RANDOM, best_moves, damaging_moves
from pokebattle.model import BattleWinner

POLICIES = ("best_move", "random_move")


class PredictionError(UserError, ValueError):
    """A species or a policy is unknown, or a matchup is impossible."""


@dataclass(frozen=True)
class Prediction:
    """The predicted outcome of one matchup.

    Attributes
    ----------
    species_a, species_b : str
        Names.
    move_a, move_b : str
        Names of the moves; "a random move" under the policy random_move, "" for species of your own.
    win_probability : float
        Probability that A wins, 0 to 1. B wins otherwise: battles have no draws.
    """

    species_a: str
    species_b: str
    move_a: str
    move_b: str
    win_probability: float


def predict(model: BattleWinner, species_a: str, species_b: str, policy: str = "best_move") -> Prediction:
    """Predict who wins a battle of two species.

    Parameters
    ----------
    model : BattleWinner
        A fitted model.
    species_a, species_b : str
        Names or ids, such as "Charizard-Mega-X" or "charizardmegax". Case, spaces and punctuation do not matter.
    policy : {"best_move", "random_move"}
        How both sides choose their moves. A model of your own species knows no moves and ignores it.

    Raises
    ------
    PredictionError
        If a species is unknown or has no damaging move, both are the same, or the policy is unknown.
    """
    own_species = model.species_
    names = (dex.species() if own_species is None else own_species)["name"]
    if own_species is None:
        names = names[names.index.isin(list(damaging_moves()))]
    a, b = (_find(text, names, place) for text, place in ((species_a, "species_a"), (species_b, "species_b")))
    if a == b:
        raise PredictionError(f"species_b: expected another species than species_a, got {species_b!r} twice")
    matchup, moves = pd.DataFrame({"species_a": [a], "species_b": [b]}), ["", ""]
    if own_species is None:
        used = _moves(a, b, policy)
        matchup = matchup.assign(move_a=used[0], move_b=used[1], policy=policy)[MATCHUP]
        known = dex.moves()["name"]
        moves = ["a random move" if move == RANDOM else str(known[move]) for move in used]
    probability = float(model.predict_proba(matchup)[0, 1])
    return Prediction(str(names[a]), str(names[b]), moves[0], moves[1], probability)


def _find(text: str, names: pd.Series, place: str) -> str:
    """Return the id of a species from its name or id."""
    ids = {dex.plain_id(str(name)): str(species) for species, name in names.items()}
    ids |= {dex.plain_id(str(species)): str(species) for species in names.index}
    if dex.plain_id(text) not in ids:
        hint = did_you_mean(dex.plain_id(text), ids)
        raise PredictionError(f"{place}: expected a species that can fight, got {text!r}{hint}")
    return ids[dex.plain_id(text)]


def _moves(a: str, b: str, policy: str) -> tuple[str, str]:
    if policy not in POLICIES:
        hint = did_you_mean(policy, POLICIES)
        raise PredictionError(f"policy: expected one of {', '.join(POLICIES)}, got {policy!r}{hint}")
    if policy == "random_move":
        return RANDOM, RANDOM
    best = best_moves()["move_id"]
    return str(best[a, b]), str(best[b, a])
