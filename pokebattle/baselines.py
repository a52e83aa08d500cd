"""What a model has to beat: a constant, three rules of thumb, and logistic regression on the model's features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pokebattle import dex
from pokebattle.battles import STATS
from pokebattle.features import MatchupFeatures, matchup_features
from pokebattle.stat_features import StatFeatures, stats

Rule = Callable[[pd.DataFrame], np.ndarray]
Transformer = MatchupFeatures | StatFeatures


def faster_species(matchups: pd.DataFrame) -> np.ndarray:
    """Favour the species with the higher base speed."""
    return _compare(dex.species()["speed"], matchups)


def base_stat_total(matchups: pd.DataFrame) -> np.ndarray:
    """Favour the species with the higher sum of base stats."""
    return _compare(dex.species()[STATS].sum(axis=1), matchups)


def damage_race(matchups: pd.DataFrame) -> np.ndarray:
    """Favour the side that has more likely than not knocked out the other in fewer turns, at a tie the first mover."""
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
    """Return the rules that can be told of species: all of `RULES`, or those of a table that need no moves.

    Parameters
    ----------
    species : DataFrame, optional
        A table of species that are not the game's, see `features.matchup_features`. The faster one is favoured where it
        has a stat called speed; the total is of the stats that the game has as well, or else of all.
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
    """Fit every baseline on the training part and predict P(A wins) of other matchups.

    Parameters
    ----------
    training, matchups : DataFrame
        Matchups; the training part with wins_a and n_battles.
    features : str, default "mechanics"
        The feature set of the logistic regression.
    species : DataFrame, optional
        A table of species that are not the game's: the logistic regression has their `raw` features, and rules that
        need moves are left out.

    Returns
    -------
    dict of str to ndarray of shape (n_matchups,)
        Swapping the sides of a matchup mirrors every one of them, so the constant can only be 1/2.
    """
    predictions = {"constant": np.full(len(matchups), 0.5)}
    predictions |= {name: rule_probability(rule, training, matchups) for name, rule in rules(species).items()}
    transformer = matchup_features("raw" if species is not None else features, species)
    return predictions | {"logistic regression": logistic_regression(training, matchups, transformer)}


def rule_probability(rule: Rule, training: pd.DataFrame, matchups: pd.DataFrame) -> np.ndarray:
    """Give the side that a rule favours the share of battles that such sides won in the training part.

    Parameters
    ----------
    rule : callable
        From matchups to 1 (favours A), -1 (favours B) or 0 (cannot tell: probability 1/2).
    """
    favours, wins, n = rule(training), training["wins_a"], training["n_battles"]
    right = np.select([favours > 0, favours < 0], [wins, n - wins], 0).sum()
    share = right / max(n[favours != 0].sum(), 1)
    favours = rule(matchups)
    return np.select([favours > 0, favours < 0], [share, 1 - share], 0.5)


def logistic_regression(training: pd.DataFrame, matchups: pd.DataFrame, transformer: Transformer) -> np.ndarray:
    """Logistic regression on the differences of the two sides' features, without intercept.

    Newton's method goes to the optimum itself: where L-BFGS stops depends on the last bits of the processor's sums.
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
    """A's features less B's (those of B less A's would repeat them), and twice the comparisons."""
    columns = [not name.startswith("b_") for name in transformer.get_feature_names_out()]
    forward, backward = transformer.both_orientations(matchups)
    return (forward - backward)[:, columns]


def _compare(strength: pd.Series, matchups: pd.DataFrame) -> np.ndarray:
    a, b = (strength.loc[matchups[side]].to_numpy() for side in ("species_a", "species_b"))
    return np.sign(a - b)
