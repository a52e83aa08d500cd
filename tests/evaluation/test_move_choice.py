"""Which move to use, and tables that say why there is nothing to show."""

import numpy as np
import pandas as pd
import pytest

from pokebattle import evaluation
from pokebattle.datasets import load_battles, open_part
from pokebattle.evaluation import ablation, explanation, move_choice, plots
from pokebattle.evaluation.placeholders import is_note, note
from pokebattle.game import matchups
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
    advice = move_choice.advise(fitted[0], "mewtwo", "mew")
    assert advice["move_a"].is_unique and advice["simulated"].is_monotonic_decreasing
    assert (advice["policy"] == "best_move").sum() == 1
    assert advice[["predicted", "simulated"]].stack().between(0, 1).all()


def test_choices_are_compared_on_pairs_of_the_matchups(fitted: tuple[BattleWinner, pd.DataFrame]) -> None:
    table = move_choice.compare_choices(*fitted, n_pairs=2)
    assert table.index.tolist() == ["mean P(A wins), 2 pairs"]
    assert table.columns.tolist() == ["simulation", "model", "best_move", "any"]


def test_without_moves_or_limit_a_note_says_so(fitted: tuple[BattleWinner, pd.DataFrame]) -> None:
    model, test = fitted
    plain, once = test[["species_a", "species_b", "wins_a", "n_battles"]], test.assign(n_battles=1, wins_a=1)
    notes = [
        explanation.strongest_by_policy(pd.DataFrame(), plain),
        explanation.excess_by_kind(plain, np.full(len(plain), 0.5)),
        explanation.excess_by_kind(once, np.full(len(once), 0.5)),
        ablation.compare_feature_sets(
            model, load_params({"version": "v1", "max_matchups": 50, "max_judging_pairs": 5})
        ),
    ]
    assert all(map(is_note, notes)) and not is_note(plain)
    for figure in (plots.excesses(notes[0]), plots.advice(note("nothing to draw"), "mewtwo", "mew")):
        assert len(figure.texts) == 1


def test_options_are_the_moves_of_a_against_the_best_of_b() -> None:
    options = move_choice.move_options("starmie", "venusaur")
    known = matchups.damaging_moves()
    assert options["move_a"].unique().tolist() == known["starmie"]
    assert options["move_b"].unique().tolist() == known["venusaur"]
    assert len(options) == len(known["starmie"]) * len(known["venusaur"])
    assert options.loc[options["policy"] == "best_move", "move_a"].unique().tolist() == ["dreameater"]


def test_a_move_is_worth_what_the_strongest_answer_leaves() -> None:
    options = pd.DataFrame(
        {
            "species_a": "abra",
            "species_b": "onix",
            "move_a": ["x", "x", "y", "y"],
            "move_b": ["v", "w", "v", "w"],
            "policy": ["best_move", "best_move", "given_move", "given_move"],
            "greedy": [0.9, 0.8, 0.1, 0.1],
            "wise": [0.9, 0.1, 0.6, 0.5],
            "worth": [1.0, 0.0, 0.7, 0.4],
        }
    )
    answers = move_choice.strongest_answers(options, "worth")
    assert answers[["move_a", "move_b", "worth"]].to_numpy().tolist() == [["x", "w", 0.0], ["y", "w", 0.4]]
    worth = move_choice.worth_of_choices(options, ["greedy", "wise"], "worth")
    assert worth.to_dict() == {"greedy": 0.0, "wise": 0.4, "best_move": 0.0, "any": 0.2}


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("starmi", "venusaur"), "species_a: expected .*, got 'starmi'; did you mean starmie[?]"),
        (("starmie", "ditto"), "species_b: expected .*, got 'ditto'"),
        (("starmie", "Mr. Mime"), "species_b: expected .*, got 'Mr. Mime'; did you mean mrmime[?]"),
    ],
)
def test_an_unknown_species_is_named(pair: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        move_choice.move_options(*pair)
