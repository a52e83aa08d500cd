"""Which results of cells remain valid when cells run again: those of a single run from top to bottom.

In interactive executors, cells run in any order and more than once. A cell that fits a model, or that changes a
parameter, begins a new attempt when it runs again: its previous results and those of the cells below it belong to the
earlier attempt, results of the cells above it remain valid. Pure logic without input and output.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Key = str | int
NO_CELL: Key = ""  # the key of results that are recorded before the first cell runs


@dataclass
class CellResults:
    """The results of one execution of a cell.

    Attributes
    ----------
    turn : int
        The cell's position among the execution's executed cells, from 0.
    typed : dict
        Parameters, with their types.
    fits : list of dict
        Fitted models: ``name`` (prefix of its parameters and metrics, empty if it has none), ``model``, ``params``.
    models : Counter
        Number of fits per kind of model.
    points, logged_points : list of dict
        Metric points that were recorded automatically, and those that the cell logged with mlflow.
    logged_params : dict
        Parameters that the cell logged with mlflow.
    metrics : dict
        The latest value of each metric that the cell or the project's own code in it logged.
    text : str
        What the cell added to the run's description.
    """

    turn: int
    typed: dict[str, Any] = field(default_factory=dict)
    fits: list[dict[str, Any]] = field(default_factory=list)
    models: Counter[str] = field(default_factory=Counter)
    points: list[dict[str, Any]] = field(default_factory=list)
    logged_points: list[dict[str, Any]] = field(default_factory=list)
    logged_params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    text: str = ""


class Attempts:
    """The valid results of all cells, in the order of the notebook.

    Attributes
    ----------
    number : int
        The current attempt, from 1.
    """

    def __init__(self) -> None:
        self.number = 1
        self._order: list[Key] = [NO_CELL]  # cells in the notebook's order, as far as their execution shows it
        self._turns: dict[Key, int] = {NO_CELL: -1}
        self._results: dict[Key, CellResults] = {}
        self._cell = NO_CELL
        self._repeated: dict[str, Any] = {}  # parameters that the running cell sets to their current values

    def run_cell(self, key: Key, turn: int) -> None:
        """Record that a cell runs; a new cell is placed below the cell that ran before it.

        Parameters
        ----------
        key : str or int
            Identifies the cell in the notebook.
        turn : int
            Its position among the executed cells.
        """
        if key not in self._turns:
            self._order.insert(self._order.index(self._cell) + 1, key)
        self._turns[key] = turn
        self._cell, self._repeated = key, {}

    def go_to(self, key: Key) -> None:
        """Select which of several cells that run at the same time the next results come from.

        Parameters
        ----------
        key : str or int
            Identifies the cell in the notebook.
        """
        self._cell = key if key in self._turns else self._cell

    def begins(self, typed: Mapping[str, Any] | None = None) -> bool:
        """Return whether the running cell's next result begins another attempt.

        Parameters
        ----------
        typed : mapping, optional
            The result, if it consists of parameters.
        """
        previous = self._results.get(self._cell)
        if previous is None or previous.turn == self._turns[self._cell]:
            return False
        if typed is None:
            return bool(previous.fits)
        return self._differ(typed)

    def begin(self) -> list[int]:
        """Begin another attempt at the running cell.

        Returns
        -------
        list of int
            Turns of the cell executions whose results belong to the previous attempt.
        """
        place = self._order.index(self._cell) + 1
        below = self._order[place:]
        left = [self._turns[key] for key in below]
        if previous := self._results.pop(self._cell, None):
            left.append(previous.turn)
        for key in below:
            self._results.pop(key, None)
            del self._turns[key]
        del self._order[place:]
        self.number += 1
        return sorted(left)

    def current_results(self, typed: Mapping[str, Any] | None = None) -> CellResults:
        """Return the object to which the running cell's results are added; those of its previous execution are dropped.

        Parameters that keep their values change nothing: a cell that only sets them again does not replace its results.

        Parameters
        ----------
        typed : mapping, optional
            The result, if it consists of parameters.

        Returns
        -------
        CellResults
        """
        turn, previous = self._turns[self._cell], self._results.get(self._cell)
        if previous and (previous.turn == turn or (typed is not None and not self._differ(typed))):
            self._repeated |= typed or {}
            return previous
        self._results[self._cell] = results = CellResults(turn, dict(self._repeated))
        return results

    def _differ(self, typed: Mapping[str, Any]) -> bool:
        known = self.typed()
        return any(str(known.get(name, value)) != str(value) for name, value in typed.items())

    def all(self) -> list[CellResults]:
        """Return the valid results, in the order in which they were recorded."""
        return sorted(self._results.values(), key=lambda results: results.turn)

    def typed(self) -> dict[str, Any]:
        """Return the valid parameters, with their types."""
        return {name: value for results in self.all() for name, value in results.typed.items()}

    def fitted(self, model: str) -> int:
        """Return the number of valid fits of a kind of model.

        Parameters
        ----------
        model : str
        """
        return sum(results.models[model] for results in self._results.values())

    def metrics(self) -> dict[str, float]:
        """Return the valid metrics."""
        return {name: value for results in self.all() for name, value in results.metrics.items()}

    def text(self) -> str:
        """Return the latest valid description that a cell gave the run."""
        return next((results.text for results in reversed(self.all()) if results.text), "")

    def params(self) -> dict[str, str]:
        """Return the valid parameters as strings, as MLflow stores them, with those of the named fits."""
        named = [fit for results in self.all() for fit in results.fits if fit["name"]]
        of_fits = {f"{fit['name']}.{name}": value for fit in named for name, value in fit["params"].items()}
        return {name: str(value) for name, value in (self.typed() | of_fits).items()}

    def points(self) -> list[dict[str, Any]]:
        """Return the valid metric points that no cell logged itself."""
        return [point for results in self.all() for point in results.points]

    def logged_results(self) -> tuple[dict[str, str], list[dict[str, Any]]]:
        """Return the valid parameters and metric points that cells logged themselves."""
        params = {name: value for results in reversed(self.all()) for name, value in results.logged_params.items()}
        return params, [point for results in self.all() for point in results.logged_points]
