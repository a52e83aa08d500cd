"""Predict who wins a Pokémon Let's Go battle: the package behind the notebooks."""
