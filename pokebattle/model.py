"""The model: gradient-boosted trees on matchup features, with exactly mirrored predictions when the sides swap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from pokebattle.learning.features import MARGIN, MatchupFeatures, matchup_features
from pokebattle.learning.stat_features import StatFeatures

BOOSTER, CONFIG = "booster.ubj", "features.json"


class BattleWinner(BaseEstimator):
    """Predict the probability that A wins a matchup.

    The trees see every matchup of the training part in both orientations. The margin (log-odds) of A against B is
    half the difference of the trees' margins in the two orientations, so it changes sign when the sides swap. If the
    features contain a simulated margin, boosting starts from it (XGBoost's `base_margin`).

    Parameters
    ----------
    features : str
        Name of a feature set, a key of `features.FEATURE_SETS`.
    n_estimators, max_depth, learning_rate, subsample, colsample_bytree, min_child_weight, reg_lambda
        XGBoost parameters. `min_child_weight` is in units of p (1 - p), summed over battles.
    random_state : int
        Seed for subsampling rows and columns.
    n_jobs : int
        Number of threads. The fitted trees do not depend on it.

    Attributes
    ----------
    features_ : MatchupFeatures or StatFeatures
    species_ : DataFrame or None
        The `species` argument of `fit`.
    booster_ : xgboost.Booster
    """

    def __init__(
        self,
        *,
        features: str,
        n_estimators: int,
        max_depth: int,
        learning_rate: float,
        subsample: float,
        colsample_bytree: float,
        min_child_weight: float,
        reg_lambda: float,
        random_state: int,
        n_jobs: int,
    ) -> None:
        self.features = features
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.subsample = subsample
        self.colsample_bytree = colsample_bytree
        self.min_child_weight = min_child_weight
        self.reg_lambda = reg_lambda
        self.random_state = random_state
        self.n_jobs = n_jobs

    @classmethod
    def from_params(cls, params: object) -> BattleWinner:
        """Create a model from an object with one attribute for each parameter.

        Parameters
        ----------
        params : object
            For example a `params.Params`. Other attributes are ignored.

        Raises
        ------
        AttributeError
            If `params` lacks one of the parameters.
        """
        return cls(**{name: getattr(params, name) for name in cls._get_param_names()})

    def fit(
        self,
        matchups: pd.DataFrame | np.ndarray,
        wins_a: ArrayLike,
        n_battles: ArrayLike,
        species: pd.DataFrame | None = None,
    ) -> BattleWinner:
        """Fit on shares of wins. Each matchup is weighted by its number of battles.

        Parameters
        ----------
        matchups : DataFrame of n rows, or ndarray of shape (2, n, n_features)
            Columns species_a, species_b and, for species of the game, move_a, move_b. Or the array that the
            transformer's `both_orientations` returned for them, so that a refit does not compute the features again.
            All methods of this class accept both.
        wins_a, n_battles : array-like of shape (n,)
            Battles won by A and battles fought.
        species : DataFrame, optional
            Your own table of species, see `features.matchup_features`. By default the species of the game.
        """
        self.species_ = species
        self.features_ = matchup_features(self.features, species)
        rows = self.rows(self._numbers(matchups), wins_a, n_battles)
        self.booster_ = xgboost.train(self.settings(), rows, num_boost_round=self.n_estimators)
        return self

    def rows(
        self,
        numbers: np.ndarray,
        wins_a: ArrayLike,
        n_battles: ArrayLike,
        kind: type[xgboost.DMatrix] = xgboost.QuantileDMatrix,
    ) -> xgboost.DMatrix:
        """Return the training data for XGBoost: all matchups from A's side, then all from B's.

        Parameters
        ----------
        numbers : ndarray of shape (2, n, n_features)
            Features in both orientations.
        wins_a, n_battles : array-like of shape (n,)
            Battles won by A and battles fought.
        kind : type, default xgboost.QuantileDMatrix
            Use `xgboost.DMatrix` for data to predict on: a `QuantileDMatrix` keeps only the bins of the values.
        """
        n_battles = np.asarray(n_battles, dtype=float)
        share = np.asarray(wins_a) / n_battles
        numbers = numbers.reshape(-1, numbers.shape[-1])
        return kind(
            numbers,
            label=np.append(share, 1 - share),
            weight=np.append(n_battles, n_battles),
            base_margin=self._offset(numbers),
            feature_names=self.feature_names,
            nthread=self.n_jobs,
        )

    def settings(self) -> dict[str, Any]:
        """Return the parameters of this model under the names that `xgboost.train` expects."""
        settings = self.get_params() | {"objective": "binary:logistic", "base_score": 0.5}
        for name in ("features", "n_estimators"):
            del settings[name]
        return settings | {"seed": settings.pop("random_state"), "nthread": settings.pop("n_jobs")}

    def margin(self, matchups: pd.DataFrame | np.ndarray) -> np.ndarray:
        """Return the log-odds that A wins. Swapping the sides negates them, bit for bit.

        Parameters
        ----------
        matchups : DataFrame or ndarray
            As in `fit`.

        Returns
        -------
        ndarray of float, shape (n,)
        """
        check_is_fitted(self, "booster_")
        self.booster_.set_param({"nthread": self.n_jobs})
        forward, backward = (
            self.booster_.inplace_predict(numbers, predict_type="margin", base_margin=self._offset(numbers))
            for numbers in self._numbers(matchups)
        )
        return (forward.astype(float) - backward.astype(float)) / 2

    def predict_proba(self, matchups: pd.DataFrame | np.ndarray) -> np.ndarray:
        """Return P(B wins) and P(A wins), in scikit-learn's order of the classes 0 and 1.

        Parameters
        ----------
        matchups : DataFrame or ndarray
            As in `fit`.

        Returns
        -------
        ndarray of float, shape (n, 2)
        """
        margin = self.margin(matchups)
        return np.column_stack([expit(-margin), expit(margin)])

    @property
    def feature_names(self) -> list[str]:
        """Return the names of the features that the trees were fitted on."""
        check_is_fitted(self, "features_")
        return self.features_.get_feature_names_out().tolist()

    def importance(self) -> pd.DataFrame:
        """Return each feature's share of the total gain, largest first. A feature's two sides are added up.

        Returns
        -------
        DataFrame
            Index feature (without `a_`, `b_`), column gain (shares that sum to 1). Unused features are left out.
        """
        check_is_fitted(self, "booster_")
        gain = pd.Series(self.booster_.get_score(importance_type="total_gain"), dtype=float)
        gain = gain.groupby(gain.index.str.replace(r"^[ab]_", "", regex=True)).sum().sort_values(ascending=False)
        return (gain / gain.sum()).rename("gain").rename_axis("feature").to_frame()

    def contributions(self, matchups: pd.DataFrame | np.ndarray) -> pd.DataFrame:
        """Return how much each feature contributes to the margin: exact Shapley values of the trees (TreeSHAP).

        Like the margin, a contribution is half the difference of the two orientations: the Shapley value of a
        fighter's feature when the fighter is A, minus its value when the same fighter is B. The base margin of the
        trees is added to the contribution of the simulated margin.
        Lundberg et al., "From local explanations to global understanding with explainable AI for trees", 2020.

        Parameters
        ----------
        matchups : DataFrame or ndarray
            As in `fit`.

        Returns
        -------
        DataFrame of shape (n_matchups, n_features)
            In log-odds; positive values favour A. A row sums to the margin, except for rounding to 32 bits. Swapping
            the sides of a matchup swaps `a_` and `b_` and changes the signs.
        """
        check_is_fitted(self, "booster_")
        self.booster_.set_param({"nthread": self.n_jobs})
        names = self.feature_names
        forward, backward = (self._shapley_values(numbers) for numbers in self._numbers(matchups))
        other = {"a_": "b_", "b_": "a_"}
        swapped = [names.index(other.get(name[:2], name[:2]) + name[2:]) for name in names]
        index = matchups.index if isinstance(matchups, pd.DataFrame) else None
        table = pd.DataFrame((forward[:, :-1] - backward[:, swapped]) / 2, index=index, columns=names)
        if MARGIN in names:
            table[MARGIN] += (forward[:, -1] - backward[:, -1]) / 2
        return table

    def save(self, folder: Path | str) -> Path:
        """Write the model to a folder: the booster in XGBoost's own format, everything else as JSON.

        The files include the model's own table of species, if it has one, so that a loaded model needs only their ids.

        Parameters
        ----------
        folder : Path or str
            Created if it is missing.

        Returns
        -------
        Path
            The folder.
        """
        check_is_fitted(self, "booster_")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.booster_.save_model(folder / BOOSTER)
        features = self.features_
        config = {
            "parameters": self.get_params(),
            "transformer": features.config() if isinstance(features, StatFeatures) else features.get_params(),
            "columns": self.feature_names,
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> BattleWinner:
        """Read a model that `save` wrote. It makes bit-identical predictions.

        Parameters
        ----------
        folder : Path or str

        Raises
        ------
        ValueError
            If this version of the package computes other features than the ones the model was fitted on.
        """
        config = json.loads((Path(folder) / CONFIG).read_text())
        model, transformer = cls(**config["parameters"]), config["transformer"]
        if "species_id" in transformer:
            model.features_ = StatFeatures.from_config(transformer)
            model.species_ = model.features_.species
        else:
            model.features_, model.species_ = MatchupFeatures(**transformer), None
        names = model.features_.get_feature_names_out().tolist()
        if names != config["columns"]:
            changed = sorted(set(names) ^ set(config["columns"])) or ["their order"]
            raise ValueError(f"{CONFIG}: the model was fitted on other features, different: {', '.join(changed)}")
        model.booster_ = xgboost.Booster(model_file=Path(folder) / BOOSTER)
        return model

    def _shapley_values(self, numbers: np.ndarray) -> np.ndarray:
        """Return the features' Shapley values and, in the last column, the base margin."""
        rows = xgboost.DMatrix(
            numbers, base_margin=self._offset(numbers), feature_names=self.feature_names, nthread=self.n_jobs
        )
        return self.booster_.predict(rows, pred_contribs=True).astype(float)

    def _offset(self, numbers: np.ndarray) -> np.ndarray | None:
        """Return the base margin that boosting starts from, or None if the features contain none."""
        return numbers[:, self.feature_names.index(MARGIN)] if MARGIN in self.feature_names else None

    def _numbers(self, matchups: pd.DataFrame | np.ndarray) -> np.ndarray:
        return matchups if isinstance(matchups, np.ndarray) else self.features_.both_orientations(matchups)


class WinProbability:
    """Wrap a loaded model for MLflow's pyfunc: `predict` returns P(A wins).

    Parameters
    ----------
    model : BattleWinner
    """

    def __init__(self, model: BattleWinner) -> None:
        self.model = model

    def predict(self, model_input: pd.DataFrame) -> np.ndarray:
        """Return P(A wins).

        Parameters
        ----------
        model_input : DataFrame of n rows
            Matchups, with the columns of the model's signature.

        Returns
        -------
        ndarray of float, shape (n,)
        """
        return self.model.predict_proba(model_input)[:, 1]


def _load_pyfunc(path: str) -> WinProbability:
    """Load a model for `mlflow.pyfunc` (loader_module="pokebattle.model")."""
    return WinProbability(BattleWinner.load(path))
