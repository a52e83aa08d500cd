"""What a model may know about a matchup: scikit-learn transformers from species and moves to numbers."""

from __future__ import annotations

import pandas as pd

SIDES = (("species_a", "species_b"), ("move_a", "move_b"))


def mirror(matchups: pd.DataFrame) -> pd.DataFrame:
    """Swap the sides A and B of every matchup; `wins_a`, where there, becomes the wins of the new A."""
    swapped = matchups.assign(**{new: matchups[old] for pair in SIDES for new, old in (pair, pair[::-1])})
    return (
        swapped.assign(wins_a=matchups["n_battles"] - matchups["wins_a"]) if "wins_a" in swapped else swapped
    )
