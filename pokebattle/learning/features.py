"""The features of a matchup: scikit-learn transformers from species and moves to numbers.

A feature set consists of blocks and comparisons. A block describes side A and, by the same rule, side B (`a_...`,
`b_...`). A comparison is one number about both sides that changes sign when the sides are swapped. Neither uses ids as
features or reads the outcomes of battles.

If a side's move is `matchups.RANDOM`, its features are means over the moves that it draws from. Knock-outs are the
exception: they are computed for the mixture of the moves, because their mean would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pokebattle.game import dex
from pokebattle.game.attacks import (
    IMMUNE,
    REACHED_BY,
    TURNS,
    attacks,
    damage_of_use,
    knock_outs,
    mixed_knock_outs,
    stages,
)
from pokebattle.game.matchups import RANDOM, STATS, battle_stats, damaging_moves, positions, type_effectiveness
from pokebattle.learning.stat_features import StatelessFeatures, StatFeatures
from pokebattle.simulation import N_SIMULATIONS, simulate

Columns = Mapping[str, np.ndarray]

SIDES = (("species_a", "species_b"), ("move_a", "move_b"))
ROLES = ["attacker", "move", "defender"]
EXAMPLE = ("pikachu", "thunderbolt", "squirtle")
ROWS, POOL = 2**15, 32  # rows per step of a computation; typical number of moves that a side draws from
LEAST = 0.001  # share of the HP; smaller values are raised to it, so that the logarithm is defined
PRIORITIES = {value: f"priority_{value}" for value in range(-6, 4)}
FLAGS = [
    "charge",
    "recharge",
    "locks_in",
    "self_destruct",
    "needs_sleeping_target",
    "needs_attacking_target",
    "first_turn_only",
    "crash",
    "traps",
    "seeds",
]
GIVES_BACK = ["counter", "mirrorcoat", "bide"]
AILMENTS = ["flinch", "burn", "paralysis", "freeze", "poison", "sleep", "confusion"]


def mirror(matchups: pd.DataFrame) -> pd.DataFrame:
    """Swap the sides A and B of every matchup.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a, species_b; optionally move_a, move_b, and wins_a together with n_battles.

    Returns
    -------
    DataFrame
        `wins_a`, if present, counts the wins of the new A.
    """
    swapped = matchups.assign(
        **{new: matchups[old] for a, b in SIDES if a in matchups for new, old in ((a, b), (b, a))}
    )
    if "wins_a" in matchups:
        swapped["wins_a"] = matchups["n_battles"] - matchups["wins_a"]
    return swapped


def base_stats(side: pd.DataFrame) -> pd.DataFrame:
    """Return the attacker's base stats.

    Parameters
    ----------
    side : DataFrame
        Column attacker (species id).
    """
    return dex.species().loc[side["attacker"], STATS]


def types(side: pd.DataFrame) -> pd.DataFrame:
    """Return the attacker's types: one boolean column per type.

    Parameters
    ----------
    side : DataFrame
        Column attacker (species id).
    """
    pair = dex.species().loc[side["attacker"], ["type_1", "type_2"]].to_numpy()
    return pd.DataFrame({f"is_{name}": (pair == name).any(axis=1) for name in dex.type_chart().index})


def move_numbers(side: pd.DataFrame) -> pd.DataFrame:
    """Return the move's entries in the game tables: power, accuracy, pp, priority, category and type.

    Parameters
    ----------
    side : DataFrame
        Column move (move id).
    """
    move = dex.moves().loc[side["move"]]
    table = move[["base_power", "accuracy", "pp", "priority"]].add_prefix("move_")
    for category in ("physical", "special"):
        table[f"move_is_{category}"] = move["category"] == category
    return table.assign(**{f"move_is_{name}": move["type"] == name for name in dex.type_chart().index})


def real_stats(side: pd.DataFrame) -> pd.DataFrame:
    """Return the attacker's stats in battle, see `matchups.battle_stats`.

    Parameters
    ----------
    side : DataFrame
        Column attacker (species id).
    """
    return battle_stats().loc[side["attacker"]]


def hit_features(side: pd.DataFrame) -> pd.DataFrame:
    """Describe one use of the move.

    Parameters
    ----------
    side : DataFrame
        Columns attacker, move, defender (ids).

    Returns
    -------
    DataFrame
        Damage as a share of the defender's HP; recoil and drain as shares of the attacker's HP.
    """
    table = attacks(side["attacker"], side["move"], side["defender"])
    recoil, drain = dex.moves().loc[side["move"], ["recoil", "drain"]].to_numpy().T
    least, mean, most = damage_of_use(table)
    hp, own_hp = table["defender_hp"], table["attacker_hp"]
    return pd.DataFrame(
        {
            "power": table["power"] * table["stab"] * table["effectiveness"],
            "attack_over_defense": table["attack"] / table["defense"],
            "hit_chance": table["hit_chance"],
            "damage_min": least / hp,
            "damage_mean": mean / hp,
            "damage_max": most / hp,
            "recoil": np.minimum(mean, hp) * recoil / own_hp,
            "recoil_to_win": hp * recoil / own_hp,
            "drain": np.minimum(mean, hp) * drain / own_hp,
        }
    )


def knock_out_features(side: pd.DataFrame) -> pd.DataFrame:
    """Describe how soon the move knocks out a defender that does nothing.

    Parameters
    ----------
    side : DataFrame
        Columns attacker, move, defender (ids).

    Returns
    -------
    DataFrame
        knock_outs_per_turn (1 / turns), down_by_1 to down_by_`TURNS` (chance of a knock-out by that turn), turns
        (expected number).
    """
    return _knock_out_columns(*knock_outs(attacks(side["attacker"], side["move"], side["defender"])))


def mixed_knock_out_features(side: pd.DataFrame, sizes: np.ndarray) -> pd.DataFrame:
    """Describe how soon moves that are drawn every turn knock out a defender that does nothing.

    Parameters
    ----------
    side : DataFrame
        Columns attacker, move, defender (ids): all moves of the first side, then those of the second, and so on.
    sizes : ndarray of int, shape (n_sides,)
        Number of moves of each side.

    Returns
    -------
    DataFrame
        One row per side, columns as in `knock_out_features`.
    """
    return _knock_out_columns(*mixed_knock_outs(attacks(side["attacker"], side["move"], side["defender"]), sizes))


def _knock_out_columns(down: np.ndarray, turns: np.ndarray) -> pd.DataFrame:
    by_turn = {f"down_by_{turn}": down[:, turn] for turn in range(1, TURNS + 1)}
    return pd.DataFrame({"knock_outs_per_turn": 1 / turns, **by_turn, "turns": turns})


def side_effects(side: pd.DataFrame) -> pd.DataFrame:
    """Describe what the move does besides damage.

    Parameters
    ----------
    side : DataFrame
        Columns move, defender (ids).

    Returns
    -------
    DataFrame
        Priority, flags, chances of ailments and changes of stats (in stages) against this defender.
    """
    effects, chances = (table.loc[side["move"]].reset_index(drop=True) for table in _effects())
    move, types = dex.moves().loc[side["move"]], dex.species().loc[side["defender"], ["type_1", "type_2"]].to_numpy()
    works = move["accuracy"].to_numpy() / 100 * (type_effectiveness(move["type"], side["defender"]) > 0)
    chances = chances.mul(works, axis=0)
    for name, immune in IMMUNE.items():
        chances[f"{name}_chance"] *= ~np.isin(types, immune).any(axis=1)
    return effects.assign(**chances)


@cache
def _effects() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the effects that do not depend on the defender, and the chances of effects that do; index move_id."""
    moves = dex.moves()
    effects = moves[["priority", *FLAGS]].assign(screen=moves["screen"] != "")
    effects["gives_back"] = moves["damage_rule"].isin(GIVES_BACK)
    for hiding, reaching in REACHED_BY.items():
        effects[f"hides_by_{hiding}"] = moves.index == hiding
        effects[f"reaches_{hiding}"] = moves.index.isin(reaching)
    chances = moves[[f"{name}_chance" for name in AILMENTS]] / 100
    for stat in STATS[1:]:
        effects[f"own_{stat}_stages"] = stages(moves["self_boosts"], stat)
        chances[f"other_{stat}_stages"] = stages(moves["target_boosts"], stat) * moves["target_boost_chance"] / 100
    return effects, chances


def priorities(side: pd.DataFrame) -> pd.DataFrame:
    """Return the move's priority: one boolean column per priority.

    Parameters
    ----------
    side : DataFrame
        Column move (move id).
    """
    priority = dex.moves().loc[side["move"], "priority"].to_numpy()
    return pd.DataFrame({name: priority == value for value, name in PRIORITIES.items()})


def draws(side: pd.DataFrame) -> pd.DataFrame:
    """Return the column random_move for sides with one fixed move: 0.

    Parameters
    ----------
    side : DataFrame
        One row per side.
    """
    return pd.DataFrame({"random_move": np.zeros(len(side), dtype=int)})


def mixed_draws(side: pd.DataFrame, sizes: np.ndarray) -> pd.DataFrame:
    """Return the column random_move for sides that draw a move every turn: 1.

    Parameters
    ----------
    side : ignored
    sizes : ndarray of int, shape (n_sides,)
        Number of moves of each side.
    """
    return pd.DataFrame({"random_move": np.ones(len(sizes), dtype=int)})


def moves_first(a: Columns, b: Columns) -> np.ndarray:
    """Return 1 if A moves first (higher priority, then higher speed), -1 if B does, 0 if chance decides.

    For drawn moves: the probability that A moves first minus the probability that B does.

    Parameters
    ----------
    a, b : mapping of str to ndarray
        The columns of `PRIORITIES`, and speed.
    """
    ours, theirs = (np.column_stack([side[name] for name in PRIORITIES.values()]) for side in (a, b))
    higher = (ours[:, 1:] * theirs.cumsum(axis=1)[:, :-1]).sum(axis=1)
    lower = (theirs[:, 1:] * ours.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return higher - lower + (ours * theirs).sum(axis=1) * np.sign(a["speed"] - b["speed"])


def faster_by(a: Columns, b: Columns) -> np.ndarray:
    """Return the logarithm of A's speed divided by B's.

    Parameters
    ----------
    a, b : mapping of str to ndarray
        Column speed.
    """
    return np.log(a["speed"] / b["speed"])


def stronger_by(a: Columns, b: Columns) -> np.ndarray:
    """Return the logarithm of the damage of A's move divided by the damage of B's.

    Parameters
    ----------
    a, b : mapping of str to ndarray
        Column damage_mean: mean damage of one use, as a share of the opponent's HP.
    """
    return np.log(a["damage_mean"].clip(LEAST)) - np.log(b["damage_mean"].clip(LEAST))


def out_of_reach(a: Columns, b: Columns) -> np.ndarray:
    """Return 1 if only A hides where the opponent's move cannot hit it, -1 if only B does, else 0.

    For drawn moves: the difference of the two probabilities.

    Parameters
    ----------
    a, b : mapping of str to ndarray
        Columns hides_by_... and reaches_... for each move in `attacks.REACHED_BY`.
    """
    return sum(
        a[f"hides_by_{hiding}"] * (1 - b[f"reaches_{hiding}"]) - b[f"hides_by_{hiding}"] * (1 - a[f"reaches_{hiding}"])
        for hiding in REACHED_BY
    )


def turns_saved(a: Columns, b: Columns) -> np.ndarray:
    """Return the turns that B needs to knock out A minus the turns that A needs to knock out B.

    Parameters
    ----------
    a, b : mapping of str to ndarray
        Column turns (expected number).
    """
    return b["turns"] - a["turns"]


class Block(NamedTuple):
    """A group of features that describe one side.

    Attributes
    ----------
    describe : callable
        Maps a table of sides (of the columns attacker, move, defender those in `roles`) to a table of features.
    roles : tuple of str
        What the features depend on. They are computed once for each distinct combination.
    mix : callable, optional
        Replaces `describe` for sides that draw their moves. Takes a table with all moves of the first side, then of
        the second, and so on, and the number of moves of each side. Without it such sides get the mean over their
        moves.
    """

    describe: Callable[[pd.DataFrame], pd.DataFrame]
    roles: tuple[str, ...]
    mix: Callable[[pd.DataFrame, np.ndarray], pd.DataFrame] | None = None


class Comparison(NamedTuple):
    """A feature that compares the two sides.

    Attributes
    ----------
    compare : callable
        Maps the columns of A and of B to the feature.
    columns : dict of str to list of str
        The columns that it needs, by block.
    """

    compare: Callable[[Columns, Columns], np.ndarray]
    columns: dict[str, list[str]]


BLOCKS = {
    "base_stats": Block(base_stats, ("attacker",)),
    "types": Block(types, ("attacker",)),
    "move_numbers": Block(move_numbers, ("move",)),
    "draws": Block(draws, ("move",), mixed_draws),
    "real_stats": Block(real_stats, ("attacker",)),
    "strike": Block(hit_features, ("attacker", "move", "defender")),
    "pace": Block(knock_out_features, ("attacker", "move", "defender"), mixed_knock_out_features),
    "side_effects": Block(side_effects, ("move", "defender")),
    "priorities": Block(priorities, ("move",)),
}
SPEED = {"real_stats": ["speed"]}
REACH = [f"{does}_{hiding}" for hiding in REACHED_BY for does in ("hides_by", "reaches")]
COMPARISONS = {
    "moves_first": Comparison(moves_first, {"priorities": list(PRIORITIES.values()), **SPEED}),
    "faster_by": Comparison(faster_by, SPEED),
    "stronger_by": Comparison(stronger_by, {"strike": ["damage_mean"]}),
    "out_of_reach": Comparison(out_of_reach, {"side_effects": REACH}),
    "turns_saved": Comparison(turns_saved, {"pace": ["turns"]}),
}
FEATURE_SETS: dict[str, dict[str, Any]] = {
    "raw": {"blocks": ["base_stats", "types", "move_numbers", "draws"], "comparisons": []},
    "mechanics": {
        "blocks": ["real_stats", "strike", "pace", "side_effects", "draws"],
        "comparisons": ["moves_first", "faster_by", "stronger_by", "out_of_reach", "turns_saved"],
    },
}
FEATURE_SETS["simulation"] = FEATURE_SETS["mechanics"] | {"n_simulations": N_SIMULATIONS}
MARGIN = "simulated_margin"
SIMULATED = [MARGIN, "simulated_turns", "a_hp_left", "b_hp_left"]


def matchup_features(name: str, species: pd.DataFrame | None = None) -> MatchupFeatures | StatFeatures:
    """Return the transformer that computes a feature set.

    Parameters
    ----------
    name : str
        A key of `FEATURE_SETS`.
    species : DataFrame, optional
        Your own table of species, see `StatFeatures`. Only `raw` is available for it.

    Raises
    ------
    ValueError
        If there is no such feature set, or it needs moves and `species` is given.
    """
    if name not in FEATURE_SETS:
        raise ValueError(f"features: unknown set, got {name!r}; expected one of {', '.join(FEATURE_SETS)}")
    if species is not None and name != "raw":
        raise ValueError(
            f"features: expected raw for your own species, got {name!r}, which needs the game's own species and moves"
        )
    if species is not None:
        return StatFeatures(species)
    return MatchupFeatures(**FEATURE_SETS[name])


class MatchupFeatures(StatelessFeatures):
    """Turn matchups (columns species_a, species_b, move_a and move_b) into features.

    Parameters
    ----------
    blocks : list of str
        Keys of `BLOCKS`. Each block describes one side; its columns are `a_...` for side A and `b_...` for side B.
    comparisons : list of str
        Keys of `COMPARISONS`. Each compares A with B and changes sign when the sides are swapped.
    n_simulations : int, default 0
        If above 0, add the features `SIMULATED`, computed from that many simulated battles (see `simulation`). The
        margin is the log-odds of the simulated share of wins, with half a win added to both sides.
    """

    def __init__(self, blocks: list[str], comparisons: list[str], n_simulations: int = 0) -> None:
        self.blocks = blocks
        self.comparisons = comparisons
        self.n_simulations = n_simulations

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Return the names of the columns of `transform`.

        Parameters
        ----------
        input_features : ignored
        """
        names = [name for block in self.blocks for name in _columns(block)]
        columns = [f"{side}_{name}" for side in "ab" for name in names] + self.comparisons
        return np.array(columns + (SIMULATED if self.n_simulations else []), dtype=object)

    def _check(self, X: pd.DataFrame) -> None:
        sides(X)

    def _numbers(self, X: pd.DataFrame, orientations: int) -> np.ndarray:
        """Compute the matrix block by block, so that no second array of its size is allocated."""
        compared = [COMPARISONS[name] for name in self.comparisons]
        wanted: dict[str, list[str]] = {name: [] for name in self.blocks}
        for comparison in compared:
            for block, columns in comparison.columns.items():
                wanted[block] = wanted.get(block, []) + columns
        described = _describe(sides(X), wanted)
        exact = [block for block in described.values() if block.exact]
        half = sum(described[name].numbers.shape[1] for name in self.blocks)
        last = 2 * half + len(compared)
        out = np.empty((orientations, len(X), last + len(SIMULATED) * bool(self.n_simulations)), dtype=np.float32)
        for start in range(0, len(X), ROWS):
            part = slice(start, start + ROWS)
            self._write_blocks(out[:, part], half, described, part)
            ours, theirs = (
                {name: values[block.rows[side, part]] for block in exact for name, values in block.exact.items()}
                for side in (0, 1)
            )
            for number, comparison in enumerate(compared, start=2 * half):
                values = comparison.compare(ours, theirs)
                for sign, matrix in zip((1, -1), out[:, part], strict=False):
                    matrix[:, number] = sign * values
        if self.n_simulations:
            margin, turns, left_a, left_b = self._simulated(X)
            for sign, sides_left, matrix in zip((1, -1), ((left_a, left_b), (left_b, left_a)), out, strict=False):
                matrix[:, last:] = np.column_stack([sign * margin, turns, *sides_left])
        return out

    def _simulated(self, X: pd.DataFrame) -> Iterator[np.ndarray]:
        ended = simulate(X, self.n_simulations)
        share, half = ended["win_probability"].to_numpy(), 0.5 / self.n_simulations
        yield np.log(share + half) - np.log(1 - share + half)
        for name in ("turns", "hp_left_a", "hp_left_b"):
            yield ended[name].to_numpy()

    def _write_blocks(self, out: np.ndarray, half: int, described: dict[str, Described], part: slice) -> None:
        first = 0
        for name in self.blocks:
            numbers, rows = described[name].numbers, described[name].rows[:, part]
            last = first + numbers.shape[1]
            for side in (0, 1):
                values = numbers[rows[side]]
                for orientation, matrix in enumerate(out):
                    offset = half * (side ^ orientation)
                    matrix[:, offset + first : offset + last] = values
            first = last


class Described(NamedTuple):
    """A block's features for every distinct combination of its roles, and the combination of every side.

    Attributes
    ----------
    numbers : ndarray of float32, shape (n_distinct, n_columns)
    exact : dict of ndarray of float64
        The columns that comparisons need, in full precision.
    rows : ndarray of int, shape (2, n_matchups)
        Row of `numbers` for side A and for side B of every matchup.
    """

    numbers: np.ndarray
    exact: dict[str, np.ndarray]
    rows: np.ndarray


def sides(matchups: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return attacker, move and defender of both sides of every matchup, as positions in the game tables.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a, species_b, move_a, move_b.

    Returns
    -------
    dict of ndarray of int, shape (2, n_matchups)
        By role; row 0 is A's attack on B, row 1 is B's on A. `RANDOM` comes after the last move.

    Raises
    ------
    ValueError
        If a column is missing, an id is not in the game tables, or a species has no move to draw.
    """
    species, moves = _known()
    attacker = np.stack([positions(matchups, name, species) for name in ("species_a", "species_b")])
    used = np.stack([positions(matchups, name, moves) for name in ("move_a", "move_b")])
    idle = set(species[np.unique(attacker[used == len(moves) - 1])]) - set(_pools())
    if idle:
        raise ValueError(f"move: {RANDOM} draws from the damaging moves of its user, and {min(idle)} has none")
    return {"attacker": attacker, "move": used, "defender": attacker[::-1]}


@cache
def _known() -> tuple[pd.Index, pd.Index]:
    """Return the ids of the species, and the ids of the moves followed by `RANDOM`."""
    return pd.Index(dex.species().index, dtype=object), pd.Index([*dex.moves().index, RANDOM], dtype=object)


def _distinct(codes: dict[str, np.ndarray], roles: tuple[str, ...]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Find the distinct combinations of the given roles, and the combination of every side.

    If the move is `RANDOM`, the attacker always belongs to the combination: it decides which moves are drawn.
    """
    apart = [role for role in ("move", "attacker", "defender") if role in roles or role == "attacker"]
    parts = {role: codes[role] for role in apart}
    if "attacker" not in roles:
        parts["attacker"] = np.where(codes["move"] == len(_known()[1]) - 1, codes["attacker"], 0)
    shape = tuple(len(_ids(role)) for role in apart)
    keys = np.ravel_multi_index(tuple(parts.values()), shape)
    seen = np.zeros(np.prod(shape), dtype=bool)
    seen[keys] = True
    distinct = np.flatnonzero(seen)
    number = np.empty(len(seen), dtype=np.int32)  # ten times faster than np.unique, which sorts
    number[distinct] = np.arange(len(distinct))
    columns = zip(apart, np.unravel_index(distinct, shape), strict=True)
    return {role: positions.astype(np.int16) for role, positions in columns}, number[keys]


def _ids(role: str) -> pd.Index:
    return _known()[role == "move"]


def _describe(codes: dict[str, np.ndarray], wanted: dict[str, list[str]]) -> dict[str, Described]:
    """Compute blocks, and keep the columns that comparisons need in full precision."""
    distinct: dict[tuple[str, ...], tuple[dict[str, np.ndarray], np.ndarray]] = {}
    described = {}
    for name, exact in wanted.items():
        block, columns = BLOCKS[name], _columns(name)
        if block.roles not in distinct:
            distinct[block.roles] = _distinct(codes, block.roles)
        combinations, rows = distinct[block.roles]
        n = len(combinations["attacker"])
        numbers, kept = np.empty((n, len(columns)), dtype=np.float32), {column: np.empty(n) for column in exact}
        for part, frame in _in_parts(block, combinations):
            numbers[part] = frame.to_numpy(np.float32)
            for column, values in kept.items():
                values[part] = frame[column]
        described[name] = Described(numbers, kept, rows)
    return described


def _in_parts(block: Block, combinations: dict[str, np.ndarray]) -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
    """Yield positions of rows and their features, at most `ROWS` rows at a time."""
    drawn = np.zeros(len(combinations["attacker"]), dtype=bool)
    if "move" in combinations:
        drawn = combinations["move"] == len(_ids("move")) - 1

    def sides_of(rows: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({role: _ids(role).take(codes[rows]) for role, codes in combinations.items()}, dtype=object)

    for part in _split(np.flatnonzero(~drawn), ROWS):
        yield part, block.describe(sides_of(part))
    for part in _split(np.flatnonzero(drawn), ROWS // POOL):
        moves, sizes = pools(sides_of(part))
        if block.mix:
            yield part, block.mix(moves, sizes)
        else:
            numbers = block.describe(moves)
            means = np.add.reduceat(numbers.to_numpy(float), np.cumsum(sizes) - sizes) / sizes[:, None]
            yield part, pd.DataFrame(means, columns=numbers.columns)


@cache
def _pools() -> dict[str, list[str]]:
    return damaging_moves()


def pools(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Replace every row by one row per move that its attacker draws from.

    Parameters
    ----------
    table : DataFrame
        Column attacker (species id); other columns are kept.

    Returns
    -------
    table : DataFrame
        With the column move.
    sizes : ndarray of int, shape (n_rows,)
        Number of moves of each attacker.
    """
    moves = [_pools()[attacker] for attacker in table["attacker"]]
    sizes = np.array([len(pool) for pool in moves])
    return table.loc[table.index.repeat(sizes)].assign(move=list(chain.from_iterable(moves))), sizes


def _split(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


@cache
def _columns(block: str) -> list[str]:
    """Return the names of a block's features."""
    return BLOCKS[block].describe(pd.DataFrame([EXAMPLE], columns=ROLES)).columns.tolist()
