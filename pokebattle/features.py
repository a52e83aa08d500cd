"""What a model may know about a matchup: scikit-learn transformers from species and moves to numbers.

A feature set is a union of blocks. A block describes side A, then side B by the same rule (`a_...`, `b_...`), or
compares the two (a number that changes sign when the sides are swapped). No block reads ids or outcomes of battles.
"""

from __future__ import annotations

import difflib

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from pokebattle import dex
from pokebattle.attacks import IMMUNE, REACHED_BY, TURNS, attacks, hit_damage, hits, knock_outs, stages
from pokebattle.battles import STATS, battle_stats, type_effectiveness

SIDES = (("species_a", "species_b"), ("move_a", "move_b"))
ROLES = ["attacker", "move", "defender"]
EXAMPLE = ("pikachu", "thunderbolt", "squirtle")
FLAGS = [
    "charge", "recharge", "locks_in", "self_destruct", "needs_sleeping_target", "needs_attacking_target",
    "first_turn_only", "crash", "traps", "seeds",
]  # fmt: skip
AILMENTS = ["flinch", "burn", "paralysis", "freeze", "poison", "sleep", "confusion"]


def mirror(matchups: pd.DataFrame) -> pd.DataFrame:
    """Swap the sides A and B of every matchup; `wins_a`, where there, becomes the wins of the new A."""
    swapped = matchups.assign(**{new: matchups[old] for a, b in SIDES for new, old in ((a, b), (b, a))})
    if "wins_a" in matchups:
        swapped["wins_a"] = matchups["n_battles"] - matchups["wins_a"]
    return swapped


def base_stats(side: pd.DataFrame) -> pd.DataFrame:
    """The attacker's base stats."""
    return dex.species().loc[side["attacker"], STATS]


def types(side: pd.DataFrame) -> pd.DataFrame:
    """The attacker's types, one column each: 1 if it has the type."""
    pair = dex.species().loc[side["attacker"], ["type_1", "type_2"]].to_numpy()
    return pd.DataFrame({f"is_{name}": (pair == name).any(axis=1) for name in dex.type_chart().index})


def move_numbers(side: pd.DataFrame) -> pd.DataFrame:
    """The move as the tables have it: power, accuracy, pp, priority, category and type."""
    move = dex.moves().loc[side["move"]]
    table = move[["base_power", "accuracy", "pp", "priority"]].add_prefix("move_")
    for category in ("physical", "special"):
        table[f"move_is_{category}"] = move["category"] == category
    return table.assign(**{f"move_is_{name}": move["type"] == name for name in dex.type_chart().index})


def real_stats(side: pd.DataFrame) -> pd.DataFrame:
    """The attacker's stats in battle."""
    return battle_stats().loc[side["attacker"]]


def strike(side: pd.DataFrame) -> pd.DataFrame:
    """What one use of the move does, damage in shares of the defender's HP, and how soon it knocks out."""
    table = attacks(side["attacker"], side["move"], side["defender"])
    move = dex.moves().loc[side["move"]].reset_index(drop=True)
    points, chances = hit_damage(table)
    n_hits = hits(table) @ np.arange(1, 6)
    mean = (points * chances).sum(axis=1) * n_hits * (table["hit_chance"] > 0)
    hp, own_hp = table["defender_hp"], table["attacker_hp"]
    down, turns = knock_outs(table)
    return pd.DataFrame({
        "power": table["power"] * table["stab"] * table["effectiveness"],
        "attack_over_defense": table["attack"] / table["defense"],
        "hit_chance": table["hit_chance"],
        "damage_min": points[:, 0] * move["multihit_min"] / hp,
        "damage_mean": mean / hp,
        "damage_max": points[:, 15] * move["multihit_max"] / hp,
        "knock_outs_per_turn": 1 / turns,
        **{f"down_by_{turn}": down[:, turn] for turn in range(1, TURNS + 1)},
        "turns": turns,
        "recoil": np.minimum(mean, hp) * move["recoil"] / own_hp,
        "recoil_to_win": hp * move["recoil"] / own_hp,
        "drain": np.minimum(mean, hp) * move["drain"] / own_hp,
    })  # fmt: skip


def side_effects(side: pd.DataFrame) -> pd.DataFrame:
    """What else the move does: priority, flags, chances of ailments and changed stats against this defender."""
    moves = dex.moves()
    effects = moves[["priority", *FLAGS]].assign(screen=moves["screen"] != "")
    for hiding, reaching in REACHED_BY.items():
        effects[f"hides_by_{hiding}"] = moves.index == hiding
        effects[f"reaches_{hiding}"] = moves.index.isin(reaching)
    chances = moves[[f"{name}_chance" for name in AILMENTS]] / 100
    for stat in STATS[1:]:
        effects[f"own_{stat}_stages"] = stages(moves["self_boosts"], stat)
        chances[f"other_{stat}_stages"] = stages(moves["target_boosts"], stat) * moves["target_boost_chance"] / 100
    move, types = moves.loc[side["move"]], dex.species().loc[side["defender"], ["type_1", "type_2"]].to_numpy()
    works = move["accuracy"].to_numpy() / 100 * (type_effectiveness(move["type"], side["defender"]) > 0)
    reach = {f"{name}_chance": ~np.isin(types, immune).any(axis=1) for name, immune in IMMUNE.items()}
    chances = chances.loc[side["move"]].mul(works, axis=0)
    return effects.loc[side["move"]].assign(**chances.assign(**{k: chances[k] * v for k, v in reach.items()}))


def moves_first(a: pd.DataFrame, b: pd.DataFrame) -> np.ndarray:
    """1 if A moves first (higher priority, then higher speed), -1 if B does, 0 if a coin decides."""
    priority, speed = (np.sign(a[name].to_numpy() - b[name].to_numpy()) for name in ("priority", "speed"))
    return np.where(priority != 0, priority, speed)


def faster_by(a: pd.DataFrame, b: pd.DataFrame) -> np.ndarray:
    """Speed of A beyond that of B, in the logarithm of the ratio."""
    return np.log(a["speed"].to_numpy() / b["speed"].to_numpy())


def out_of_reach(a: pd.DataFrame, b: pd.DataFrame) -> np.ndarray:
    """1 if only A hides where the other's move does not reach, -1 if only B does, else 0."""
    lead = np.zeros(len(a), dtype=int)
    for hiding in REACHED_BY:
        for sign, side, other in ((1, a, b), (-1, b, a)):
            lead += sign * (side[f"hides_by_{hiding}"].to_numpy() & ~other[f"reaches_{hiding}"].to_numpy())
    return lead


def turns_saved(a: pd.DataFrame, b: pd.DataFrame) -> np.ndarray:
    """Turns that B needs for its knock-out beyond those that A needs."""
    return b["turns"].to_numpy() - a["turns"].to_numpy()


BLOCKS = {block.__name__: block for block in (base_stats, types, move_numbers, real_stats, strike, side_effects)}
COMPARISONS = {comparison.__name__: comparison for comparison in (moves_first, faster_by, out_of_reach, turns_saved)}
FEATURE_SETS: dict[str, dict[str, list[str]]] = {
    "raw": {"blocks": ["base_stats", "types", "move_numbers"], "comparisons": []},
    "mechanics": {
        "blocks": ["real_stats", "strike", "side_effects"],
        "comparisons": ["moves_first", "faster_by", "out_of_reach", "turns_saved"],
    },
}


def matchup_features(name: str) -> MatchupFeatures:
    """Return the transformer of a named feature set.

    Raises
    ------
    ValueError
        If there is no such set.
    """
    if name not in FEATURE_SETS:
        raise ValueError(f"features: unknown set, got {name!r}; there is {', '.join(FEATURE_SETS)}")
    return MatchupFeatures(**FEATURE_SETS[name])


class MatchupFeatures(TransformerMixin, BaseEstimator):
    """Turn matchups into numbers; it learns nothing from data.

    Parameters
    ----------
    blocks : list of str
        Names in `BLOCKS`: each describes one side, and is computed once for each distinct attacker, move and
        defender. Its columns come as `a_...` for side A and `b_...` for side B.
    comparisons : list of str
        Names in `COMPARISONS`: numbers of A against B that change sign when the sides are swapped.
    """

    def __init__(self, blocks: list[str], comparisons: list[str]) -> None:
        self.blocks = blocks
        self.comparisons = comparisons

    def fit(self, X: pd.DataFrame, y: object = None) -> MatchupFeatures:
        """Check the columns and ids of `X`; there is nothing to learn."""
        distinct_attacks(X.head(1))
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Compute the features.

        Parameters
        ----------
        X : DataFrame
            Columns species_a, species_b, move_a, move_b; others are not read.

        Returns
        -------
        ndarray of float32, shape (n_matchups, n_features)
        """
        attacks, rows_a, rows_b = distinct_attacks(X)
        table = self._describe(attacks)
        compared = [COMPARISONS[name](table.iloc[rows_a], table.iloc[rows_b]) for name in self.comparisons]
        numbers = table.to_numpy(np.float32)
        return np.column_stack([numbers[rows_a], numbers[rows_b], *compared]).astype(np.float32, copy=False)

    def both_orientations(self, X: pd.DataFrame) -> np.ndarray:
        """Compute the features of the matchups and of their mirrors, shape (2, n_matchups, n_features)."""
        distinct_attacks(X.head(1))  # names a column that is missing
        known = X[[column for pair in SIDES for column in pair]]
        return np.asarray(self.transform(pd.concat([known, mirror(known)]))).reshape(2, len(X), -1)

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Return the names of the columns that `transform` returns."""
        names = list(self._describe(pd.DataFrame([EXAMPLE], columns=ROLES)))
        return np.array([f"{side}_{name}" for side in "ab" for name in names] + self.comparisons, dtype=object)

    def _describe(self, attacks: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([BLOCKS[name](attacks).reset_index(drop=True) for name in self.blocks], axis=1)


def distinct_attacks(matchups: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Find the distinct (attacker, move, defender) on both sides of the matchups.

    Returns
    -------
    attacks : DataFrame
        Columns attacker, move, defender, without repetition.
    rows_a, rows_b : ndarray of int, shape (n_matchups,)
        The row of `attacks` that is A's attack on B, and the one that is B's on A.

    Raises
    ------
    ValueError
        If a column is missing, or an id is not in the game tables.
    """
    species, moves = dex.species().index, dex.moves().index
    a, b = _codes(matchups, "species_a", species), _codes(matchups, "species_b", species)
    move_a, move_b = _codes(matchups, "move_a", moves), _codes(matchups, "move_b", moves)
    shape = (len(species), len(moves), len(species))
    both = np.ravel_multi_index((np.append(a, b), np.append(move_a, move_b), np.append(b, a)), shape)
    distinct, rows = np.unique(both, return_inverse=True)
    attacker, move, defender = np.unravel_index(distinct, shape)
    table = pd.DataFrame({"attacker": species[attacker], "move": moves[move], "defender": species[defender]})
    return table, rows[: len(matchups)], rows[len(matchups) :]


def _codes(matchups: pd.DataFrame, column: str, known: pd.Index) -> np.ndarray:
    if column not in matchups:
        raise ValueError(f"matchups: column {column} is missing, got {', '.join(map(str, matchups.columns))}")
    codes = known.get_indexer(pd.Index(matchups[column], dtype=object))
    if (codes < 0).any():
        name = str(matchups[column].to_numpy()[codes < 0][0])
        near = difflib.get_close_matches(name, known, n=1)
        raise ValueError(f"{column}: unknown id, got {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return codes
