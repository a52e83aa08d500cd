"""A prediction from names: what is found, what is refused, and that both sides add up."""

import pandas as pd
import pytest

from pokebattle.datasets import load_battles
from pokebattle.model import BattleWinner
from pokebattle.params import load_params
from pokebattle.prediction import PredictionError, predict

PARAMS = load_params({"version": "sample", "n_estimators": 20, "max_matchups": 400})


@pytest.fixture(scope="module")
def model() -> BattleWinner:
    battles = load_battles("v3", "pair", 400, 40)
    return BattleWinner.from_params(PARAMS).fit(
        battles.training, battles.training["wins_a"], battles.training["n_battles"]
    )


@pytest.mark.parametrize("name", ["Charizard-Mega-X", "charizardmegax", "charizard mega x", "CHARIZARD_MEGA_X"])
def test_a_species_is_found_by_name_or_id(model: BattleWinner, name: str) -> None:
    prediction = predict(model, name, "farfetch'd")
    assert (prediction.species_a, prediction.species_b) == ("Charizard-Mega-X", "Farfetch’d")


@pytest.mark.parametrize("policy", ["best_move", "random_move"])
def test_the_chances_of_both_sides_add_up_to_one(model: BattleWinner, policy: str) -> None:
    ahead, behind = predict(model, "venusaur", "blastoise", policy), predict(model, "blastoise", "venusaur", policy)
    assert ahead.win_probability == pytest.approx(1 - behind.win_probability, abs=1e-6)
    assert (ahead.move_a, ahead.move_b) == (behind.move_b, behind.move_a)
    assert (ahead.move_a == "a random move") == (policy == "random_move")


@pytest.mark.parametrize(
    ("pair", "policy", "message"),
    [
        (
            ("venusuar", "mew"),
            "best_move",
            r"species_a: expected a species that can fight, got 'venusuar'; did you mean v",
        ),
        (("mew", "ditto"), "best_move", "species_b: expected a species that can fight, got 'ditto'"),
        (("mew", "Mew"), "best_move", "species_b: expected another species than species_a, got 'Mew' twice"),
        (("mew", "abra"), "best", "policy: expected one of best_move, random_move, got 'best'"),
    ],
)
def test_what_cannot_fight_is_refused(model: BattleWinner, pair: tuple[str, str], policy: str, message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        predict(model, *pair, policy)


def test_species_of_ones_own_have_names_but_no_moves() -> None:
    ids = pd.Index([f"k{n}" for n in range(8)], name="species_id")
    species = pd.DataFrame({"name": [f"Kind {n}" for n in range(8)], "speed": range(8)}, index=ids, dtype=object)
    species = species.assign(type_1="", type_2="", family=ids, speed=species["speed"].astype(float))
    rows = [(f"k{a}", f"k{b}", int(a > b)) for a in range(8) for b in range(a + 1, 8)]
    battles = pd.DataFrame(rows, columns=["species_a", "species_b", "wins_a"])
    raw = PARAMS.model_copy(update={"features": "raw"})
    model = BattleWinner.from_params(raw).fit(battles, battles["wins_a"], pd.Series(1, index=battles.index), species)
    prediction = predict(model, "kind 7", "k0")
    assert (prediction.species_a, prediction.species_b, prediction.move_a) == ("Kind 7", "Kind 0", "")
