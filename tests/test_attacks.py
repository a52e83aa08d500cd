"""One attack: damage by hand, and knock-out chances against a sum over every possible course."""

import itertools

import numpy as np
import pandas as pd
import pytest

from pokebattle.attacks import NEVER, TURNS, attacks, hit_damage, hits, knock_outs, uses_by_turn


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
        ("tauros", "hyperbeam", "blastoise"),  # rests every second turn
        ("venusaur", "solarbeam", "charizard"),  # charges every second turn
    ],
)
def test_knock_outs_equal_a_simulation(attacker: str, move: str, defender: str) -> None:
    table, n, rng = attack(attacker, move, defender), 40_000, np.random.default_rng(0)
    down, _ = knock_outs(table)
    hp, uses = np.full(n, table.loc[0, "defender_hp"]), uses_by_turn(table)[0]
    for turn in range(1, TURNS + 1):
        if uses[turn] > uses[turn - 1]:
            points, chances = hit_damage(table, uses[turn - 1])
            count = rng.choice(np.arange(1, 6), n, p=hits(table)[0]) * (rng.random(n) < table.loc[0, "hit_chance"])
            rolled = rng.choice(points[0], (5, n), p=chances[0])
            hp = hp - (rolled * (np.arange(1, 6)[:, None] <= count)).sum(axis=0)
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


def test_one_row_equals_the_same_row_among_many() -> None:
    rows = [("pikachu", "thunderbolt", "squirtle"), ("machamp", "superpower", "chansey"),
            ("beedrill", "pinmissile", "snorlax"), ("mew", "selfdestruct", "onix")]  # fmt: skip
    together = knock_outs(attacks(*zip(*rows, strict=True)))
    for index, row in enumerate(rows):
        down, turns = knock_outs(attack(*row))
        assert (down[0] == together[0][index]).all() and turns[0] == together[1][index]


@pytest.mark.parametrize(
    ("attacker", "move", "uses"),
    [
        ("snorlax", "bodyslam", [0, 1, 2, 3, 4]),
        ("snorlax", "hyperbeam", [0, 1, 1, 2, 2]),  # rests in the second turn
        ("venusaur", "solarbeam", [0, 0, 1, 1, 2]),  # gathers light in the first
        ("electrode", "explosion", [0, 1, 1, 1, 1]),
    ],
)
def test_when_a_move_strikes(attacker: str, move: str, uses: list[int]) -> None:
    assert uses_by_turn(attack(attacker, move, "mew"))[0, :5].tolist() == uses


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
