"""The game: species, moves and types, matchups of them, and what an attack does."""
