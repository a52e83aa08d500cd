"""The schema of the versions in params/*.yaml. params/sample.yaml explains every key, with unit and range."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pokebattle.errors import UserError


class ParamsError(UserError, ValueError):
    """An invalid parameter. The message is one line: place, name, expected, got, nearest valid name."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


Header = Annotated[str, Field(min_length=1)]


class SpeciesColumns(_Strict):
    """The headers of the columns in a file of species.

    Without `name`, species are shown by their ids. Species with the same `family` are held out together under the
    unseen protocols. `stats` maps the name of each feature to the header of its numeric column, e.g.
    `{hp: Vivo, speed: Rapido}`.
    """

    id: Header
    name: Header | None = None
    type_1: Header | None = None
    type_2: Header | None = None
    family: Header | None = None
    stats: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Header] = Field(min_length=1)


class BattlesColumns(_Strict):
    """The headers of the columns in a file of battles.

    `first_won` is the winner column's word for a win of the first species. It is needed only if the column contains
    neither species nor flags, see `own_battles.FLAGS`.
    """

    first: Header
    second: Header
    winner: Header
    first_won: str | int | bool | None = None


class Tables(_Strict):
    """Your own battles: the paths of two files, absolute or relative to the project, and their columns."""

    species_file: Header
    battles_file: Header
    encoding: Header | None = None
    species_columns: SpeciesColumns
    battles_columns: BattlesColumns


class Range(_Strict):
    """The search space of one parameter: `low` to `high` (on a logarithmic scale if `log`), or a list of `choices`."""

    low: Any = None
    high: Any = None
    log: bool = False
    choices: list[Any] | None = None


class Gates(_Strict):
    """The bounds that a registered version must meet before it is promoted, see `registry.gates`."""

    fresh_battles: int = Field(ge=0, le=1000)
    ahead_of_baselines: float = Field(ge=-1, le=1)
    calibration_error: float = Field(gt=0, le=1)
    behind_production: float = Field(ge=0, le=1)
    mirror_error: float = Field(ge=0, le=1)
    load_seconds: float = Field(gt=0)
    answer_ms: float = Field(gt=0)
    memory_mb: float = Field(gt=0)


class Params(_Strict):
    """All parameters of a notebook, validated. The model is frozen, and flat except for `tables`, `search` and `gates`.

    Types are strict: an int is accepted as a float, nothing else is converted. True is not 1, and "8" is not a number.
    """

    version: str
    description: str = Field(min_length=1)

    dataset: Literal["v1", "v2", "v3", "tables"]
    tables: Tables | None = Field(default=None, exclude_if=lambda tables: tables is None)
    protocol: Literal["pair", "one_unseen", "both_unseen"]
    max_matchups: int = Field(ge=0)
    max_judging_pairs: int = Field(ge=0)
    simulated_pairs: int = Field(ge=0)

    features: Literal["mechanics", "raw", "simulation"]
    random_state: int = Field(ge=0, lt=2**32)
    n_jobs: int = Field(ge=1, le=256)
    n_estimators: int = Field(ge=1, le=10_000)
    max_depth: int = Field(ge=1, le=20)
    learning_rate: float = Field(gt=0, le=1)
    subsample: float = Field(gt=0, le=1)
    colsample_bytree: float = Field(gt=0, le=1)
    min_child_weight: float = Field(ge=0)
    reg_lambda: float = Field(ge=0)

    n_bootstrap: int = Field(ge=2, le=100_000)
    calibration_bins: int = Field(ge=2, le=100)
    learning_curve_points: int = Field(ge=2, le=20)

    n_folds: int = Field(ge=2, le=20)
    early_stopping_rounds: int = Field(ge=1, le=10_000)
    search: dict[str, Range] = Field(min_length=1)

    register_model: bool
    model_name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")

    gates: Gates


# Parameters that a search can vary.
SEARCHABLE = (
    "features",
    "n_estimators",
    "max_depth",
    "learning_rate",
    "subsample",
    "colsample_bytree",
    "min_child_weight",
    "reg_lambda",
)
