"""Stats, damage and the move policy, against values worked out by hand or in another way."""

from fractions import Fraction

import numpy as np
import pytest

from pokebattle.game import dex, matchups


def test_stats_by_hand():
    # Blastoise, base 79/83/100/85/105/78: HP (158 + 31) // 2 + 60; attack ((166 + 31) // 2 + 5) * 102 // 100.
    assert matchups.battle_stats().loc["blastoise"].to_dict() == {
        "hp": 154,
        "attack": 105,
        "defense": 122,
        "special_attack": 107,
        "special_defense": 127,
        "speed": 99,
    }


@pytest.mark.parametrize(
    ("roll", "critical", "expected"),
    [
        (100, False, 51),  # 22 * 90 * 107 // 132 // 50 + 2 = 34; half as much again
        (85, False, 42),  # 34 * 85 // 100 = 28
        (100, True, 76),  # 34 * 3 // 2 = 51; 76.5 is rounded down
    ],
)
def test_ice_beam_of_lapras_on_snorlax_by_hand(roll, critical, expected):
    stats = matchups.battle_stats()
    power, attack, defense = 90, stats.loc["lapras", "special_attack"], stats.loc["snorlax", "special_defense"]
    assert matchups.damage(power, attack, defense, 1.5, 1.0, roll, critical) == expected


def test_a_hit_takes_at_least_one_point_unless_the_target_is_immune():
    effectiveness = np.array([0.0, 0.25, 1.0])
    assert matchups.damage(10, 20, 400, 1.0, effectiveness, roll=85).tolist() == [0, 1, 1]
    assert matchups.damage(0, 100, 100, 1.5, 2.0) == 0


def test_two_types_multiply():
    effect = matchups.type_effectiveness(["fire", "ground", "rock"], ["parasect", "charizard", "charizard"])
    assert effect.tolist() == [4.0, 0.0, 4.0]
    assert matchups.same_type_bonus(["flying", "dragon"], ["charizard", "charizard"]).tolist() == [1.5, 1.0]


def literal_best_move(attacker: str, defender: str) -> str:
    """Apply the policy's words to one pair with exact fractions, move by move."""
    species, moves, stats, chart = dex.species(), dex.moves(), matchups.battle_stats(), dex.type_chart()
    learnsets = dex.learnsets()
    scores = {}
    for name in sorted(learnsets.loc[learnsets["species_id"] == attacker, "move_id"]):
        move = moves.loc[name]
        if move["category"] == "status":
            continue
        prefix = "special_" if move["category"] == "special" else ""
        ours, theirs = species.loc[attacker], species.loc[defender]
        score = Fraction(int(move["base_power"]) * int(move["accuracy"]), 100)
        score *= Fraction(3, 2) if move["type"] in (ours["type_1"], ours["type_2"]) else 1
        for defending in filter(None, (theirs["type_1"], theirs["type_2"])):
            score *= Fraction(float(chart.loc[move["type"], defending]))
        score *= Fraction(int(stats.loc[attacker, prefix + "attack"]), int(stats.loc[defender, prefix + "defense"]))
        scores[name] = score
    return max(scores, key=lambda name: scores[name])  # the first of equals, and they are sorted


def test_best_moves_are_the_policy_taken_literally():
    sample = matchups.best_moves().sample(60, random_state=0)
    expected = [literal_best_move(*pair) for pair in sample.index]
    assert sample["move_id"].tolist() == expected


@pytest.mark.parametrize(
    ("attacker", "defender", "expected"),
    [
        ("kabutops", "abra", "leechlife"),  # x-scissor is as strong
        ("meowth", "beedrill", "facade"),  # so are headbutt and slash
        ("caterpie", "gastly", "tackle"),  # all it has scores 0
    ],
)
def test_equal_scores_go_to_the_first_move_id(attacker, defender, expected):
    assert matchups.best_moves().loc[(attacker, defender), "move_id"] == expected


def test_every_pair_that_can_fight_meets_once():
    table = matchups.matchups()
    assert list(table.columns) == matchups.MATCHUP
    assert len(table) == 187 * 186 // 2
    assert not table.duplicated(["species_a", "species_b"]).any()
    assert (table["species_a"] < table["species_b"]).all()
    assert "ditto" not in {*table["species_a"], *table["species_b"]}


def test_everyone_uses_a_move_it_can_learn():
    known = set(dex.learnsets().itertuples(index=False, name=None))
    table = matchups.matchups()
    for side in "ab":
        assert set(table[[f"species_{side}", f"move_{side}"]].itertuples(index=False, name=None)) <= known


def test_an_unknown_policy_is_named():
    with pytest.raises(ValueError, match=r"policy: unknown, got 'best'; expected one of best_move"):
        matchups.matchups("best")
