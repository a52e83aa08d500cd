"""Recommend moves, and compare the model's choices with those of the simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pokebattle.datasets import splits
from pokebattle.errors import did_you_mean
from pokebattle.evaluation.placeholders import note
from pokebattle.game import dex
from pokebattle.game.matchups import MATCHUP, best_moves, damaging_moves
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


def move_options(species_a: str, species_b: str) -> pd.DataFrame:
    """Return the matchups of each damaging move of A with each damaging move of B.

    Parameters
    ----------
    species_a, species_b : str
        Species ids.

    Returns
    -------
    DataFrame
        The columns of `matchups.MATCHUP`; policy is "best_move" if A uses its best move against B, else "given_move".
        Sorted by A's move, then B's.

    Raises
    ------
    ValueError
        If a species is unknown, or has no damaging move.
    """
    known = damaging_moves()
    for control, name in (("species_a", species_a), ("species_b", species_b)):
        if name not in known:
            hint = did_you_mean(dex.plain_id(name), known)
            raise ValueError(f"{control}: expected the id of a species with damaging moves, got {name!r}{hint}")
    moves = [known[species_a], known[species_b]]
    options = pd.MultiIndex.from_product(moves, names=["move_a", "move_b"]).to_frame(index=False)
    taken = options["move_a"] == best_moves()["move_id"][species_a, species_b]
    policy = np.where(taken, "best_move", "given_move")
    return options.assign(species_a=species_a, species_b=species_b, policy=policy)[MATCHUP]


def strongest_answers(options: pd.DataFrame, chance: str) -> pd.DataFrame:
    """Return, for every move of A, the move of B with the lowest P(A wins); the first of equal ones.

    Parameters
    ----------
    options : DataFrame
        From `move_options`, for one pair of species or several, with a column of probabilities.
    chance : str
        Name of the column with P(A wins).
    """
    worst = options.groupby(["species_a", "species_b", "move_a"], sort=False)[chance].idxmin()
    return options.loc[worst].reset_index(drop=True)


def worth_of_choices(options: pd.DataFrame, choosers: list[str], worth: str) -> pd.Series:
    """Return how well A does when it chooses its move by a predictor, against B's strongest answer.

    For each predictor, A takes the move with the highest predicted P(A wins) against the answer that the predictor
    considers B's strongest (maximin). The move is then scored against B's strongest answer according to `worth`.

    Parameters
    ----------
    options : DataFrame
        From `move_options`, for several pairs of species, with columns of probabilities.
    choosers : list of str
        Columns with the predictors' P(A wins).
    worth : str
        Column with the P(A wins) that scores the moves.

    Returns
    -------
    Series
        Mean score by predictor, then of the policy "best_move", and of "any" move (the mean over all moves of A).
    """
    pair, move = ["species_a", "species_b"], ["species_a", "species_b", "move_a"]
    true = strongest_answers(options, worth).set_index(move)
    means = {}
    for chooser in choosers:
        seen = strongest_answers(options, chooser)
        taken = seen.loc[seen.groupby(pair, sort=False)[chooser].idxmax(), move]
        means[chooser] = true.loc[pd.MultiIndex.from_frame(taken), worth].mean()
    means["best_move"] = true.loc[true["policy"] == "best_move", worth].mean()
    means["any"] = true.groupby(level=pair)[worth].mean().mean()
    return pd.Series(means)
