"""What still holds of a notebook whose cells are run again: what it would have told, run once from top to bottom.

By hand, cells run in any order and more than once. A cell that fits a model, or that gives a parameter another value,
begins an attempt when it runs again: what it and the cells below it have told before is left to the earlier attempt,
what the cells above it have told still holds. Pure logic, which neither reads nor sends anything.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Key = str | int
NO_CELL: Key = ""  # what is told before the first cell runs


@dataclass
class Told:
    """What one execution of a cell has told.

    Attributes
    ----------
    turn : int
        The cell's turn among the execution's cells.
    typed : dict
        Parameters, with their types.
    fits : list of dict
        Fitted models: ``name`` (its prefix among parameters and metrics, empty for one without), ``model``, ``params``.
    models : Counter
        How many of each kind of model.
    points, own_points : list of dict
        Metric points that came by themselves, and those that the cell logged with mlflow.
    own : dict
        Parameters that the cell logged with mlflow.
    figures : dict
        The latest value of each metric that the cell has published or logged.
    text : str
        What the cell has put on the run's page.
    """

    turn: int
    typed: dict[str, Any] = field(default_factory=dict)
    fits: list[dict[str, Any]] = field(default_factory=list)
    models: Counter[str] = field(default_factory=Counter)
    points: list[dict[str, Any]] = field(default_factory=list)
    own_points: list[dict[str, Any]] = field(default_factory=list)
    own: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    text: str = ""


class Attempts:
    """The cells' telling, in the order of the notebook.

    Attributes
    ----------
    number : int
        The attempt under way, from 1.
    """

    def __init__(self) -> None:
        self.number = 1
        self._line: list[Key] = [NO_CELL]  # cells in the notebook's order, as far as it is known from their running
        self._turns: dict[Key, int] = {NO_CELL: -1}
        self._told: dict[Key, Told] = {}
        self._here = NO_CELL
        self._repeated: dict[str, Any] = {}  # parameters that the running cell gives the values that they have

    def run_cell(self, key: Key, turn: int) -> None:
        """Take in that a cell runs: one that is new stands below the one that ran before."""
        if key not in self._turns:
            self._line.insert(self._line.index(self._here) + 1, key)
        self._turns[key] = turn
        self._here, self._repeated = key, {}

    def go_to(self, key: Key) -> None:
        """Take in which of the cells that run at the same time tells the next things."""
        self._here = key if key in self._turns else self._here

    def begins(self, typed: Mapping[str, Any] | None = None) -> bool:
        """Tell whether what the running cell tells now begins another attempt; ``typed`` when it is parameters."""
        before = self._told.get(self._here)
        if before is None or before.turn == self._turns[self._here]:
            return False
        if typed is None:
            return bool(before.fits)
        return self._differ(typed)

    def begin(self) -> list[int]:
        """Begin another attempt at the running cell; return the turns of the cells that are left to the one before."""
        place = self._line.index(self._here) + 1
        below = self._line[place:]
        left = [self._turns[key] for key in below]
        if before := self._told.pop(self._here, None):
            left.append(before.turn)
        for key in below:
            self._told.pop(key, None)
            del self._turns[key]
        del self._line[place:]
        self.number += 1
        return sorted(left)

    def tell(self, typed: Mapping[str, Any] | None = None) -> Told:
        """Return where what the running cell tells belongs; what it told when it ran before is forgotten.

        Parameters that keep their values change nothing: a cell that only gives them again does not replace anything.
        """
        turn, before = self._turns[self._here], self._told.get(self._here)
        if before and (before.turn == turn or (typed is not None and not self._differ(typed))):
            self._repeated |= typed or {}
            return before
        self._told[self._here] = told = Told(turn, dict(self._repeated))
        return told

    def _differ(self, typed: Mapping[str, Any]) -> bool:
        known = self.typed()
        return any(str(known.get(name, value)) != str(value) for name, value in typed.items())

    def all(self) -> list[Told]:
        """Return what still holds, in the order in which it was told."""
        return sorted(self._told.values(), key=lambda told: told.turn)

    def typed(self) -> dict[str, Any]:
        """Return the parameters that hold, with their types."""
        return {name: value for told in self.all() for name, value in told.typed.items()}

    def fitted(self, model: str) -> int:
        """Return how many fits of a kind of model hold."""
        return sum(told.models[model] for told in self._told.values())

    def figures(self) -> dict[str, float]:
        """Return the figures that hold."""
        return {name: value for told in self.all() for name, value in told.figures.items()}

    def text(self) -> str:
        """Return what the run's page says by the cells' wish."""
        return next((told.text for told in reversed(self.all()) if told.text), "")

    def params(self) -> dict[str, str]:
        """Return the parameters that hold as MLflow keeps them, with those of the named fits."""
        named = [fit for told in self.all() for fit in told.fits if fit["name"]]
        of_fits = {f"{fit['name']}.{name}": value for fit in named for name, value in fit["params"].items()}
        return {name: str(value) for name, value in (self.typed() | of_fits).items()}

    def points(self) -> list[dict[str, Any]]:
        """Return the metric points that hold and that no cell has logged itself."""
        return [point for told in self.all() for point in told.points]

    def own(self) -> tuple[dict[str, str], list[dict[str, Any]]]:
        """Return the parameters and the metric points that the cells themselves have logged."""
        params = {name: value for told in reversed(self.all()) for name, value in told.own.items()}
        return params, [point for told in self.all() for point in told.own_points]
