"""A fast simulator of one-on-one battles. It follows the engine's rules and has never seen a battle of the engine's."""

from pokebattle.simulation.estimates import N_SIMULATIONS, simulate

__all__ = ["N_SIMULATIONS", "simulate"]
