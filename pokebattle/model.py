"""The model: gradient-boosted trees on the features of a matchup, whose two orientations agree exactly."""

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

from pokebattle.features import MARGIN, MatchupFeatures, matchup_features
from pokebattle.stat_features import StatFeatures

BOOSTER, CONFIG = "booster.ubj", "features.json"


class BattleWinner(BaseEstimator):
    """Predict the probability that A wins a matchup.

    The trees see every matchup of the training part in both orientations. The margin (log-odds) of A against B is
    half the difference of the trees' margins in the two orientations, so it changes sign when the sides swap. Where the
    features hold a simulated margin the trees begin from it and learn what it lacks.

    Parameters
    ----------
    features : str
        A set of `features.FEATURE_SETS`.
    n_estimators, max_depth, learning_rate, subsample, colsample_bytree, min_child_weight, reg_lambda
        XGBoost's. `min_child_weight` is in units of p (1 - p), summed over battles.
    random_state : int
        Seed of the row and column draws.
    n_jobs : int
        Threads. The trees do not depend on it.

    Attributes
    ----------
    features_ : MatchupFeatures or StatFeatures
    species_ : DataFrame or None
        The table of species that was given to `fit`.
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
        """Take every parameter from the attribute of the same name, e.g. of `params.Params`."""
        return cls(**{name: getattr(params, name) for name in cls._get_param_names()})

    def fit(
        self,
        matchups: pd.DataFrame | np.ndarray,
        wins_a: ArrayLike,
        n_battles: ArrayLike,
        species: pd.DataFrame | None = None,
    ) -> BattleWinner:
        """Fit on shares of wins, each matchup weighted by its battles.

        Parameters
        ----------
        matchups : DataFrame of n rows, or ndarray of shape (2, n, n_features)
            Columns species_a, species_b and, of the game's species, move_a, move_b; or what the features'
            `both_orientations` made of them, as everywhere in this class, so that refits need not compute it again.
        wins_a, n_battles : array-like of shape (n,)
            Battles won by A and battles fought.
        species : DataFrame, optional
            A table of species that are not the game's, see `features.matchup_features`.
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
        """Return what the trees learn from: all matchups from A's side, then all from B's.

        Parameters
        ----------
        numbers : ndarray of shape (2, n, n_features)
        wins_a, n_battles : array-like of shape (n,)
        kind : type
            What is to be predicted needs an `xgboost.DMatrix`: the other knows the numbers by their bins only.
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
        """Return the parameters of this model as `xgboost.train` takes them."""
        settings = self.get_params() | {"objective": "binary:logistic", "base_score": 0.5}
        for name in ("features", "n_estimators"):
            del settings[name]
        return settings | {"seed": settings.pop("random_state"), "nthread": settings.pop("n_jobs")}

    def margin(self, matchups: pd.DataFrame | np.ndarray) -> np.ndarray:
        """Return the log-odds that A wins, shape (n,); with the sides swapped it is the negative, bit for bit."""
        check_is_fitted(self, "booster_")
        self.booster_.set_param({"nthread": self.n_jobs})
        forward, backward = (
            self.booster_.inplace_predict(numbers, predict_type="margin", base_margin=self._offset(numbers))
            for numbers in self._numbers(matchups)
        )
        return (forward.astype(float) - backward.astype(float)) / 2

    def predict_proba(self, matchups: pd.DataFrame | np.ndarray) -> np.ndarray:
        """Return P(B wins) and P(A wins), shape (n, 2), after scikit-learn's order of the classes 0 and 1."""
        margin = self.margin(matchups)
        return np.column_stack([expit(-margin), expit(margin)])

    @property
    def feature_names(self) -> list[str]:
        """Names of the features that the trees were fitted on."""
        check_is_fitted(self, "features_")
        return self.features_.get_feature_names_out().tolist()

    def importance(self) -> pd.DataFrame:
        """Return the share of the total gain of every feature, largest first, both sides of a pair together.

        Returns
        -------
        DataFrame
            Index feature (without `a_`, `b_`), column gain (shares that sum to 1); unused features are left out.
        """
        check_is_fitted(self, "booster_")
        gain = pd.Series(self.booster_.get_score(importance_type="total_gain"), dtype=float)
        gain = gain.groupby(gain.index.str.replace(r"^[ab]_", "", regex=True)).sum().sort_values(ascending=False)
        return (gain / gain.sum()).rename("gain").rename_axis("feature").to_frame()

    def contributions(self, matchups: pd.DataFrame | np.ndarray) -> pd.DataFrame:
        """Return what every feature adds to the margin: exact Shapley values of the trees (TreeSHAP).

        They are halved differences of the two orientations, as the margin is: what a fighter's feature says where it
        is A, less what the same fighter's says where it is B. What the trees begin from counts to the simulated margin.
        Lundberg et al., "From local explanations to global understanding with explainable AI for trees", 2020.

        Returns
        -------
        DataFrame of shape (n_matchups, n_features)
            In log-odds, positive where it speaks for A. A row sums to the margin, but for rounding to 32 bits. Swapping
            the sides of a matchup swaps `a_` and `b_`, and the signs.
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
        """Write the model into a folder: the booster in XGBoost's own format, everything else as JSON.

        A table of species goes with it, so that they can be told to `load`'s model by their ids.
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
        """Read a model that `save` wrote; it predicts the same bits.

        Raises
        ------
        ValueError
            If this version of the package computes other features than the model was fitted on.
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
        """Return the features' Shapley values, and in the last column what the trees begin from."""
        rows = xgboost.DMatrix(
            numbers, base_margin=self._offset(numbers), feature_names=self.feature_names, nthread=self.n_jobs
        )
        return self.booster_.predict(rows, pred_contribs=True).astype(float)

    def _offset(self, numbers: np.ndarray) -> np.ndarray | None:
        """Return the margin that the trees begin from, if the features hold one."""
        return numbers[:, self.feature_names.index(MARGIN)] if MARGIN in self.feature_names else None

    def _numbers(self, matchups: pd.DataFrame | np.ndarray) -> np.ndarray:
        return matchups if isinstance(matchups, np.ndarray) else self.features_.both_orientations(matchups)


class WinProbability:
    """A loaded model as MLflow's pyfunc wants it: `predict` gives P(A wins)."""

    def __init__(self, model: BattleWinner) -> None:
        self.model = model

    def predict(self, model_input: pd.DataFrame) -> np.ndarray:
        """Return P(A wins), shape (n,), of matchups with the columns that the model's signature names."""
        return self.model.predict_proba(model_input)[:, 1]


def _load_pyfunc(path: str) -> WinProbability:
    """Load for `mlflow.pyfunc` (loader_module="pokebattle.model")."""
    return WinProbability(BattleWinner.load(path))
