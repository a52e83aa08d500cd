"""The model: exact mirror, determinism, and a saved model that is the same model."""

import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from pokebattle import evaluation, model
from pokebattle.game import matchups as battles
from pokebattle.game.dex import species
from pokebattle.learning.baselines import RULES, baselines, rule_probability
from pokebattle.learning.features import MARGIN, matchup_features, mirror
from pokebattle.model import BattleWinner

SETTINGS = {
    "features": "mechanics",
    "n_estimators": 25,
    "max_depth": 4,
    "learning_rate": 0.2,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "min_child_weight": 1.0,
    "reg_lambda": 1.0,
    "random_state": 42,
    "n_jobs": 1,
}


@pytest.fixture(scope="module")
def fought() -> pd.DataFrame:
    """Made-up battles that the faster species tends to win."""
    table = battles.matchups().sample(900, random_state=3).reset_index(drop=True)
    speed = species()["speed"]
    p = expit((speed.loc[table["species_a"]].to_numpy() - speed.loc[table["species_b"]].to_numpy()) / 10)
    return table.assign(wins_a=np.random.default_rng(0).binomial(20, p), n_battles=20)


@pytest.fixture(scope="module")
def fitted(fought: pd.DataFrame) -> BattleWinner:
    learned = fought.head(700)
    return BattleWinner(**SETTINGS).fit(learned, learned["wins_a"], learned["n_battles"])


def test_both_orientations_sum_to_one(fitted: BattleWinner, fought: pd.DataFrame) -> None:
    forward, backward = fitted.predict_proba(fought), fitted.predict_proba(mirror(fought))
    assert np.abs(forward[:, 1] + backward[:, 1] - 1).max() < 1e-12
    assert (fitted.margin(fought) == -fitted.margin(mirror(fought))).all()
    assert (
        fitted.predict_proba(
            mirror(fought).assign(
                species_b=fought["species_b"],
                species_a=fought["species_b"],
                move_a=fought["move_b"],
                move_b=fought["move_b"],
            )
        )
        == 0.5
    ).all()


def test_it_learns(fitted: BattleWinner, fought: pd.DataFrame) -> None:
    new = fought.tail(200)
    figures = evaluation.all_metrics(new, fitted.predict_proba(new)[:, 1]).iloc[0]
    assert figures["accuracy"] > 0.85 and figures["log_loss"] < 0.45


def test_one_row_equals_the_same_row_among_many(fitted: BattleWinner, fought: pd.DataFrame) -> None:
    together = fitted.predict_proba(fought)
    for row in (0, 17, 899):
        assert (fitted.predict_proba(fought.iloc[[row]])[0] == together[row]).all()


@pytest.mark.parametrize("change", [{}, {"n_jobs": 2}])
def test_the_same_seed_gives_the_same_bits(fitted: BattleWinner, fought: pd.DataFrame, change: dict) -> None:
    learned = fought.head(700)
    again = clone(fitted).set_params(**change).fit(learned, learned["wins_a"], learned["n_battles"])
    assert (again.predict_proba(fought) == fitted.predict_proba(fought)).all()
    other = clone(fitted).set_params(random_state=1).fit(learned, learned["wins_a"], learned["n_battles"])
    assert (other.predict_proba(fought) != fitted.predict_proba(fought)).any()


def test_the_orientation_of_the_training_rows_does_not_matter_to_the_counts(fought: pd.DataFrame) -> None:
    """Without draws of rows, the trees are those of the mirrored training part."""
    plain = BattleWinner(**SETTINGS | {"subsample": 1.0, "colsample_bytree": 1.0, "n_estimators": 3})
    margins = []
    for table in (fought, mirror(fought)):
        margins.append(clone(plain).fit(table, table["wins_a"], table["n_battles"]).margin(fought))
    assert margins[0] == pytest.approx(margins[1], abs=1e-4)


def test_features_computed_before_give_the_same_bits(fitted: BattleWinner, fought: pd.DataFrame) -> None:
    numbers, learned = fitted.features_.both_orientations(fought), fought.head(700)
    assert (fitted.predict_proba(numbers) == fitted.predict_proba(fought)).all()
    again = clone(fitted).fit(numbers[:, :700], learned["wins_a"], learned["n_battles"])
    assert (again.predict_proba(fought) == fitted.predict_proba(fought)).all()


def test_parameters_come_from_params_by_name() -> None:
    params = SimpleNamespace(**SETTINGS, version="v3")
    assert BattleWinner.from_params(params).get_params() == SETTINGS


def test_a_saved_model_predicts_the_same_bits(fitted: BattleWinner, fought: pd.DataFrame, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "model")
    loaded = BattleWinner.load(folder)
    assert (loaded.predict_proba(fought) == fitted.predict_proba(fought)).all()
    assert loaded.get_params() == fitted.get_params()
    assert sorted(path.name for path in folder.iterdir()) == ["booster.ubj", "features.json"]
    served = model._load_pyfunc(str(folder)).predict(fought)
    assert (served == fitted.predict_proba(fought)[:, 1]).all()


def test_loading_unpickles_nothing(fitted: BattleWinner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("unpickled")

    folder = fitted.save(tmp_path)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    for name in ("joblib", "cloudpickle"):
        monkeypatch.setitem(sys.modules, name, None)
    BattleWinner.load(folder)


def test_a_model_of_other_features_is_refused(fitted: BattleWinner, tmp_path: Path) -> None:
    config = fitted.save(tmp_path) / "features.json"
    stored = json.loads(config.read_text())
    stored["columns"][0] = "a_luck"
    config.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="fitted on other features, different: a_hp, a_luck"):
        BattleWinner.load(tmp_path)


def test_importance_adds_up(fitted: BattleWinner) -> None:
    table = fitted.importance()
    assert table["gain"].sum() == pytest.approx(1) and table["gain"].is_monotonic_decreasing
    assert table.index[0] in ("faster_by", "moves_first")  # what these battles are made of
    assert not table.index.str.match(r"[ab]_").any()


def test_a_missing_column_is_named(fitted: BattleWinner, fought: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="column move_b is missing, got species_a, species_b, move_a"):
        fitted.predict_proba(fought[["species_a", "species_b", "move_a"]])


def test_an_unfitted_model_says_so(fought: pd.DataFrame) -> None:
    with pytest.raises(NotFittedError):
        BattleWinner(**SETTINGS).predict_proba(fought)


def test_baselines_mirror_and_know_their_rule(fought: pd.DataFrame) -> None:
    training, matchups = fought.head(700), fought.tail(200)
    one, other = (baselines(training, table, "mechanics") for table in (matchups, mirror(matchups)))
    assert list(one) == ["constant", *RULES, "logistic regression"]
    for name in one:
        assert one[name] + other[name] == pytest.approx(1), name
    loss = {name: evaluation.all_metrics(matchups, p)["log_loss"].iloc[0] for name, p in one.items()}
    assert loss["constant"] == pytest.approx(np.log(2))
    assert loss["logistic regression"] < loss["faster species"] < loss["constant"]


def test_a_rule_gets_the_share_of_battles_that_it_calls() -> None:
    training = pd.DataFrame({"wins_a": [9, 2, 5], "n_battles": 10})
    p = rule_probability(lambda table: np.array([1, -1, 0])[: len(table)], training, training)
    assert p == pytest.approx([0.85, 0.15, 0.5])


def test_the_damage_race_by_hand() -> None:
    """Pikachu needs two thunderbolts for Squirtle, Mewtwo one psychic for Machamp; equal turns go to the faster.

    Pikachu is faster than Snorlax, and its tackle needs many turns where one earthquake is enough.
    """
    table = pd.DataFrame(
        {
            "species_a": ["squirtle", "machamp", "pikachu", "pikachu"],
            "move_a": ["tackle", "tackle", "thunderbolt", "tackle"],
            "species_b": ["pikachu", "mewtwo", "pikachustarter", "snorlax"],
            "move_b": ["thunderbolt", "psychic", "thunderbolt", "earthquake"],
        }
    )
    assert RULES["damage race"](table).tolist() == [-1, -1, -1, -1]
    assert RULES["damage race"](mirror(table)).tolist() == [1, 1, 1, 1]


def test_trees_begin_from_the_simulated_margin(fought: pd.DataFrame, tmp_path: Path) -> None:
    few = fought.head(300)
    idle = SETTINGS | {"features": "simulation", "n_estimators": 1, "learning_rate": 1e-6}
    simulated = BattleWinner(**idle).fit(few, few["wins_a"], few["n_battles"])
    features = matchup_features("simulation")
    margin = features.transform(few)[:, features.get_feature_names_out().tolist().index(MARGIN)]
    assert simulated.margin(few) == pytest.approx(margin, abs=0.01)
    learned = BattleWinner(**SETTINGS | {"features": "simulation"}).fit(few, few["wins_a"], few["n_battles"])
    assert (learned.margin(mirror(few)) == -learned.margin(few)).all()
    assert np.abs(learned.margin(few) - margin).mean() > 0.1  # these battles are made up: the trees have to object
    again = BattleWinner.load(learned.save(tmp_path))
    assert (again.margin(few) == learned.margin(few)).all()


def test_the_learning_curve_learns(fought: pd.DataFrame) -> None:
    numbers = matchup_features("mechanics").both_orientations(fought)
    curve = evaluation.learning_curve(BattleWinner(**SETTINGS), fought, numbers, 3, n_bootstrap=20, random_state=0)
    assert curve["n_matchups"].is_monotonic_increasing and len(curve) == 3
    assert curve["held_out"].iloc[-1] < curve["held_out"].iloc[0]
    assert (curve["low"] < curve["held_out"]).all() and (curve["held_out"] < curve["high"]).all()
    assert (curve["bayes"] < curve["held_out"]).all()
