"""The parameters of notebooks: a schema, a file for each version, and the values that a notebook sets."""

from pokebattle.params.files import folder, known_version, recorded, versions
from pokebattle.params.notebook import load_defaults, load_params, validate
from pokebattle.params.schema import (
    SEARCHABLE,
    BattlesColumns,
    Gates,
    Params,
    ParamsError,
    Range,
    SpeciesColumns,
    Tables,
)

__all__ = [
    "SEARCHABLE",
    "BattlesColumns",
    "Gates",
    "Params",
    "ParamsError",
    "Range",
    "SpeciesColumns",
    "Tables",
    "folder",
    "known_version",
    "load_defaults",
    "load_params",
    "recorded",
    "validate",
    "versions",
]
