"""What a model may know about a matchup: scikit-learn transformers from species and moves to numbers.

A feature set is a union of blocks. A block describes side A, then side B by the same rule (`a_...`, `b_...`), or
compares the two (a number that changes sign when the sides are swapped). No block reads ids or outcomes of battles.

A side whose move is `battles.RANDOM` is described by the means over the moves that it draws from, except for what does
not average: its knock-outs are those of the mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from pokebattle import dex
from pokebattle.attacks import IMMUNE, REACHED_BY, TURNS, attacks, damage_of_use, knock_outs, mixed_knock_outs, stages
from pokebattle.battles import RANDOM, STATS, battle_stats, damaging_moves, positions, type_effectiveness
from pokebattle.simulation import N_SIMULATIONS, simulate
from pokebattle.stat_features import StatFeatures

Columns = Mapping[str, np.ndarray]

SIDES = (("species_a", "species_b"), ("move_a", "move_b"))
ROLES = ["attacker", "move", "defender"]
EXAMPLE = ("pikachu", "thunderbolt", "squirtle")
ROWS, POOL = 2**15, 32  # rows that are computed at a time; moves that a side draws from, about
LEAST = 0.001  # of the HP: less is no damage
PRIORITIES = {value: f"priority_{value}" for value in range(-6, 4)}
FLAGS = [
    "charge", "recharge", "locks_in", "self_destruct", "needs_sleeping_target", "needs_attacking_target",
    "first_turn_only", "crash", "traps", "seeds",
]  # fmt: skip
GIVES_BACK = ["counter", "mirrorcoat", "bide"]
AILMENTS = ["flinch", "burn", "paralysis", "freeze", "poison", "sleep", "confusion"]


def mirror(matchups: pd.DataFrame) -> pd.DataFrame:
    """Swap the sides A and B of every matchup; `wins_a`, where there, becomes the wins of the new A."""
    swapped = matchups.assign(**{
        new: matchups[old] for a, b in SIDES if a in matchups for new, old in ((a, b), (b, a))
    })  # fmt: skip
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
    """What one use of the move does, damage in shares of the defender's HP."""
    table = attacks(side["attacker"], side["move"], side["defender"])
    recoil, drain = dex.moves().loc[side["move"], ["recoil", "drain"]].to_numpy().T
    least, mean, most = damage_of_use(table)
    hp, own_hp = table["defender_hp"], table["attacker_hp"]
    return pd.DataFrame({
        "power": table["power"] * table["stab"] * table["effectiveness"],
        "attack_over_defense": table["attack"] / table["defense"],
        "hit_chance": table["hit_chance"],
        "damage_min": least / hp,
        "damage_mean": mean / hp,
        "damage_max": most / hp,
        "recoil": np.minimum(mean, hp) * recoil / own_hp,
        "recoil_to_win": hp * recoil / own_hp,
        "drain": np.minimum(mean, hp) * drain / own_hp,
    })  # fmt: skip


def pace(side: pd.DataFrame) -> pd.DataFrame:
    """How soon the move knocks out a defender who is not disturbed."""
    return _pace(*knock_outs(attacks(side["attacker"], side["move"], side["defender"])))


def mixed_pace(side: pd.DataFrame, sizes: np.ndarray) -> pd.DataFrame:
    """How soon moves that are drawn anew each turn knock out."""
    return _pace(*mixed_knock_outs(attacks(side["attacker"], side["move"], side["defender"]), sizes))


def _pace(down: np.ndarray, turns: np.ndarray) -> pd.DataFrame:
    by_turn = {f"down_by_{turn}": down[:, turn] for turn in range(1, TURNS + 1)}
    return pd.DataFrame({"knock_outs_per_turn": 1 / turns, **by_turn, "turns": turns})


def side_effects(side: pd.DataFrame) -> pd.DataFrame:
    """What else the move does: priority, flags, chances of ailments and changed stats against this defender."""
    effects, chances = (table.loc[side["move"]].reset_index(drop=True) for table in _effects())
    move, types = dex.moves().loc[side["move"]], dex.species().loc[side["defender"], ["type_1", "type_2"]].to_numpy()
    works = move["accuracy"].to_numpy() / 100 * (type_effectiveness(move["type"], side["defender"]) > 0)
    chances = chances.mul(works, axis=0)
    for name, immune in IMMUNE.items():
        chances[f"{name}_chance"] *= ~np.isin(types, immune).any(axis=1)
    return effects.assign(**chances)


@cache
def _effects() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what moves do to whomever, and the chances that they have where they work; index move_id."""
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
    """The move's priority, one column each: 1 if it has it."""
    priority = dex.moves().loc[side["move"], "priority"].to_numpy()
    return pd.DataFrame({name: priority == value for value, name in PRIORITIES.items()})


def draws(side: pd.DataFrame) -> pd.DataFrame:
    """Whether the move is drawn anew each turn: no."""
    return pd.DataFrame({"random_move": np.zeros(len(side), dtype=int)})


def mixed_draws(side: pd.DataFrame, sizes: np.ndarray) -> pd.DataFrame:
    """Whether the move is drawn anew each turn: yes."""
    return pd.DataFrame({"random_move": np.ones(len(sizes), dtype=int)})


def moves_first(a: Columns, b: Columns) -> np.ndarray:
    """1 if A moves first (higher priority, then higher speed), -1 if B does, 0 if a coin decides; of drawn moves the
    chance that A does less that B does."""
    ours, theirs = (np.column_stack([side[name] for name in PRIORITIES.values()]) for side in (a, b))
    higher = (ours[:, 1:] * theirs.cumsum(axis=1)[:, :-1]).sum(axis=1)
    lower = (theirs[:, 1:] * ours.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return higher - lower + (ours * theirs).sum(axis=1) * np.sign(a["speed"] - b["speed"])


def faster_by(a: Columns, b: Columns) -> np.ndarray:
    """Speed of A beyond that of B, in the logarithm of the ratio."""
    return np.log(a["speed"] / b["speed"])


def stronger_by(a: Columns, b: Columns) -> np.ndarray:
    """Damage of one use of A's move beyond that of B's, in shares of the other's HP, in the logarithm of the ratio."""
    return np.log(a["damage_mean"].clip(LEAST)) - np.log(b["damage_mean"].clip(LEAST))


def out_of_reach(a: Columns, b: Columns) -> np.ndarray:
    """1 if only A hides where the other's move does not reach, -1 if only B does, else 0; of drawn moves the chance."""
    return sum(
        a[f"hides_by_{hiding}"] * (1 - b[f"reaches_{hiding}"]) - b[f"hides_by_{hiding}"] * (1 - a[f"reaches_{hiding}"])
        for hiding in REACHED_BY
    )


def turns_saved(a: Columns, b: Columns) -> np.ndarray:
    """Turns that B needs for its knock-out beyond those that A needs."""
    return b["turns"] - a["turns"]


class Block(NamedTuple):
    """What describes one side.

    Attributes
    ----------
    describe : callable
        From a table of sides (columns attacker, move, defender, as far as they are in `roles`) to a table of numbers.
    roles : tuple of str
        What the numbers depend on: they are computed once for each distinct combination.
    mix : callable, optional
        The same of sides that draw their moves: from all the moves of the first side, then of the second and so on,
        and how many each has. Without it they get the mean of the moves' numbers.
    """

    describe: Callable[[pd.DataFrame], pd.DataFrame]
    roles: tuple[str, ...]
    mix: Callable[[pd.DataFrame, np.ndarray], pd.DataFrame] | None = None


class Comparison(NamedTuple):
    """What compares the sides: a function of columns that blocks make, and these columns by block."""

    compare: Callable[[Columns, Columns], np.ndarray]
    columns: dict[str, list[str]]


BLOCKS = {
    "base_stats": Block(base_stats, ("attacker",)),
    "types": Block(types, ("attacker",)),
    "move_numbers": Block(move_numbers, ("move",)),
    "draws": Block(draws, ("move",), mixed_draws),
    "real_stats": Block(real_stats, ("attacker",)),
    "strike": Block(strike, ("attacker", "move", "defender")),
    "pace": Block(pace, ("attacker", "move", "defender"), mixed_pace),
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
    """Return the transformer of a named feature set.

    Parameters
    ----------
    name : str
    species : DataFrame, optional
        A table of species that are not the game's, see `StatFeatures`: these have `raw` features alone.

    Raises
    ------
    ValueError
        If there is no such set, or it needs moves and the species have none.
    """
    if name not in FEATURE_SETS:
        raise ValueError(f"features: unknown set, got {name!r}; there is {', '.join(FEATURE_SETS)}")
    if species is not None and name != "raw":
        raise ValueError(f"features: expected raw for species of one's own, got {name!r}, which needs the game's own "
                         "species and moves")
    if species is not None:
        return StatFeatures(species)
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
    n_simulations : int, default 0
        With it come `SIMULATED`: what as many simulated battles say (see `simulation`). The margin is the log-odds of
        their share of wins, with half a win added to both sides.
    """

    def __init__(self, blocks: list[str], comparisons: list[str], n_simulations: int = 0) -> None:
        self.blocks = blocks
        self.comparisons = comparisons
        self.n_simulations = n_simulations

    def fit(self, X: pd.DataFrame, y: object = None) -> MatchupFeatures:
        """Check the columns and ids of `X`; there is nothing to learn."""
        sides(X.head(1))
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
        return self._numbers(X, orientations=1)[0]

    def both_orientations(self, X: pd.DataFrame) -> np.ndarray:
        """Compute the features of the matchups and of their mirrors, shape (2, n_matchups, n_features)."""
        return self._numbers(X, orientations=2)

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Return the names of the columns that `transform` returns."""
        names = [name for block in self.blocks for name in _columns(block)]
        columns = [f"{side}_{name}" for side in "ab" for name in names] + self.comparisons
        return np.array(columns + (SIMULATED if self.n_simulations else []), dtype=object)

    def _numbers(self, X: pd.DataFrame, orientations: int) -> np.ndarray:
        """Write column block by column block into one matrix: nothing else of its size is made on the way."""
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
    """A block's numbers of every distinct combination of its roles, and which of them every side has.

    Attributes
    ----------
    numbers : ndarray of float32, shape (n_distinct, n_columns)
    exact : dict of ndarray of float64
        Columns for comparisons.
    rows : ndarray of int, shape (2, n_matchups)
    """

    numbers: np.ndarray
    exact: dict[str, np.ndarray]
    rows: np.ndarray


def sides(matchups: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return attacker, move and defender of both sides of every matchup, as positions in the game tables.

    Returns
    -------
    dict of ndarray of int, shape (2, n_matchups)
        By role; row 0 is A's attack on B, row 1 is B's on A. The position of `RANDOM` is behind all moves.

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
    """Return the ids of species, and of moves with `RANDOM` behind them."""
    return pd.Index(dex.species().index, dtype=object), pd.Index([*dex.moves().index, RANDOM], dtype=object)


def _distinct(codes: dict[str, np.ndarray], roles: tuple[str, ...]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Find the distinct combinations of some roles, and which of them every side has.

    Who draws its moves is told apart by the attacker whatever the roles.
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
    number = np.empty(len(seen), dtype=np.int32)  # a table of all combinations takes a tenth of the time of sorting
    number[distinct] = np.arange(len(distinct))
    found = zip(apart, np.unravel_index(distinct, shape), strict=True)
    return {role: positions.astype(np.int16) for role, positions in found}, number[keys]


def _ids(role: str) -> pd.Index:
    return _known()[role == "move"]


def _describe(codes: dict[str, np.ndarray], wanted: dict[str, list[str]]) -> dict[str, Described]:
    """Compute blocks, and keep of each the columns that comparisons want."""
    found: dict[tuple[str, ...], tuple[dict[str, np.ndarray], np.ndarray]] = {}
    described = {}
    for name, exact in wanted.items():
        block, columns = BLOCKS[name], _columns(name)
        if block.roles not in found:
            found[block.roles] = _distinct(codes, block.roles)
        combinations, rows = found[block.roles]
        n = len(combinations["attacker"])
        numbers, kept = np.empty((n, len(columns)), dtype=np.float32), {column: np.empty(n) for column in exact}
        for part, frame in _in_parts(block, combinations):
            numbers[part] = frame.to_numpy(np.float32)
            for column, values in kept.items():
                values[part] = frame[column]
        described[name] = Described(numbers, kept, rows)
    return described


def _in_parts(block: Block, combinations: dict[str, np.ndarray]) -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
    """Yield rows and their numbers, some thousands at a time."""
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
    """Return a row for every move that the attackers draw from, and how many each has."""
    moves = [_pools()[attacker] for attacker in table["attacker"]]
    sizes = np.array([len(pool) for pool in moves])
    return table.loc[table.index.repeat(sizes)].assign(move=list(chain.from_iterable(moves))), sizes


def _split(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


@cache
def _columns(block: str) -> list[str]:
    """Return the names of a block's numbers."""
    return BLOCKS[block].describe(pd.DataFrame([EXAMPLE], columns=ROLES)).columns.tolist()
