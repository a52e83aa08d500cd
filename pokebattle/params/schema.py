"""The schema of the versions in params/*.yaml, and the check of values against it.

params/sample.yaml explains every key, with unit and range. An error is one line: place, name, expected, got, nearest
valid name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from pokebattle.errors import UserError, did_you_mean


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

_WORDS: dict[Any, str] = {int: "an integer", float: "a number", str: "text", bool: "True or False"}
_LIMITS = {
    "ge": "at least",
    "gt": "above",
    "le": "at most",
    "lt": "below",
    "pattern": "matching",
    "min_length": "no shorter than",
}
DECIMAL = re.compile(r"[-+]?(0|[1-9]\d*|(?=\.\d))(\.\d*)?([eE][-+]?\d+)?")


def check(model: type[Params], values: Mapping[str, Any], places: Mapping[str, str]) -> Params:
    """Validate all parameters of a version.

    Parameters
    ----------
    model : type of Params
        `Params`, or a subclass that has a notebook's controls as further fields.
    values : mapping of str to object
        The values by name.
    places : mapping of str to str
        Where each value comes from, by name, as the beginning of an error message: for example "params/v3.yaml, ".

    Returns
    -------
    Params
        An instance of `model`.

    Raises
    ------
    ParamsError
        If a value is missing, unknown or invalid, or does not fit the others. Only the first such value is named.
    """
    try:
        params = model.model_validate(values)
    except ValidationError as error:
        faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    else:
        _check_dataset(params, places)
        _check_search(params, places["search"])
        return params
    name, kind, got = str(faults[0]["loc"][0]), faults[0]["type"], faults[0]["input"]
    if name == "search":
        raise _search_error(places.get(name, ""), [str(part) for part in faults[0]["loc"]], kind, got)
    if name == "gates":
        raise _gate_error(places.get(name, ""), [str(part) for part in faults[0]["loc"]], kind, got)
    if name == "tables":
        raise _table_error(places[name], [str(part) for part in faults[0]["loc"]], kind, got)
    if kind == "extra_forbidden":
        near = did_you_mean(name, list(model.model_fields))
        expected = near or f"; expected one of {', '.join(model.model_fields)}"
        raise ParamsError(f"{places[name]}{name}: unknown parameter, got {shown(got)}{expected}")
    field = model.model_fields[name]
    text = "none" if kind == "missing" else shown(got) + _yaml_trap(got, places[name])
    near = did_you_mean(got, ("True", "False") if field.annotation is bool else get_args(field.annotation))
    raise ParamsError(f"{places[name]}{name}: expected {_expected(field)}, got {text}{near}")


def _check_dataset(params: Params, places: Mapping[str, str]) -> None:
    """Check combinations of keys: `tables` and `features` must fit `dataset`."""
    own_battles = params.dataset == "tables"
    if own_battles and params.tables is None:
        needed = [name for name, field in Tables.model_fields.items() if field.is_required()]
        raise ParamsError(f"{places['dataset']}tables: expected {', '.join(needed)}, as dataset is tables, got none")
    if not own_battles and params.tables is not None:
        raise ParamsError(
            f"{places['dataset']}dataset: expected tables, as the files of `tables` are given, got {params.dataset!r}"
        )
    if own_battles and params.features != "raw":
        raise ParamsError(
            f"{places['features']}features: expected raw, as dataset is tables, got {params.features!r}, "
            "which needs the game's own species and moves"
        )


_TABLE_FORMS = {
    "model_type": "lines of the form name: value",
    "dict_type": "lines of the form name: value",
    "too_short": "a line for each stat",
    "string_pattern_mismatch": "a name of a-z, 0-9 and _ that begins with a letter",
}


def _table_error(place: str, path: Sequence[str], kind: str, got: Any) -> ParamsError:
    """Return the error for an invalid key or value under `tables`."""
    name = f"{place}{'.'.join(part for part in path if part != '[key]')}"
    if kind == "extra_forbidden":
        model: Any = Tables
        for part in path[1:-1]:
            model = model.model_fields[part].annotation
        near = did_you_mean(path[-1], list(model.model_fields), 0.5)
        return ParamsError(f"{name}: unknown parameter, got {shown(got)}{near}")
    text = "none" if kind == "missing" or got is None else shown(got)
    if got is None:
        text += ": what begins with # needs quotes"
    elif isinstance(got, bool | int | float):
        text += ": put it in quotes"
    return ParamsError(f"{name}: expected {_TABLE_FORMS.get(kind, 'text')}, got {text}")


def _check_search(params: Params, place: str) -> None:
    """Check the search space against the schema, so that no trial can have a value that is invalid in a version."""
    for name, searched in params.search.items():
        key = f"{place}search.{name}"
        if name not in SEARCHABLE:
            near = did_you_mean(name, SEARCHABLE) or f"; expected one of {', '.join(SEARCHABLE)}"
            got = shown(searched.model_dump(exclude_defaults=True))
            raise ParamsError(f"{key}: unknown parameter, got {got}{near}")
        field, (low, high) = Params.model_fields[name], (searched.low, searched.high)
        numbers = not get_args(field.annotation)
        if searched.choices is None:
            if not numbers:
                raise ParamsError(
                    f"{key}.choices: expected two or more of {', '.join(get_args(field.annotation))}, got none"
                )
            for end, value in (("low", low), ("high", high)):
                _check_value(f"{key}.{end}", field, value)
            if low >= high:
                raise ParamsError(f"{key}: expected low below high, got low {low} and high {high}")
            if searched.log and low <= 0:
                raise ParamsError(f"{key}.low: expected a number above 0, as log is true, got {low}")
        elif low is not None or high is not None or searched.log:
            raise ParamsError(f"{key}: expected low and high or choices, got both")
        else:
            for value in searched.choices:
                _check_value(f"{key}.choices", field, value)
            if len({*map(str, searched.choices)}) < max(2, len(searched.choices)):
                raise ParamsError(
                    f"{key}.choices: expected at least two different values, got {shown(searched.choices)}"
                )


def _check_value(place: str, field: FieldInfo, value: Any) -> None:
    kind: Any = Annotated[field.annotation, Field(), *field.metadata]
    try:
        TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
    except ValidationError:
        text = "none" if value is None else shown(value) + _yaml_trap(value, place)
        near = did_you_mean(value, get_args(field.annotation))
        raise ParamsError(f"{place}: expected {_expected(field)}, got {text}{near}") from None


def _search_error(place: str, path: Sequence[str], kind: str, got: Any) -> ParamsError:
    """Return the error for an invalid key or form under `search`."""
    name = f"{place}{'.'.join(path)}"
    if kind == "extra_forbidden":
        near = did_you_mean(path[-1], list(Range.model_fields), 0.5) or f"; expected {', '.join(Range.model_fields)}"
        return ParamsError(f"{name}: unknown key, got {shown(got)}{near}")
    forms = {
        "bool_type": "true or false",
        "list_type": "a list, as in [2, 4, 8]",
        "too_short": "a line for each searched parameter",
    }
    form = forms.get(kind, "a range for each parameter, as in max_depth: {low: 2, high: 8}")
    return ParamsError(f"{name}: expected {form}, got {'none' if kind == 'missing' else shown(got)}")


def _gate_error(place: str, path: Sequence[str], kind: str, got: Any) -> ParamsError:
    """Return the error for an invalid key or bound under `gates`."""
    name = f"{place}{'.'.join(path)}"
    if len(path) == 1:
        return ParamsError(
            f"{name}: expected a line for each of {', '.join(Gates.model_fields)}, got "
            f"{'none' if kind == 'missing' else shown(got)}"
        )
    if kind == "extra_forbidden":
        near = did_you_mean(path[-1], list(Gates.model_fields), 0.5) or f"; expected {', '.join(Gates.model_fields)}"
        return ParamsError(f"{name}: unknown key, got {shown(got)}{near}")
    text = "none" if kind == "missing" else shown(got) + _yaml_trap(got, place)
    return ParamsError(f"{name}: expected {_expected(Gates.model_fields[path[1]])}, got {text}")


def _expected(field: FieldInfo) -> str:
    """Return the type and range of a field in words."""
    if options := get_args(field.annotation):
        return f"one of {', '.join(options)}"
    limits = [
        f"{word} {getattr(limit, key)}"
        for limit in field.metadata
        for key, word in _LIMITS.items()
        if hasattr(limit, key)
    ]
    return " ".join([_WORDS[field.annotation], " and ".join(limits)]).strip()


def _yaml_trap(got: Any, place: str) -> str:
    """Return a hint if YAML has probably read a value differently than its author meant, else ""."""
    if isinstance(got, str) and "e" in got.lower() and DECIMAL.fullmatch(got):
        return ", which YAML reads as text: write it as in 1.0e-3"
    if isinstance(got, bool) and place.endswith(".yaml, "):
        return ", as YAML reads on, off, yes and no: quote a word"
    return ""


def shown(value: Any) -> str:
    """Return a value as error messages show it: its `repr`, cut to 80 characters.

    Parameters
    ----------
    value : object
    """
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
