"""What explains a prediction adds up to it, and the kinds of moves are those of the game."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from pokebattle import evaluation
from pokebattle.evaluation import explanation
from pokebattle.game import dex, matchups
from pokebattle.game.matchups import RANDOM
from pokebattle.learning.features import MARGIN, mirror
from pokebattle.model import BattleWinner

SETTINGS = {
    "n_estimators": 20,
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
    table = matchups.matchups().sample(300, random_state=3).reset_index(drop=True)
    speed = dex.species()["speed"]
    p = expit((speed.loc[table["species_a"]].to_numpy() - speed.loc[table["species_b"]].to_numpy()) / 10)
    return table.assign(wins_a=np.random.default_rng(0).binomial(20, p), n_battles=20)


@pytest.fixture(scope="module", params=["mechanics", "simulation"])
def fitted(fought: pd.DataFrame, request: pytest.FixtureRequest) -> BattleWinner:
    return BattleWinner(features=request.param, **SETTINGS).fit(fought, fought["wins_a"], fought["n_battles"])


def test_contributions_sum_to_the_margin(fitted: BattleWinner, fought: pd.DataFrame) -> None:
    some = fought.sample(40, random_state=1)
    contributions = fitted.contributions(some)
    assert contributions.index.equals(some.index) and list(contributions) == fitted.feature_names
    assert contributions.sum(axis=1).to_numpy() == pytest.approx(fitted.margin(some), abs=1e-4)
    assert explanation.sum_over_sides(contributions).sum(axis=1).to_numpy() == pytest.approx(
        fitted.margin(some), abs=1e-4
    )
    if MARGIN in contributions:
        assert contributions[MARGIN].abs().mean() > 1


def test_contributions_change_sides_with_the_matchup(fitted: BattleWinner, fought: pd.DataFrame) -> None:
    there, back = (fitted.contributions(table.head(40)) for table in (fought, mirror(fought)))
    for name in there:
        other = {"a_": "b_", "b_": "a_"}.get(name[:2], name[:2]) + name[2:]
        assert (back[other] == -there[name]).all(), name
    assert there.filter(regex="^a_").abs().to_numpy().max() > 0.01


def test_what_decides_is_found(fitted: BattleWinner, fought: pd.DataFrame) -> None:
    if fitted.features == "mechanics":
        sizes = explanation.sum_over_sides(fitted.contributions(fought.head(60))).abs().mean()
        assert sizes.idxmax() in {"faster_by", "speed", "moves_first"}


def test_explain_names_the_strongest_and_accounts_for_all(fitted: BattleWinner, fought: pd.DataFrame) -> None:
    some = fought.tail(3)
    table = explanation.explain(fitted, some, n_features=4)
    contributions = explanation.sum_over_sides(fitted.contributions(some))
    speed = matchups.battle_stats()["speed"]
    for (matchup, part), row in zip(table.groupby(level="matchup", sort=False), some.itertuples(), strict=True):
        assert matchup == f"{row.species_a} ({row.move_a}) – {row.species_b} ({row.move_b})"
        parts = part.loc[matchup]
        assert set(parts.index[:4]) == set(contributions.loc[row.Index].abs().nlargest(4).index)
        assert parts["log_odds"].iloc[:5].sum() == pytest.approx(parts.loc[explanation.MARGIN, "log_odds"])
        margin = fitted.margin(some.loc[[row.Index]])[0]
        assert parts.loc[explanation.MARGIN, "log_odds"] == pytest.approx(margin, abs=1e-4)
        if "speed" in parts.index:
            assert parts.loc["speed", ["a", "b"]].tolist() == [speed[row.species_a], speed[row.species_b]]
        if "faster_by" in parts.index:
            assert parts.loc["faster_by", "a"] == pytest.approx(np.log(speed[row.species_a] / speed[row.species_b]))


def test_kinds_are_those_of_the_moves() -> None:
    kinds = explanation.move_kinds()
    known = {
        "solarbeam": "takes two turns",
        "hyperbeam": "takes two turns",
        "dig": "takes two turns",
        "explosion": "its user faints",
        "dreameater": "works only in some situations",
        RANDOM: "drawn each turn",
        "thunder": "misses often (accuracy below 90 %)",
        "surf": "none of these",
        "counter": "no damage formula",
        "quickattack": "strikes first or last",
    }
    assert {move: kind for move, kind in known.items() if not kinds.loc[move, kind]} == {}
    assert not kinds.loc["swift", "misses often (accuracy below 90 %)"]
    assert (kinds.sum(axis=1) > 0).all()


def test_excess_is_found_where_it_was_put() -> None:
    table = matchups.matchups().sample(600, random_state=5).reset_index(drop=True)
    truth = np.random.default_rng(1).beta(0.5, 0.5, len(table)).clip(0.02, 0.98)
    table = table.assign(wins_a=np.random.default_rng(2).binomial(400, truth), n_battles=400)
    kinds = explanation.move_kinds()
    late = (
        kinds.loc[table["move_a"], "takes two turns"].to_numpy()
        | kinds.loc[table["move_b"], "takes two turns"].to_numpy()
    )
    p = np.where(late, 0.5, truth)
    costs = explanation.excess_by_kind(table, p)
    assert costs.loc["takes two turns", "share_of_excess"] == pytest.approx(1, abs=0.02)
    assert costs.loc["takes two turns", "matchups"] == late.sum()
    assert costs.loc["takes two turns", "share_of_battles"] == pytest.approx(late.mean())
    assert abs(costs.loc["none of these", "above_limit"]) < 0.005
    whole = evaluation.all_metrics(table, p)["log_loss"][0] - evaluation.bayes_limit(table)["log_loss"][0]
    assert costs.loc["takes two turns", "above_limit"] * late.mean() == pytest.approx(whole, abs=0.005)
