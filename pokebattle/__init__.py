"""Who wins a Pokémon Let's Go battle: what the notebooks of this workspace share."""
