"""The real battle engine: pokemon-showdown, a JavaScript package, called from Python."""

from pokebattle.engine.installation import MOD, PACKAGE, VERSION, EngineError, install, write_tables
from pokebattle.engine.run_battles import DRAWS, SEEDS, STREAMS, fight, watch

IDENTITY = {"package": PACKAGE, "version": VERSION, "mod": MOD, "seeds": SEEDS, "draws": DRAWS}

__all__ = [
    "IDENTITY",
    "MOD",
    "PACKAGE",
    "STREAMS",
    "VERSION",
    "EngineError",
    "fight",
    "install",
    "watch",
    "write_tables",
]
