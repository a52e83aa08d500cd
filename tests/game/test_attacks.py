"""One attack: damage by hand, and knock-out chances against a sum over every possible course."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pokebattle.game.attacks import (
    NEVER,
    TURNS,
    attacks,
    courses,
    damage_of_use,
    hit_damage,
    hits,
    knock_outs,
    mixed_knock_outs,
)


def hits_by_turn(schedule: str, hit_chance: float) -> Any:
    """Chances by turn and number of hits, of a move without wear."""
    return courses(schedule, hit_chance, 0.0)[:, 0]


def attack(attacker: str, move: str, defender: str) -> pd.DataFrame:
    return attacks([attacker], [move], [defender])


def test_damage_by_hand() -> None:
    """Pikachu's thunderbolt on Squirtle, with the formula of bulbapedia.bulbagarden.net/wiki/Damage.

    Special attack 71 and special defence 85 are (2 * base + 31) / 2 + 5, times 1.02. 22 * 90 * 71 / 85 / 50 + 2 is 35
    with every step rounded down; the lowest roll makes 29, the same-type bonus 43, water's weakness 86; the highest
    35, 52, 104. A critical hit takes 132 at least, and Squirtle has 119 HP.
    """
    table = attack("pikachu", "thunderbolt", "squirtle")
    points, chances = hit_damage(table)
    assert table.loc[0, ["attack", "defense", "defender_hp"]].tolist() == [71, 85, 119]
    assert (points[0, 0], points[0, 15], points[0, 16]) == (86, 104, 132)
    assert chances.sum() == pytest.approx(1) and chances[0, 16:].sum() == pytest.approx(1 / 24)
    down, turns = knock_outs(table)
    assert down[0, :3] == pytest.approx([0, 1 / 24, 1], abs=1e-6) and turns[0] == pytest.approx(1 + 23 / 24)


@pytest.mark.parametrize(
    ("attacker", "move", "defender"),
    [
        ("pikachu", "quickattack", "bulbasaur"),  # every turn
        ("nidoking", "megahorn", "starmie"),  # misses
        ("machamp", "superpower", "snorlax"),  # loses attack
        ("hitmonlee", "doublekick", "lapras"),  # hits twice
        ("beedrill", "pinmissile", "exeggutor"),  # hits two to five times
        ("tauros", "hyperbeam", "blastoise"),  # rests after every hit
        ("venusaur", "solarbeam", "charizard"),  # charges every second turn
        ("ninetales", "fireblast", "snorlax"),  # burns
        ("arbok", "wrap", "slowbro"),  # traps
        ("beedrill", "twineedle", "slowbro"),  # poisons with each of two hits
    ],
)
def test_knock_outs_equal_a_simulation(attacker: str, move: str, defender: str) -> None:
    table, n, rng = attack(attacker, move, defender), 40_000, np.random.default_rng(0)
    down, _ = knock_outs(table)
    hp, rests = np.full(n, table.loc[0, "defender_hp"]), np.zeros(n, dtype=bool)
    uses, worn = np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    for turn in range(1, TURNS + 1):
        strikes = ~rests & (rng.random(n) < table.loc[0, "hit_chance"])
        if table.loc[0, "charge"]:
            strikes &= turn % 2 == 0
        for use in np.unique(uses[strikes]):
            points, chances = hit_damage(table, use)
            count = rng.choice(np.arange(1, 6), n, p=hits(table)[0]) * (strikes & (uses == use))
            rolled = rng.choice(points[0], (5, n), p=chances[0])
            hp = hp - (rolled * (np.arange(1, 6)[:, None] <= count)).sum(axis=0)
        uses, rests = uses + strikes, strikes & table.loc[0, "recharge"]
        worn += (worn > 0) | (strikes & (rng.random(n) < table.loc[0, "wear_chance"]))
        hp = hp - table.loc[0, "wears"] * ((worn > 0) & ~((worn == 6) & table.loc[0, "traps"]))
        assert down[0, turn] == pytest.approx((hp <= 0).mean(), abs=0.012)


def test_three_uses_equal_the_sum_over_all_rolls() -> None:
    table = attack("vaporeon", "aurorabeam", "lapras")
    points, chances = hit_damage(table)
    triples = np.array(list(itertools.product(range(32), repeat=3)))
    fallen = points[0][triples].sum(axis=1) >= table.loc[0, "defender_hp"]
    down, _ = knock_outs(attack("vaporeon", "aurorabeam", "lapras"))
    assert down[0, 3] == pytest.approx(chances[0][triples].prod(axis=1)[fallen].sum(), abs=1e-6)


@pytest.mark.parametrize(
    ("attacker", "move", "defender"),
    [("alakazam", "dreameater", "machamp"), ("snorlax", "bodyslam", "gengar"), ("machamp", "counter", "snorlax")],
)
def test_moves_that_never_take_hp_never_knock_out(attacker: str, move: str, defender: str) -> None:
    down, turns = knock_outs(attack(attacker, move, defender))
    assert (down == 0).all() and turns == [NEVER]


@pytest.mark.parametrize(
    ("attacker", "move", "defender", "power", "first"),
    [
        ("machamp", "lowkick", "snorlax", 120, None),  # 460 kg
        ("machamp", "lowkick", "pikachu", 20, None),  # 6 kg
        ("gengar", "nightshade", "alakazam", 0, 50),  # the level
        ("magneton", "sonicboom", "alakazam", 0, 20),
        ("gengar", "nightshade", "snorlax", 0, 0),  # normal types are immune
        ("dugtrio", "fissure", "raichu", 0, 135),  # all of its HP
        ("pikachustarter", "pikapapow", "starmie", 28, None),  # friendship 70
    ],
)
def test_moves_with_rules_of_their_own(attacker: str, move: str, defender: str, power: int, first: int | None) -> None:
    table = attack(attacker, move, defender)
    assert table.loc[0, "power"] == power
    if first is not None:
        assert (hit_damage(table)[0] == first).all()


@pytest.mark.parametrize(
    ("attacker", "move", "defender", "wears", "chance"),
    [
        ("ninetales", "flamethrower", "snorlax", 235 // 16, 0.1),
        ("ninetales", "flamethrower", "arcanine", 165 // 16, 0.0),  # fire types do not burn
        ("muk", "sludgebomb", "snorlax", 235 // 8, 0.3),
        ("muk", "sludgebomb", "magneton", 125 // 8, 0.0),  # steel types are immune
        ("beedrill", "twineedle", "snorlax", 235 // 8, 1 - 0.8**2),
        ("arbok", "wrap", "snorlax", 235 // 8, 1.0),
        ("eeveestarter", "sappyseed", "snorlax", 235 // 8, 1.0),
        ("eeveestarter", "sappyseed", "venusaur", 155 // 8, 0.0),  # grass types are not seeded
    ],
)
def test_what_wears_the_defender_down(attacker: str, move: str, defender: str, wears: int, chance: float) -> None:
    table = attack(attacker, move, defender)
    assert table.loc[0, "wear_chance"] == pytest.approx(chance)
    assert chance == 0 or table.loc[0, "wears"] == wears


def test_super_fang_halves_what_is_left() -> None:
    """Nine of ten hit. Of 119 HP they leave 60, 30, 15, 8, 4, 2, 1 and 0: all of the eight turns are needed."""
    table = attack("raticate", "superfang", "squirtle")
    down, turns = knock_outs(table)
    assert (hit_damage(table)[0] == 59).all()
    assert (down[0, :8] == 0).all() and down[0, 8] == pytest.approx(0.9**8, abs=1e-6) and turns[0] > 8


def test_psywave_takes_half_to_one_and_a_half_of_the_level() -> None:
    """50 to 150 percent of level 50, rounded down: 25 to 75 HP, of Rattata's 105."""
    points, chances = hit_damage(attack("starmie", "psywave", "rattata"))
    assert (points * chances).sum() == pytest.approx(np.mean(np.arange(50, 151) // 2))
    assert (points[chances > 0].min(), points.max(), chances.sum()) == (25, 75, pytest.approx(1))
    low, mean, high = damage_of_use(attack("starmie", "psywave", "rattata"))
    assert (low[0], high[0]) == (25, 75) and mean[0] == pytest.approx((points * chances).sum())
    assert damage_of_use(attack("starmie", "psywave", "persianalola")) == (0, 0, 0)  # dark types are immune
    down, _ = knock_outs(attack("starmie", "psywave", "rattata"))
    rolls = np.arange(50, 151) // 2
    assert down[0, 2] == pytest.approx((rolls[:, None] + rolls >= 105).mean(), abs=1e-6)


def test_one_row_equals_the_same_row_among_many() -> None:
    rows = [
        ("pikachu", "thunderbolt", "squirtle"),
        ("machamp", "superpower", "chansey"),
        ("beedrill", "pinmissile", "snorlax"),
        ("mew", "selfdestruct", "onix"),
    ]
    together = knock_outs(attacks(*zip(*rows, strict=True)))
    for index, row in enumerate(rows):
        down, turns = knock_outs(attack(*row))
        assert (down[0] == together[0][index]).all() and turns[0] == together[1][index]


@pytest.mark.parametrize(
    ("schedule", "n_hits"),
    [
        ("every", [0, 1, 2, 3, 4]),
        ("once", [0, 1, 1, 1, 1]),
        ("charge", [0, 0, 1, 1, 2]),  # gathers light in the first turn
        ("recharge", [0, 1, 1, 2, 2]),  # rests in the second
    ],
)
def test_when_a_move_strikes(schedule: str, n_hits: list[int]) -> None:
    assert (hits_by_turn(schedule, 1.0)[np.arange(5), n_hits] == 1).all()


def test_a_miss_spends_a_charge_but_needs_no_rest() -> None:
    """Nine of ten hit. By the third turn hyper beam has hit twice only after two hits, once after one of three."""
    assert hits_by_turn("charge", 0.9)[4, :3] == pytest.approx([0.01, 0.18, 0.81])
    assert hits_by_turn("recharge", 0.9)[3, :3] == pytest.approx([0.001, 0.9 * 0.1 + 0.1 * 0.9 + 0.01 * 0.9, 0.81])


def test_a_locking_move_confuses_its_user() -> None:
    """Two hits in any case, a third in half of the cases; else the user is confused and hits itself in 33 %."""
    table = hits_by_turn("locks_in", 1.0)
    assert table[2, 2] == 1
    assert table[3, 2:4] == pytest.approx([0.5 * 0.33, 0.5 + 0.5 * 0.67])
    assert (table.sum(axis=1) == pytest.approx(1)) and (table[1:, 0] == 0).all()


def test_how_often_a_move_hits() -> None:
    """Two to five hits: 35, 35, 15, 15 % (bulbapedia.bulbagarden.net/wiki/Multistrike_move, since Generation 5)."""
    assert hits(attack("beedrill", "pinmissile", "mew"))[0] == pytest.approx([0, 0.35, 0.35, 0.15, 0.15])
    assert hits(attack("hitmonlee", "doublekick", "mew"))[0].tolist() == [0, 1, 0, 0, 0]


def test_superpower_weakens_its_user_but_not_a_critical_hit() -> None:
    """One stage down is two thirds of the attack; a critical hit does not count what lowers it."""
    table = attack("machamp", "superpower", "snorlax")
    weaker = table.assign(attack=table["attack"] * 2 // 3)
    (first, _), (second, _), (expected, _) = hit_damage(table), hit_damage(table, use=1), hit_damage(weaker)
    assert (second[:, :16] == expected[:, :16]).all() and (second[:, :16] < first[:, :16]).all()
    assert (second[:, 16:] == first[:, 16:]).all()


@pytest.mark.parametrize(
    ("attacker", "move", "defender"),
    [
        ("nidoking", "megahorn", "starmie"),
        ("beedrill", "pinmissile", "exeggutor"),
        ("porygon", "hyperbeam", "blastoise"),
        ("venusaur", "solarbeam", "charizard"),
        ("electrode", "explosion", "starmie"),
        ("kangaskhan", "fakeout", "abra"),
        ("raticate", "superfang", "snorlax"),
        ("starmie", "psywave", "alakazam"),
        ("alakazam", "dreameater", "machamp"),
    ],
)
def test_drawing_from_one_move_is_using_it(attacker: str, move: str, defender: str) -> None:
    down, turns = knock_outs(attack(attacker, move, defender))
    mixed, mixed_turns = mixed_knock_outs(attack(attacker, move, defender), np.array([1]))
    assert mixed == pytest.approx(down, abs=2e-6)
    assert mixed_turns == pytest.approx(turns, abs=1e-4)


def test_drawn_moves_equal_a_simulation() -> None:
    """Two sides at once: every kind of move is in the first one's pool."""
    pool = ["bodyslam", "hyperbeam", "dig", "superfang", "pinmissile", "psywave", "selfdestruct", "fakeout", "megahorn"]
    table = attacks(["mew"] * 9 + ["pikachu"], [*pool, "thunderbolt"], ["dragonite"] * 9 + ["squirtle"])
    down, turns = mixed_knock_outs(table, np.array([9, 1]))
    assert down[1] == pytest.approx(knock_outs(attack("pikachu", "thunderbolt", "squirtle"))[0][0], abs=2e-6)
    fallen = simulate_draws(table.head(9), 6_000)
    for turn in range(1, TURNS + 1):
        assert down[0, turn] == pytest.approx((fallen <= turn).mean(), abs=0.02)
    assert turns[0] > np.minimum(fallen, TURNS).mean()


def simulate_draws(table: pd.DataFrame, n: int) -> np.ndarray:
    """Return the turns in which the defenders of `n` battles fall, infinity if not within `TURNS`."""
    moves, rng = table.to_dict("records"), np.random.default_rng(0)
    points, chances = hit_damage(table)
    rolls, n_hits = chances.cumsum(axis=1), hits(table).cumsum(axis=1)

    def fall() -> float:
        hp, turn = moves[0]["defender_hp"], 0
        while turn < TURNS:
            turn += 1
            number = rng.integers(len(moves))
            move = moves[number]
            turn += move["charge"]
            hit = rng.random() < move["hit_chance"] and (turn == 1 or not move["first_turn_only"])
            for _ in range(n_hits[number].searchsorted(rng.random()) + 1 if hit else 0):
                hp -= max(hp // 2, 1) if move["halves"] else points[number, rolls[number].searchsorted(rng.random())]
            if hp <= 0 or move["self_destruct"]:
                break
            turn += hit and move["recharge"]
        return turn if hp <= 0 and turn <= TURNS else np.inf

    return np.array([fall() for _ in range(n)])
