"""A fast simulator of one-on-one battles. It follows the engine's rules and uses no results of the engine's battles."""

from pokebattle.simulation.estimates import N_SIMULATIONS, simulate

__all__ = ["N_SIMULATIONS", "simulate"]
