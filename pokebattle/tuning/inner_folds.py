"""Inner folds of the training part, which judge the trials of a search by their log-loss."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import optuna
import xgboost
from optuna.trial import Trial

from pokebattle.datasets import BattleSet, splits
from pokebattle.learning.features import matchup_features
from pokebattle.model import BattleWinner
from pokebattle.params import Params

N_REPORTS = 10  # values that the longest trial reports to the pruner; each is a write to the storage
REPEATS = 3  # predictions are timed this often; the fastest counts


class Fold(NamedTuple):
    """The data of one fold.

    Attributes
    ----------
    fit, validate : xgboost.DMatrix
        Both orientations of the matchups.
    numbers : ndarray of shape (2 * n_matchups, n_features)
        Features of the validation matchups, in both orientations.
    wins, n : ndarray of shape (n_matchups,)
        Battles won by A, and battles fought, of the validation matchups.
    """

    fit: xgboost.DMatrix
    validate: xgboost.DMatrix
    numbers: np.ndarray
    wins: np.ndarray
    n: np.ndarray


class InnerFolds:
    """The folds that judge trials. Called with a trial, they are Optuna's objective.

    They can be pickled for other processes.

    Parameters
    ----------
    params : Params
        The version, with its search space and the fixed settings.
    battles : BattleSet
        Only the training part is used.
    """

    def __init__(self, params: Params, battles: BattleSet) -> None:
        self.params = params
        training = battles.training
        self.species = battles.species
        self.wins, self.n = training["wins_a"].to_numpy(float), training["n_battles"].to_numpy(float)
        self.folds = list(splits.folds(training, params.protocol, battles.families, params.n_folds))
        searched = params.search.get("features")
        self.features = {
            name: matchup_features(name, battles.species).fit(training)
            for name in (searched and searched.choices) or [params.features]
        }
        self.numbers = {name: features.both_orientations(training) for name, features in self.features.items()}
        highest = params.search["n_estimators"].high if "n_estimators" in params.search else params.n_estimators
        self.interval = max(1, highest // N_REPORTS)
        self._prepared: dict[str, list[Fold]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_prepared": {}}  # XGBoost's matrices are not sent to other processes

    def fit(self, values: dict[str, Any]) -> BattleWinner:
        """Return a model that is fitted on the whole training part.

        Parameters
        ----------
        values : dict
            Settings that replace the version's.
        """
        model = BattleWinner.from_params(self.params.model_copy(update=values))
        return model.fit(self.numbers[model.features], self.wins, self.n, self.species)

    def defaults(self) -> dict[str, Any]:
        """Return the version's own values of the searched parameters."""
        return {name: getattr(self.params, name) for name in self.params.search}

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Suggest a value for every searched parameter.

        Parameters
        ----------
        trial : Trial

        Returns
        -------
        dict
            Values by name.
        """
        values: dict[str, Any] = {}
        for name, searched in self.params.search.items():
            if searched.choices is not None:
                values[name] = trial.suggest_categorical(name, searched.choices)
            else:
                integer = Params.model_fields[name].annotation is int
                suggest = trial.suggest_int if integer else trial.suggest_float
                values[name] = suggest(name, searched.low, searched.high, log=searched.log)
        return values

    def __call__(self, trial: Trial) -> float:
        """Return the log-loss of the values that a trial suggests, in nats per battle; see `suggest` and `log_loss`.

        Parameters
        ----------
        trial : Trial

        Raises
        ------
        optuna.TrialPruned
            If the trial is pruned.
        """
        return self.log_loss(trial, self.suggest(trial))

    def log_loss(self, trial: Trial, values: dict[str, Any]) -> float:
        """Fit settings on every fold, one more tree in each round, and return the log-loss, in nats per battle.

        The trial stops early if the log-loss has not improved for `early_stopping_rounds` trees; its value is that of
        the best round. It is pruned if it is worse than the median of the earlier trials. Its user attributes get
        rounds (the best one), steps (rounds times max_depth), predict_us, log_loss and fit_seconds.

        Parameters
        ----------
        trial : Trial
        values : dict
            Settings that replace the version's.

        Raises
        ------
        optuna.TrialPruned
            If the trial is pruned.
        """
        began = time.perf_counter()
        model = BattleWinner.from_params(self.params.model_copy(update=values))
        folds, settings = self._folds(model), model.settings()
        boosters = [xgboost.Booster(settings, [fold.fit, fold.validate]) for fold in folds]
        best, rounds, pruned = np.inf, 0, False
        for number in range(1, model.n_estimators + 1):
            for booster, fold in zip(boosters, folds, strict=True):
                booster.update(fold.fit, number - 1)
            loss = _log_loss(boosters, folds)
            if loss < best:
                best, rounds = loss, number
            if number % self.interval == 0:
                trial.report(loss, number)
                pruned = trial.should_prune()
            if pruned or number - rounds >= self.params.early_stopping_rounds:
                break
        attributes = {
            "rounds": rounds,
            "steps": rounds * model.max_depth,
            "predict_us": _predict_us(boosters, folds, rounds),
            "log_loss": best,
            "fit_seconds": round(time.perf_counter() - began, 3),
        }
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        if pruned:
            raise optuna.TrialPruned
        return best

    def _folds(self, model: BattleWinner) -> list[Fold]:
        """Return the folds with the model's features as XGBoost matrices. They are cached."""
        if model.features not in self._prepared:
            model.features_, numbers = self.features[model.features], self.numbers[model.features]
            self._prepared[model.features] = [
                Fold(
                    model.rows(numbers[:, fit], self.wins[fit], self.n[fit]),
                    model.rows(numbers[:, judge], self.wins[judge], self.n[judge], xgboost.DMatrix),
                    numbers[:, judge].reshape(-1, numbers.shape[-1]),
                    self.wins[judge],
                    self.n[judge],
                )
                for fit, judge in self.folds
            ]
        return self._prepared[model.features]


def _log_loss(boosters: list[xgboost.Booster], folds: list[Fold]) -> float:
    """Return the log-loss over all folds in nats per battle, with margins averaged as in `BattleWinner.margin`."""
    total = 0.0
    for booster, fold in zip(boosters, folds, strict=True):
        forward, backward = booster.predict(fold.validate, output_margin=True).astype(float).reshape(2, -1)
        margin = (forward - backward) / 2
        total += fold.wins @ np.logaddexp(0, -margin) + (fold.n - fold.wins) @ np.logaddexp(0, margin)
    return float(total / sum(fold.n.sum() for fold in folds))


def _predict_us(boosters: list[xgboost.Booster], folds: list[Fold], rounds: int) -> float:
    """Return the microseconds that the prediction of one matchup takes, without computing its features."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        boosters[0].inplace_predict(folds[0].numbers, iteration_range=(0, rounds))
        seconds.append(time.perf_counter() - began)
    return round(1e6 * min(seconds) / len(folds[0].n), 3)
