"""The real battle engine: pokemon-showdown, a JavaScript package, fed from Python."""

from pokebattle.engine.arena import fight
from pokebattle.engine.installation import MOD, PACKAGE, VERSION, EngineError, install, write_tables

__all__ = ["MOD", "PACKAGE", "VERSION", "EngineError", "fight", "install", "write_tables"]
