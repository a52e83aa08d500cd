"""Which move to use: a model's chances, simulated chances, and how good the choices by either are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from pokebattle.datasets import splits
from pokebattle.evaluation.explanation import move_options, strongest_answers, worth_of_choices
from pokebattle.evaluation.notes import note
from pokebattle.simulation import simulate

if TYPE_CHECKING:
    from pokebattle.model import BattleWinner

NO_MOVES = "these battles have no moves to choose among"
N_SIMULATED = 512  # simulated battles for each combination of moves when choices are compared


def advise(model: BattleWinner, species_a: str, species_b: str) -> pd.DataFrame:
    """Return A's damaging moves with B's strongest answer to each, the best move first.

    Parameters
    ----------
    model : BattleWinner
    species_a, species_b : str
        Species ids.

    Returns
    -------
    DataFrame
        Columns move_a, move_b (the answer that leaves A the smallest chance in simulated battles), policy ("best_move"
        for the move that this policy uses, else ""), predicted and simulated (P(A wins), 0 to 1). A note if the model's
        species have no moves.

    Raises
    ------
    ValueError
        If a species is unknown, or has no damaging move.
    """
    if model.species_ is not None:
        return note(NO_MOVES)
    options = move_options(species_a, species_b)
    options["predicted"] = model.predict_proba(options)[:, 1]
    options["simulated"] = simulate(options)["win_probability"]
    answers = strongest_answers(options, "simulated")
    answers = answers.sort_values(["simulated", "predicted"], ascending=False, kind="stable", ignore_index=True)
    answers["policy"] = answers["policy"].where(answers["policy"] == "best_move", "")
    return answers.drop(columns=["species_a", "species_b"])


def compare_choices(model: BattleWinner, matchups: pd.DataFrame, n_pairs: int = 20) -> pd.DataFrame:
    """Return how often A wins if it chooses its move by a simulation, by the model, by power, or at random.

    A second, independent simulation judges each choice against B's strongest answer.

    Parameters
    ----------
    model : BattleWinner
    matchups : DataFrame
        The pairs of species are taken from here.
    n_pairs : int, default 20
        Number of pairs.

    Returns
    -------
    DataFrame
        One row; columns simulation, model, best_move, any: mean P(A wins), 0 to 1. A note if the model's species have
        no moves.
    """
    if model.species_ is not None:
        return note(NO_MOVES)
    pairs = splits.subset_of_pairs(matchups, n_pairs).drop_duplicates(["species_a", "species_b"])
    pairs = pairs[["species_a", "species_b"]]
    options = pd.concat([move_options(*pair) for pair in pairs.to_numpy()], ignore_index=True)
    options["model"] = model.predict_proba(options)[:, 1]
    options["simulation"] = simulate(options, N_SIMULATED)["win_probability"]
    options["worth"] = simulate(options, N_SIMULATED, random_state=1)["win_probability"]
    worth = worth_of_choices(options, ["simulation", "model"], "worth")
    return worth.rename(f"mean P(A wins), {len(pairs)} pairs").to_frame().T
