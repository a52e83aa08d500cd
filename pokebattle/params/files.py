"""The files of the versions, params/*.yaml: find, read and validate them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pokebattle.errors import did_you_mean
from pokebattle.params.schema import DECIMAL, Params, ParamsError, check, shown
from pokebattle.paths import PARAMS, project


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
    version = known_version(values.get("version"), place)
    stored = read(folder() / f"{version}.yaml")
    known = {name: value for name, value in values.items() if name in Params.model_fields and name != "gates"}
    return check(
        Params,
        stored | known,
        dict.fromkeys(stored, error_prefix(folder() / f"{version}.yaml")) | dict.fromkeys(known, place),
    )


def versions() -> list[str]:
    """Return the valid values of ``version``: the names of the files in params/, without suffix."""
    return sorted(file.stem for file in folder().glob("*.yaml"))


def folder() -> Path:
    """Return the folder of the versions.

    ``POKEBATTLE_PARAMS``, else params/ in the checkout, else params/ in the working directory.
    """
    return Path(os.environ.get(PARAMS) or project() / "params")


def known_version(version: Any, place: str = "") -> str:
    """Return a version if it has a file in params/.

    Parameters
    ----------
    version : object
        What was given.
    place : str, optional
        Where it was given, for the error message; ends with ", ".

    Raises
    ------
    ParamsError
        If there is no such file; the message lists the existing ones.
    """
    known = versions()
    if version in known:
        return version
    if not known:
        raise ParamsError(f"{error_prefix(folder())}version: expected a *.yaml file for each version, got none")
    got = "none" if version is None else shown(version)
    near = did_you_mean(version, known, 0.5)
    raise ParamsError(f"{place}version: expected one of {', '.join(known)}, got {got}{near}")


def read(file: Path) -> dict[str, Any]:
    """Read and validate one version's file, which must be complete.

    PyYAML silently uses the last of two equal keys, and reads 010 as 8 and 1:30 as 90; here these are errors.
    """
    place = error_prefix(file)
    try:
        loader = yaml.SafeLoader(file.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        stored: Any = loader.construct_document(root) if root else None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{place}expected a YAML file, got {' '.join(str(error).split())}") from None
    if not isinstance(root, yaml.MappingNode):
        raise ParamsError(f"{place}expected lines of the form name: value, got {shown(stored)}")
    _check_lines(root, place)
    names = [key.value for key, _ in root.value]
    check(Params, stored, dict.fromkeys([*Params.model_fields, *names], place))
    if stored["version"] != file.stem:
        raise ParamsError(f"{place}version: expected {file.stem}, the file's name, got {stored['version']}")
    return stored


def _check_lines(node: yaml.MappingNode, place: str) -> None:
    names = [key.value for key, _ in node.value]
    for name, (key, value) in zip(names, node.value, strict=True):
        if not key.tag.endswith(":str"):
            raise ParamsError(
                f"{place}{name}: expected text, got a key that YAML does not read as text: put it in quotes"
            )
        if names.count(name) > 1:
            raise ParamsError(f"{place}{name}: expected this key once, got it {names.count(name)} times")
        if value.tag.endswith((":int", ":float")) and not DECIMAL.fullmatch(value.value):
            raise ParamsError(f"{place}{name}: expected a decimal number, got {value.value}")
        if isinstance(value, yaml.MappingNode):
            _check_lines(value, f"{place}{name}.")


def error_prefix(file: Path) -> str:
    """Return a file's name for error messages: its folder (params/ in the project) and its name."""
    return f"{file.parent.name}/{file.name}, "
