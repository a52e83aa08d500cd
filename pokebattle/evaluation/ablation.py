"""Compare feature sets and protocols on the same battles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
from sklearn.base import clone

from pokebattle.datasets import load_battles, open_part, splits
from pokebattle.evaluation import LIMIT, evaluate, has_limit, single_orientation
from pokebattle.evaluation.placeholders import note
from pokebattle.learning.features import FEATURE_SETS

if TYPE_CHECKING:
    from pokebattle.datasets import BattleSet
    from pokebattle.model import BattleWinner
    from pokebattle.params import Params


def compare_feature_sets(estimator: BattleWinner, params: Params) -> pd.DataFrame:
    """Return the excess of every feature set under every protocol.

    Parameters
    ----------
    estimator : BattleWinner
        Provides the hyperparameters. It is not changed.
    params : Params
        The version. Its feature set and protocol are ignored.

    Returns
    -------
    DataFrame
        Index protocol and predictor (the feature set); columns value, low, high (log-loss above the Bayes limit, in
        percent, with its interval), n_matchups, n_battles. A note if the battles have no moves or no limit.
    """
    if params.tables:
        return note("own battles have no moves, and one protocol: feature sets are not compared")
    limits = params.max_matchups, params.max_judging_pairs
    sets = {name: load_battles(params.dataset, name, *limits) for name in splits.PROTOCOLS}
    tests = {name: single_orientation(open_part(battles, "test")) for name, battles in sets.items()}
    if not all(map(has_limit, tests.values())):
        return note("a formula decides these battles: there is no limit to compare feature sets with")
    scores = fit_and_judge(estimator, params, sets, tests)
    excess = scores[(scores["metric"] == "excess_percent") & (scores["predictor"] != LIMIT)]
    return excess.set_index(["protocol", "predictor"]).drop(columns=["metric"])


def fit_and_judge(
    estimator: BattleWinner, params: Params, sets: Mapping[str, BattleSet], tests: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Fit a model with every feature set under every protocol, and score it on the protocol's test part.

    Parameters
    ----------
    estimator, params
        As in `compare_feature_sets`.
    sets : mapping of str to BattleSet
        The battles, by protocol.
    tests : mapping of str to DataFrame
        The test part in one orientation, by protocol.

    Returns
    -------
    DataFrame
        As from `evaluation.evaluate`, with a first column protocol; the predictors are the feature sets.
    """
    tables: dict[str, pd.DataFrame] = {}
    fitted: list[tuple[pd.DataFrame, dict[str, BattleWinner]]] = []
    for protocol, battles in sets.items():
        training = battles.training
        models = next((models for known, models in fitted if known.equals(training)), None)
        if models is None:  # the two unseen protocols have the same training part
            models = {name: _fitted(estimator, name, training) for name in FEATURE_SETS}
            fitted.append((training, models))
        test = tests[protocol]
        tables[protocol] = evaluate(
            test,
            {name: model.predict_proba(test)[:, 1] for name, model in models.items()},
            n_bootstrap=params.n_bootstrap,
            random_state=params.random_state,
            families=None if protocol == "pair" else battles.families,
        )
    return pd.concat(tables, names=["protocol"]).reset_index(level="protocol").reset_index(drop=True)


def _fitted(estimator: BattleWinner, features: str, training: pd.DataFrame) -> BattleWinner:
    model = clone(estimator).set_params(features=features)
    return model.fit(training, training["wins_a"], training["n_battles"])
