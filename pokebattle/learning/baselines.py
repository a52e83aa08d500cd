"""Baselines that a model has to beat: a constant, three simple rules, and a logistic regression on its features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pokebattle.game import dex
from pokebattle.game.matchups import STATS
from pokebattle.learning.features import MatchupFeatures, matchup_features
from pokebattle.learning.stat_features import StatFeatures, stats

Rule = Callable[[pd.DataFrame], np.ndarray]
Transformer = MatchupFeatures | StatFeatures


def faster_species(matchups: pd.DataFrame) -> np.ndarray:
    """Predict that the species with the higher base speed wins.

    Parameters
    ----------
    matchups : DataFrame of n rows
        Columns species_a and species_b.

    Returns
    -------
    ndarray of shape (n,)
        1 for A, -1 for B, 0 for no preference. The same for all rules.
    """
    return _compare(dex.species()["speed"], matchups)


def base_stat_total(matchups: pd.DataFrame) -> np.ndarray:
    """Predict that the species with the higher sum of base stats wins.

    Parameters
    ----------
    matchups : DataFrame of n rows
        Columns species_a and species_b.
    """
    return _compare(dex.species()[STATS].sum(axis=1), matchups)


def damage_race(matchups: pd.DataFrame) -> np.ndarray:
    """Predict that the side that needs fewer turns for a knock-out wins; at a tie, the side that moves first.

    A side's number of turns ends with the first turn by which the knock-out has a probability of at least 1/2.

    Parameters
    ----------
    matchups : DataFrame of n rows
        Columns species_a, species_b, move_a, move_b.
    """
    race = MatchupFeatures(blocks=["pace"], comparisons=["moves_first"])
    numbers = race.set_output(transform="pandas").fit_transform(matchups)
    a, b = ((numbers.filter(regex=rf"^{side}_down_by_") < 0.5).sum(axis=1) for side in "ab")
    return np.where(a != b, np.sign(b - a), numbers["moves_first"])


RULES: dict[str, Rule] = {
    "faster species": faster_species,
    "higher base-stat total": base_stat_total,
    "damage race": damage_race,
}


def rules(species: pd.DataFrame | None = None) -> dict[str, Rule]:
    """Return the rules that apply to the given species.

    Parameters
    ----------
    species : DataFrame, optional
        Your own table of species, see `features.matchup_features`. Only rules that need no moves apply to it: "faster
        species" if it has a stat called speed, and "higher base-stat total", the sum of the stats that the game has
        too, or of all stats if there are none. By default the species of the game, to which all `RULES` apply.
    """
    if species is None:
        return RULES
    named = [name for name in STATS if name in species] or stats(species)
    strengths = {"higher base-stat total": species[named].sum(axis=1)}
    if "speed" in species:
        strengths = {"faster species": species["speed"]} | strengths
    return {name: partial(_compare, strength) for name, strength in strengths.items()}


def baselines(
    training: pd.DataFrame, matchups: pd.DataFrame, features: str = "mechanics", species: pd.DataFrame | None = None
) -> dict[str, np.ndarray]:
    """Fit every baseline on the training part and predict P(A wins) for other matchups.

    Parameters
    ----------
    training, matchups : DataFrame
        Matchups to fit on, with wins_a and n_battles, and matchups to predict.
    features : str, default "mechanics"
        Feature set of the logistic regression.
    species : DataFrame, optional
        Your own table of species. The logistic regression then uses the feature set `raw`, and rules that need moves
        are left out.

    Returns
    -------
    dict of str to ndarray of shape (n_matchups,)
        P(A wins) by name of the baseline. Swapping the sides of a matchup changes p to 1 - p, so the constant is 1/2.
    """
    predictions = {"constant": np.full(len(matchups), 0.5)}
    predictions |= {name: rule_probability(rule, training, matchups) for name, rule in rules(species).items()}
    transformer = matchup_features("raw" if species is not None else features, species)
    return predictions | {"logistic regression": logistic_regression(training, matchups, transformer)}


def rule_probability(rule: Rule, training: pd.DataFrame, matchups: pd.DataFrame) -> np.ndarray:
    """Turn a rule into probabilities: the share of training battles that the side favoured by the rule has won.

    Parameters
    ----------
    rule : callable
        Maps matchups to 1 (favours A), -1 (favours B) or 0 (no preference: probability 1/2).
    training : DataFrame
        Matchups with wins_a and n_battles.
    matchups : DataFrame of n rows
        Matchups to predict.

    Returns
    -------
    ndarray of shape (n,)
        P(A wins).
    """
    favours, wins, n = rule(training), training["wins_a"], training["n_battles"]
    right = np.select([favours > 0, favours < 0], [wins, n - wins], 0).sum()
    share = right / max(n[favours != 0].sum(), 1)
    favours = rule(matchups)
    return np.select([favours > 0, favours < 0], [share, 1 - share], 0.5)


def logistic_regression(training: pd.DataFrame, matchups: pd.DataFrame, transformer: Transformer) -> np.ndarray:
    """Fit a logistic regression without intercept on the differences of the two sides' features, and predict P(A wins).

    Newton's method reaches the optimum itself. The point at which L-BFGS stops depends on the processor's rounding.

    Parameters
    ----------
    training : DataFrame
        Matchups with wins_a and n_battles.
    matchups : DataFrame of n rows
        Matchups to predict.
    transformer : MatchupFeatures or StatFeatures

    Returns
    -------
    ndarray of shape (n,)
    """
    wins, losses = training["wins_a"], training["n_battles"] - training["wins_a"]
    numbers = _differences(training, transformer)
    solver = LogisticRegression(fit_intercept=False, solver="newton-cholesky", tol=1e-8)
    model = make_pipeline(StandardScaler(with_mean=False), solver)
    model.fit(
        np.vstack([numbers, numbers]),
        np.repeat([1, 0], len(training)),
        logisticregression__sample_weight=np.append(wins, losses),
    )
    return model.predict_proba(_differences(matchups, transformer))[:, 1]


def _differences(matchups: pd.DataFrame, transformer: Transformer) -> np.ndarray:
    """Return A's features minus B's, and twice the comparisons. B's features minus A's would be redundant."""
    columns = [not name.startswith("b_") for name in transformer.get_feature_names_out()]
    forward, backward = transformer.both_orientations(matchups)
    return (forward - backward)[:, columns]


def _compare(strength: pd.Series, matchups: pd.DataFrame) -> np.ndarray:
    a, b = (strength.loc[matchups[side]].to_numpy() for side in ("species_a", "species_b"))
    return np.sign(a - b)
