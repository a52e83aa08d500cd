"""The real battle engine: pokemon-showdown, a JavaScript package, called from Python."""

from pokebattle.engine.installation import MOD, PACKAGE, VERSION, EngineError, install, write_tables
from pokebattle.engine.run_battles import DRAWS, SEEDS, STREAMS, battle_logs, fight

IDENTITY = {"package": PACKAGE, "version": VERSION, "mod": MOD, "seeds": SEEDS, "draws": DRAWS}

__all__ = [
    "IDENTITY",
    "MOD",
    "PACKAGE",
    "STREAMS",
    "VERSION",
    "EngineError",
    "battle_logs",
    "fight",
    "install",
    "write_tables",
]
