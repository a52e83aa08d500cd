"""Features for your own species, which are not in the game tables: stats and types, but no moves.

A feature describes side A (`a_...`), describes side B by the same rule (`b_...`), or is A's stat minus B's
(`lead_...`, which changes sign when the sides are swapped).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from pokebattle.game.matchups import positions

TYPES = ["type_1", "type_2"]


def stats(species: pd.DataFrame) -> list[str]:
    """Return the names of the stats, which are the numeric columns of the table.

    Parameters
    ----------
    species : DataFrame
        As in `StatFeatures`.
    """
    return species.select_dtypes("number").columns.tolist()


class StatelessFeatures(TransformerMixin, BaseEstimator, ABC):
    """Base of the transformers from matchups to features, which learn nothing from data.

    Subclasses define `_check` and `_numbers`.
    """

    @abstractmethod
    def _check(self, X: pd.DataFrame) -> None:
        """Raise a ValueError if the columns or the ids of `X` are invalid."""

    @abstractmethod
    def _numbers(self, X: pd.DataFrame, orientations: int) -> np.ndarray:
        """Return the features in one or two orientations, shape (orientations, n_matchups, n_features), float32."""

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:
        """Check the columns of `X` and the ids in its first row. `transform` checks all rows.

        Parameters
        ----------
        X : DataFrame
            As in `transform`.
        y : ignored

        Raises
        ------
        ValueError
            If a column is missing, or the first row has an unknown id or a species without a move to draw.
        """
        self._check(X.head(1))
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Compute the features.

        Parameters
        ----------
        X : DataFrame
            Matchups. Columns that are not needed are ignored.

        Returns
        -------
        ndarray of float32, shape (n_matchups, n_features)

        Raises
        ------
        ValueError
            As in `fit`, for all rows.
        """
        return self._numbers(X, 1)[0]

    def both_orientations(self, X: pd.DataFrame) -> np.ndarray:
        """Compute the features of the matchups and of the matchups with swapped sides.

        Parameters
        ----------
        X : DataFrame
            As in `transform`.

        Returns
        -------
        ndarray of float32, shape (2, n_matchups, n_features)

        Raises
        ------
        ValueError
            As in `fit`, for all rows.
        """
        return self._numbers(X, 2)


class StatFeatures(StatelessFeatures):
    """Turn matchups (columns species_a and species_b) into features.

    Parameters
    ----------
    species : DataFrame
        Index species id (text); columns type_1 and type_2 ("" if there is none), and any numeric columns (the stats).
    """

    def __init__(self, species: pd.DataFrame) -> None:
        self.species = species

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> StatFeatures:
        """Create the transformer that `config` described.

        Parameters
        ----------
        config : dict
            The return value of `config`.
        """
        table = pd.DataFrame(config["columns"], index=pd.Index(config["species_id"], dtype="str", name="species_id"))
        return cls(table.astype(dict.fromkeys(TYPES, "str")))

    def config(self) -> dict[str, Any]:
        """Return the table of species as values that JSON stores without loss."""
        columns = self.species[[*TYPES, *stats(self.species)]].to_dict("list")
        return {"species_id": self.species.index.tolist(), "columns": columns}

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Return the names of the columns of `transform`.

        Parameters
        ----------
        input_features : ignored
        """
        own = [*stats(self.species), *(f"is_{name}" for name in self._types())]
        leads = [f"lead_{name}" for name in stats(self.species)]
        return np.array([f"{side}_{name}" for side in "ab" for name in own] + leads, dtype=object)

    def _types(self) -> list[str]:
        return sorted({*self.species["type_1"], *self.species["type_2"]} - {""})

    def _rows(self, X: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of A and of B in the table of species."""
        return positions(X, "species_a", self.species.index), positions(X, "species_b", self.species.index)

    def _check(self, X: pd.DataFrame) -> None:
        self._rows(X)

    def _numbers(self, X: pd.DataFrame, orientations: int) -> np.ndarray:
        a, b = self._rows(X)
        return np.stack([self._described(*sides) for sides in ((a, b), (b, a))[:orientations]])

    def _described(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        values = self.species[stats(self.species)].to_numpy(float)
        pair = self.species[TYPES].to_numpy(object)
        own = np.column_stack([values, *((pair == name).any(axis=1) for name in self._types())])
        return np.column_stack([own[a], own[b], values[a] - values[b]]).astype(np.float32)
