"""Advice on moves, and tables that say why there is nothing to show."""

import numpy as np
import pandas as pd
import pytest

from pokebattle import evaluation
from pokebattle.datasets import load_battles, open_part
from pokebattle.evaluation import advice, comparison, explanation, plots
from pokebattle.evaluation.notes import is_note, note
from pokebattle.model import BattleWinner
from pokebattle.params import load_params


@pytest.fixture(scope="module")
def fitted() -> tuple[BattleWinner, pd.DataFrame]:
    params = load_params({"version": "sample", "n_estimators": 10})
    battles = load_battles("v3", "pair", 300, 15)
    model = BattleWinner.from_params(params)
    model.fit(battles.training, battles.training["wins_a"], battles.training["n_battles"])
    return model, evaluation.single_orientation(open_part(battles, "test"))


def test_advice_has_a_row_for_each_move_the_best_first(fitted: tuple[BattleWinner, pd.DataFrame]) -> None:
    found = advice.advise(fitted[0], "mewtwo", "mew")
    assert found["move_a"].is_unique and found["simulated"].is_monotonic_decreasing
    assert (found["policy"] == "best_move").sum() == 1
    assert found[["predicted", "simulated"]].stack().between(0, 1).all()


def test_choices_are_compared_on_pairs_of_the_matchups(fitted: tuple[BattleWinner, pd.DataFrame]) -> None:
    found = advice.compare_choices(*fitted, n_pairs=2)
    assert found.index.tolist() == ["mean P(A wins), 2 pairs"]
    assert found.columns.tolist() == ["simulation", "model", "best_move", "any"]


def test_without_moves_or_limit_a_note_says_so(fitted: tuple[BattleWinner, pd.DataFrame]) -> None:
    _, test = fitted
    plain, once = test[["species_a", "species_b", "wins_a", "n_battles"]], test.assign(n_battles=1, wins_a=1)
    notes = [
        explanation.strongest_by_policy(pd.DataFrame(), plain),
        explanation.excess_by_kind(plain, np.full(len(plain), 0.5)),
        explanation.excess_by_kind(once, np.full(len(once), 0.5)),
        comparison.compare_feature_sets(load_params({"version": "v1", "max_matchups": 50, "max_judging_pairs": 5})),
    ]
    assert all(map(is_note, notes)) and not is_note(plain)
    for figure in (plots.excesses(notes[0]), plots.advice(note("nothing to draw"), "mewtwo", "mew")):
        assert len(figure.texts) == 1
