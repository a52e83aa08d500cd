"""Battle sets: load and build them, divide them into parts, and check the parts for leaks."""

from pokebattle.datasets.load import OWN, BattleSet, DatasetError, load_battles, open_part, stored_battles

__all__ = ["OWN", "BattleSet", "DatasetError", "load_battles", "open_part", "stored_battles"]
