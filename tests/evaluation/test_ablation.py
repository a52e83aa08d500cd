"""A model of every feature set under every protocol, judged on the protocol's own battles."""

import pytest

from pokebattle import evaluation
from pokebattle.datasets import load_battles, open_part, splits
from pokebattle.evaluation import ablation
from pokebattle.learning.features import FEATURE_SETS
from pokebattle.model import BattleWinner
from pokebattle.params import load_params


def test_every_protocol_and_feature_set_is_fitted_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "FEATURE_SETS", {name: FEATURE_SETS[name] for name in ("raw", "mechanics")})
    params = load_params({"version": "sample", "n_estimators": 10, "n_bootstrap": 20})
    sets = {protocol: load_battles("v3", protocol, 300, 15) for protocol in splits.PROTOCOLS}
    tests = {name: evaluation.single_orientation(open_part(battles, "test")) for name, battles in sets.items()}
    scores = ablation.fit_and_judge(BattleWinner.from_params(params), params, sets, tests)
    assert scores["protocol"].unique().tolist() == list(splits.PROTOCOLS)
    assert scores["predictor"].unique().tolist() == ["raw", "mechanics", evaluation.LIMIT]
    for protocol, part in scores.groupby("protocol"):
        assert (part["n_battles"] == tests[protocol]["n_battles"].sum()).all()
    training, test = sets["both_unseen"].training, tests["both_unseen"]
    alone = BattleWinner.from_params(params.model_copy(update={"features": "raw"}))
    alone.fit(training, training["wins_a"], training["n_battles"])
    expected = evaluation.all_metrics(test, alone.predict_proba(test)[:, 1])["log_loss"][0]
    value = scores.set_index(["protocol", "predictor", "metric"]).loc[("both_unseen", "raw", "log_loss"), "value"]
    assert value == pytest.approx(expected)
