"""Resolve a notebook's parameters: ``-p`` wins over its parameters cell, which wins over the version's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field, create_model

from nbtrack.parameters_cell import UNKNOWN, assignments
from pokebattle.errors import did_you_mean
from pokebattle.hooks import PARAMS_LOADED, publish
from pokebattle.params.files import error_prefix, folder, known_version, read, versions
from pokebattle.params.schema import Params, ParamsError, check

# Ranges of controls that notebooks declare in their parameters cells, in addition to the declared types.
CONTROL_RANGES = {
    "n_workers": Field(ge=1, le=256),
    "n_errors": Field(ge=1, le=100),
    "n_explained": Field(ge=1),
    "n_trials": Field(ge=1, le=100_000),
    "workers": Field(ge=1, le=256),
    "minutes": Field(ge=0),
    "stop_after": Field(ge=0),
}
_TYPES = {"int": int, "float": float, "str": str, "bool": bool}
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
    params = _load(namespace, handed_over or {})
    publish(PARAMS_LOADED, params)
    return params


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
            raise ParamsError(
                'parameters cell, version: expected version: str = "..." in an executed cell, with one of '
                f"{', '.join(versions())}, got none"
            )
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


def _resolve(cell: Mapping[str, Assigned], overrides: Mapping[str, Any], notebook: str = "") -> Params:
    """Merge and check values: overrides, then the cell, then the version's file. Errors name the value's source."""
    cell_place = f"{notebook}parameters cell, "
    overrides = {str(name): value for name, value in overrides.items()}  # with -y a name may not be text
    places = dict.fromkeys(cell, cell_place) | dict.fromkeys(overrides, f"{notebook}-p ")
    given = {name: value for name, (_, value) in cell.items()} | overrides
    given = {name: value for name, value in given.items() if value is not UNKNOWN}
    version = known_version(given.get("version"), places.get("version", cell_place))
    file = folder() / f"{version}.yaml"
    stored = read(file)
    controls = {
        name: _control(name, assigned.annotation, cell_place)
        for name, assigned in cell.items()
        if _is_control(name, assigned)
    }
    model = create_model("NotebookParams", __base__=Params, **controls) if controls else Params
    checked = check(model, stored | given, dict.fromkeys(stored, error_prefix(file)) | places)
    return Params(**{name: getattr(checked, name) for name in Params.model_fields})


def _parameter_cells(cells: Sequence[str]) -> tuple[str, str]:
    """Return the sources of the executed parameters cell and of the last cell injected after it ("" if none)."""
    declared, injected = "", ""
    loose = None
    for source in cells:
        version = _assignments(source).get("version") if "version" in source else None
        if version and version.annotation == "str":
            declared, injected, loose = source, "", None
        elif source.partition("\n")[0] == "# Parameters":  # papermill's first line
            injected = source
        elif version and isinstance(version.value, str):
            loose = version.value
    if loose is not None:
        raise ParamsError(
            f'parameters cell, version: expected version: str = "{loose}" in this cell, '
            f"got {loose!r} in another cell or without its type"
        )
    return declared, injected


def _declared(namespace: Mapping[str, Any]) -> dict[str, Assigned]:
    """Return the parameters in a namespace, and the variables annotated with the type of a control."""
    annotated = {
        name: getattr(kind, "__name__", str(kind)) for name, kind in namespace.get("__annotations__", {}).items()
    }
    return {
        name: Assigned(annotated.get(name), value)
        for name, value in namespace.items()
        if name in Params.model_fields or annotated.get(name) in _TYPES
    }


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
    return bool(assigned.annotation) and name not in known and not did_you_mean(name, known, _ALIKE)


def _control(name: str, annotation: str | None, place: str) -> Any:
    """Return the pydantic field of a control."""
    if annotation not in _TYPES:
        raise ParamsError(f"{place}{name}: expected one of the types {', '.join(_TYPES)}, got {annotation}")
    return Annotated[_TYPES[annotation], CONTROL_RANGES.get(name, Field())], None
