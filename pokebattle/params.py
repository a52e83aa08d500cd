"""The schema of the versions in params/*.yaml, and the values that a notebook sets in their place.

Precedence: ``-p`` over the notebook's parameters cell over the version's file. params/sample.yaml explains every key,
with unit and range.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from pokebattle.assignments import UNKNOWN, assignments
from pokebattle.places import project


class ParamsError(ValueError):
    """An invalid parameter. The message is one line: place, name, expected, got, nearest valid name."""

    def _render_traceback_(self) -> list[str]:
        """Return only the message; IPython calls this and shows it in a notebook instead of the traceback."""
        return [f"{type(self).__name__}: {self}"]


class _Strict(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


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
    neither species nor flags, see `tables.FLAGS`.
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
SEARCHABLE = ("features", "n_estimators", "max_depth", "learning_rate", "subsample", "colsample_bytree",
              "min_child_weight", "reg_lambda")
# Ranges of controls that notebooks declare in their parameters cells, in addition to the declared types.
CONTROL_RANGES = {"n_workers": Field(ge=1, le=256), "n_errors": Field(ge=1, le=100), "n_explained": Field(ge=1),
                  "n_trials": Field(ge=1, le=100_000), "workers": Field(ge=1, le=256), "minutes": Field(ge=0),
                  "stop_after": Field(ge=0)}  # fmt: skip

_TYPES = {"int": int, "float": float, "str": str, "bool": bool}
_WORDS: dict[Any, str] = {int: "an integer", float: "a number", str: "text", bool: "True or False"}
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below",
           "pattern": "matching", "min_length": "no shorter than"}
_DECIMAL = re.compile(r"[-+]?(0|[1-9]\d*|(?=\.\d))(\.\d*)?([eE][-+]?\d+)?")
_ALIKE = 0.85  # similarity from which the name of a control counts as a misspelt parameter


class Assigned(NamedTuple):
    """The annotation and the value of an assignment at the top level of a cell."""

    annotation: str | None
    value: Any


def load_params(namespace: Mapping[str, Any], handed_over: Mapping[str, Any] | None = None) -> Params:
    """Return the parameters of the notebook that calls ``load_params(globals())``.

    In IPython, only two cells are read: the latest executed cell that assigns ``version: str = ...``, and the cell that
    papermill injected after it. Other variables with the same names are ignored. Without a history of executed cells
    (a script, nbval), all variables in `namespace` with a name of the schema are read.

    Parameters
    ----------
    namespace : mapping
        The notebook's global variables.
    handed_over : mapping, optional
        Values that a search has found. They replace those of the version's file and of the parameters cell; papermill's
        parameters take precedence over them.

    Raises
    ------
    ParamsError
        If a name is unknown or misspelt, a value has the wrong type or is out of range, the version is unknown, a file
        cannot be read, or no parameters cell has been executed.
    """
    return _load(namespace, handed_over or {})


def load_defaults(namespace: Mapping[str, Any]) -> Params:
    """Return the parameters without handed-over values. The run does not record this call.

    Parameters
    ----------
    namespace : mapping
        As in `load_params`.

    Raises
    ------
    ParamsError
        As in `load_params`.
    """
    return _load(namespace, {})


def _load(namespace: Mapping[str, Any], handed_over: Mapping[str, Any]) -> Params:
    cell, injected = _parameter_cells(namespace.get("In", []))
    if not cell:
        if "In" in namespace and "version" not in namespace.get("__annotations__", {}):
            raise ParamsError('parameters cell, version: got none, expected version: str = "..." in a cell that '
                              f"has been run, one of {', '.join(versions())}")
        return _resolve(_declared(namespace), handed_over)
    overrides = {name: value for name, (_, value) in _assignments(injected, namespace).items()}
    return _resolve(_assignments(cell, namespace), {**handed_over, **overrides})


def validate(notebook_name: str, cell_source: str, overrides: Mapping[str, Any]) -> Params:
    """Check papermill's parameters before a kernel starts.

    Parameters
    ----------
    notebook_name : str
        Name of the notebook in error messages, such as ``notebooks/train.ipynb``.
    cell_source : str
        Source of the cell tagged ``parameters``.
    overrides : mapping
        Values of ``-p``, ``-f`` and ``-y`` by name.

    Raises
    ------
    ParamsError
        As in `load_params`.
    """
    return _resolve(_assignments(cell_source), overrides, f"{notebook_name}, ")


def recorded(values: Mapping[str, Any]) -> Params:
    """Return the parameters of an earlier execution, with today's `gates` from the version's file.

    Parameters
    ----------
    values : mapping
        The recorded parameters, with their types, from `parameters.json` of the run. Names that the schema no longer
        contains are ignored. Values that were not recorded come from the version's file.

    Raises
    ------
    ParamsError
        If params/ does not contain the version, or a recorded value is no longer valid.
    """
    place = "parameters.json, "
    version = _known_version(values.get("version", UNKNOWN), place)
    stored = _read(folder() / f"{version}.yaml")
    told = {name: value for name, value in values.items() if name in Params.model_fields and name != "gates"}
    return _checked(Params, stored | told, dict.fromkeys(stored, _place(folder() / f"{version}.yaml")) |
                    dict.fromkeys(told, place))  # fmt: skip


def versions() -> list[str]:
    """Return the valid values of ``version``: the names of the files in params/, without suffix."""
    return sorted(file.stem for file in folder().glob("*.yaml"))


def folder() -> Path:
    """Return the folder of the versions.

    ``POKEBATTLE_PARAMS``, else params/ in the checkout, else params/ in the working directory.
    """
    return Path(os.environ.get("POKEBATTLE_PARAMS") or project() / "params")


def _resolve(cell: Mapping[str, Assigned], overrides: Mapping[str, Any], notebook: str = "") -> Params:
    """Merge and check values: overrides, then the cell, then the version's file. Errors name the value's source."""
    cell_place = f"{notebook}parameters cell, "
    overrides = {str(name): value for name, value in overrides.items()}  # with -y a name may not be text
    places = dict.fromkeys(cell, cell_place) | dict.fromkeys(overrides, f"{notebook}-p ")
    given = {name: value for name, (_, value) in cell.items()} | overrides
    given = {name: value for name, value in given.items() if value is not UNKNOWN}
    version = _known_version(given.get("version", UNKNOWN), places.get("version", cell_place))
    file = folder() / f"{version}.yaml"
    stored = _read(file)
    controls = {name: _control(name, assigned.annotation, cell_place)
                for name, assigned in cell.items() if _is_control(name, assigned)}
    model = create_model("NotebookParams", __base__=Params, **controls) if controls else Params
    checked = _checked(model, stored | given, dict.fromkeys(stored, _place(file)) | places)
    return Params(**{name: getattr(checked, name) for name in Params.model_fields})


# Values from notebooks

def _parameter_cells(cells: Sequence[str]) -> tuple[str, str]:
    """Return the sources of the executed parameters cell and of the last cell injected after it ("" if none)."""
    found, injected = "", ""
    loose = None
    for source in cells:
        version = _assignments(source).get("version") if "version" in source else None
        if version and version.annotation == "str":
            found, injected, loose = source, "", None
        elif source.partition("\n")[0] == "# Parameters":  # papermill's first line
            injected = source
        elif version and isinstance(version.value, str):
            loose = version.value
    if loose is not None:
        raise ParamsError(f'parameters cell, version: expected version: str = "{loose}" in this cell, '
                          f"got {loose!r} in another cell or without its type")
    return found, injected


def _declared(namespace: Mapping[str, Any]) -> dict[str, Assigned]:
    """Return the parameters in a namespace, and the variables annotated with the type of a control."""
    annotated = {name: getattr(kind, "__name__", str(kind))
                 for name, kind in namespace.get("__annotations__", {}).items()}
    return {name: Assigned(annotated.get(name), value) for name, value in namespace.items()
            if name in Params.model_fields or annotated.get(name) in _TYPES}


def _assignments(source: str, namespace: Mapping[str, Any] | None = None) -> dict[str, Assigned]:
    """Return the assignments at the top level of a cell. Values that are not literals come from the namespace.

    A name that has no annotation, is not a parameter and gets no literal is ordinary code and left out.
    """
    assigned = {}
    for name, annotation, value in assignments(source):
        if value is UNKNOWN and (annotation or name in Params.model_fields):
            assigned[name] = Assigned(annotation, (namespace or {}).get(name, UNKNOWN))
        elif value is not UNKNOWN:
            assigned[name] = Assigned(annotation, value)
    return assigned


def _is_control(name: str, assigned: Assigned) -> bool:
    """Return whether an assignment declares a control: annotated, and the name is not close to a parameter's."""
    known = list(Params.model_fields)
    return bool(assigned.annotation) and name not in known and not get_close_matches(name, known, 1, _ALIKE)


def _control(name: str, annotation: str | None, place: str) -> Any:
    """Return the pydantic field of a control."""
    if annotation not in _TYPES:
        raise ParamsError(f"{place}{name}: expected one of the types {', '.join(_TYPES)}, got {annotation}")
    return Annotated[_TYPES[annotation], CONTROL_RANGES.get(name, Field())], None


# The versions' files

def _known_version(version: Any, place: str) -> str:
    known = versions()
    if version in known:
        return version
    if not known:
        raise ParamsError(f"{_place(folder())}version: expected a file for each version here, got none")
    got = "none" if version is UNKNOWN else _shown(version)
    near = _nearest(version, known, 0.5)
    raise ParamsError(f"{place}version: expected one of {', '.join(known)}, got {got}{near}")


def _read(file: Path) -> dict[str, Any]:
    """Read and validate one version's file, which must be complete.

    PyYAML silently uses the last of two equal keys, and reads 010 as 8 and 1:30 as 90; here these are errors.
    """
    place = _place(file)
    try:
        loader = yaml.SafeLoader(file.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        stored: Any = loader.construct_document(root) if root else None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{place}expected a YAML file, got {' '.join(str(error).split())}") from None
    if not isinstance(root, yaml.MappingNode):
        raise ParamsError(f"{place}expected lines of the form name: value, got {_shown(stored)}")
    _check_lines(root, place)
    names = [key.value for key, _ in root.value]
    _checked(Params, stored, dict.fromkeys([*Params.model_fields, *names], place))
    if stored["version"] != file.stem:
        raise ParamsError(f"{place}version: expected {file.stem}, the file's name, got {stored['version']}")
    return stored


def _check_lines(node: yaml.MappingNode, place: str) -> None:
    names = [key.value for key, _ in node.value]
    for name, (key, value) in zip(names, node.value, strict=True):
        if not key.tag.endswith(":str"):
            raise ParamsError(f"{place}{name}: expected a name, got what YAML does not read as text")
        if names.count(name) > 1:
            raise ParamsError(f"{place}{name}: expected one line, got {names.count(name)}")
        if value.tag.endswith((":int", ":float")) and not _DECIMAL.fullmatch(value.value):
            raise ParamsError(f"{place}{name}: expected a decimal number, got {value.value}")
        if isinstance(value, yaml.MappingNode):
            _check_lines(value, f"{place}{name}.")


def _place(file: Path) -> str:
    """Return a file's name for error messages: its folder (params/ in the project) and its name."""
    return f"{file.parent.name}/{file.name}, "


# Checks and their messages

def _checked(model: type[Params], values: Mapping[str, Any], places: Mapping[str, str]) -> Params:
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
        near = _nearest(name, list(model.model_fields), 0.6)
        expected = near or f"; expected one of {', '.join(model.model_fields)}"
        raise ParamsError(f"{places[name]}{name}: unknown parameter, got {_shown(got)}{expected}")
    field = model.model_fields[name]
    text = "none" if kind == "missing" else _shown(got) + _yaml_trap(got, places[name])
    near = _nearest(got, ("True", "False") if field.annotation is bool else get_args(field.annotation), 0.6)
    raise ParamsError(f"{places[name]}{name}: expected {_expected(field)}, got {text}{near}")


def _check_dataset(params: Params, places: Mapping[str, str]) -> None:
    """Check combinations of keys: `tables` and `features` must fit `dataset`."""
    own = params.dataset == "tables"
    if own and params.tables is None:
        needed = [name for name, field in Tables.model_fields.items() if field.is_required()]
        raise ParamsError(f"{places['dataset']}tables: expected {', '.join(needed)}, as dataset is tables, got none")
    if not own and params.tables is not None:
        raise ParamsError(f"{places['dataset']}dataset: expected tables, whose files are named, got {params.dataset!r}")
    if own and params.features != "raw":
        raise ParamsError(f"{places['features']}features: expected raw, as dataset is tables, got {params.features!r}, "
                          "which needs the game's own species and moves")


_TABLE_FORMS = {
    "model_type": "lines of the form name: value", "dict_type": "lines of the form name: value",
    "too_short": "a line for each stat",
    "string_pattern_mismatch": "a name of a-z, 0-9 and _ that begins with a letter",
}  # fmt: skip


def _table_error(place: str, path: Sequence[str], kind: str, got: Any) -> ParamsError:
    """Return the error for an invalid key or value under `tables`."""
    name = f"{place}{'.'.join(part for part in path if part != '[key]')}"
    if kind == "extra_forbidden":
        model: Any = Tables
        for part in path[1:-1]:
            model = model.model_fields[part].annotation
        near = _nearest(path[-1], list(model.model_fields), 0.5)
        return ParamsError(f"{name}: unknown parameter, got {_shown(got)}{near}")
    text = "none" if kind == "missing" or got is None else _shown(got)
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
            near = _nearest(name, SEARCHABLE, 0.6) or f"; expected one of {', '.join(SEARCHABLE)}"
            got = _shown(searched.model_dump(exclude_defaults=True))
            raise ParamsError(f"{key}: unknown parameter, got {got}{near}")
        field, (low, high) = Params.model_fields[name], (searched.low, searched.high)
        numbers = not get_args(field.annotation)
        if searched.choices is None:
            if not numbers:
                raise ParamsError(f"{key}.choices: expected some of {', '.join(get_args(field.annotation))}, got none")
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
                raise ParamsError(f"{key}.choices: expected two different ones or more, got {_shown(searched.choices)}")


def _check_value(place: str, field: FieldInfo, value: Any) -> None:
    kind: Any = Annotated[field.annotation, Field(), *field.metadata]
    try:
        TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
    except ValidationError:
        text = "none" if value is None else _shown(value) + _yaml_trap(value, place)
        near = _nearest(value, get_args(field.annotation), 0.6)
        raise ParamsError(f"{place}: expected {_expected(field)}, got {text}{near}") from None


def _search_error(place: str, path: Sequence[str], kind: str, got: Any) -> ParamsError:
    """Return the error for an invalid key or form under `search`."""
    name = f"{place}{'.'.join(path)}"
    if kind == "extra_forbidden":
        near = _nearest(path[-1], list(Range.model_fields), 0.5) or f"; expected {', '.join(Range.model_fields)}"
        return ParamsError(f"{name}: unknown key, got {_shown(got)}{near}")
    forms = {"bool_type": "true or false", "list_type": "a list, as in [2, 4, 8]",
             "too_short": "a line for each parameter that is searched"}  # fmt: skip
    form = forms.get(kind, "a range for each parameter, as in max_depth: {low: 2, high: 8}")
    return ParamsError(f"{name}: expected {form}, got {'none' if kind == 'missing' else _shown(got)}")


def _gate_error(place: str, path: Sequence[str], kind: str, got: Any) -> ParamsError:
    """Return the error for an invalid key or bound under `gates`."""
    name = f"{place}{'.'.join(path)}"
    if len(path) == 1:
        return ParamsError(f"{name}: expected a line for each of {', '.join(Gates.model_fields)}, got "
                           f"{'none' if kind == 'missing' else _shown(got)}")  # fmt: skip
    if kind == "extra_forbidden":
        near = _nearest(path[-1], list(Gates.model_fields), 0.5) or f"; expected {', '.join(Gates.model_fields)}"
        return ParamsError(f"{name}: unknown key, got {_shown(got)}{near}")
    text = "none" if kind == "missing" else _shown(got) + _yaml_trap(got, place)
    return ParamsError(f"{name}: expected {_expected(Gates.model_fields[path[1]])}, got {text}")


def _expected(field: FieldInfo) -> str:
    """Return the type and range of a field in words."""
    if options := get_args(field.annotation):
        return f"one of {', '.join(options)}"
    limits = [f"{word} {getattr(limit, key)}" for limit in field.metadata
              for key, word in _LIMITS.items() if hasattr(limit, key)]
    return " ".join([_WORDS[field.annotation], " and ".join(limits)]).strip()


def _yaml_trap(got: Any, place: str) -> str:
    """Return a hint if YAML has probably read a value differently than its author meant, else ""."""
    if isinstance(got, str) and "e" in got.lower() and _DECIMAL.fullmatch(got):
        return ", which YAML reads as text: write it as in 1.0e-3"
    if isinstance(got, bool) and place.endswith(".yaml, "):
        return ", as YAML reads on, off, yes and no: quote a word"
    return ""


def _nearest(got: Any, names: Sequence[str], cutoff: float) -> str:
    near = get_close_matches(str(got), names, 1, cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
