"""Versions v1 and v2: the rule by hand, every pair of species, draws without repetition."""

import itertools

import numpy as np
import pytest

from pokebattle.datasets import DatasetError, formula_battles, load_battles, open_part
from pokebattle.datasets.splits import pair_ids
from pokebattle.evaluation import bayes_limit, evaluate, has_limit, single_orientation
from pokebattle.game import dex


@pytest.fixture(scope="module")
def v1():
    return formula_battles.battles("v1")


@pytest.fixture(scope="module")
def v2():
    return formula_battles.battles("v2")


def attack(attacker, move, defender):
    """Damage a turn and score of one attack."""
    table = formula_battles.attack_table()
    first = table.first[table.fighters.get_loc(attacker)]
    row = first + table.moves["move_id"].iloc[first:].tolist().index(move)
    column = table.fighters.get_loc(defender)
    return table.damage[row, column], table.score[row, column]


def test_damage_and_score_by_hand():
    # 22 x 90 x 50 / 64 / 50 + 2 = 32.9375 on base special attack 50 and special defence 64; electric on water
    damage, score = attack("pikachu", "thunderbolt", "squirtle")
    assert damage == pytest.approx(32.9375 * 1.5 * 2)
    assert score == pytest.approx(90 * 1.5 * 2 * 1.0)
    # 22 x 40 x 55 / 65 / 50 + 2 on base attack 55 and defence 65; no bonus, normal on water; priority 1
    damage, score = attack("pikachu", "quickattack", "squirtle")
    assert damage == pytest.approx(22 * 40 * 55 / 65 / 50 + 2)
    assert score == pytest.approx(40 + 50)
    assert attack("pikachu", "thunderbolt", "sandshrew")[0] == formula_battles.LEAST  # immune


@pytest.mark.parametrize(
    ("move", "power"),
    [
        ("thunderbolt", 90),
        ("pinmissile", 75),
        ("doublekick", 60),
        ("solarbeam", 100),
        ("hyperbeam", 75),
        ("dig", 80),
        ("seismictoss", 0),
        ("thunderwave", 0),
    ],
)
def test_power(move, power):
    assert formula_battles.power()[move] == power


@pytest.mark.parametrize(
    ("turns_a", "turns_b", "priority", "speed", "a_wins"),
    [
        (1.0, 2.0, 0, -5, True),
        (2.0, 1.0, 0, 5, False),
        (1.5, 1.5, 0, 5, True),
        (1.5, 1.5, 0, -5, False),
        (1.5, 1.5, 1, -5, True),
        (1.5, 1.5, -1, 5, False),
        (1.5, 1.5, 0, 0, True),
    ],
)
def test_who_moves_first_wins_a_tie(turns_a, turns_b, priority, speed, a_wins):
    decided = formula_battles.decide(*(np.array([value]) for value in (turns_a, turns_b, priority, speed)))
    assert decided.tolist() == [a_wins]


def test_every_species_meets_every_other_one_on_both_sides(v1):
    assert len(v1) == 187 * 186
    assert not v1.duplicated(["species_a", "species_b"]).any()
    assert not (v1["species_a"] == v1["species_b"]).any()
    assert set(v1["policy"]) == {"best_move"}
    turned = v1.set_index(["species_a", "species_b"])
    back = turned.loc[list(zip(v1["species_b"], v1["species_a"], strict=True))]
    assert (turned["move_a"].to_numpy() == back["move_b"].to_numpy()).all()
    assert (turned["wins_a"].to_numpy() + back["wins_a"].to_numpy()).min() == 1  # 2 in ties alone


def test_the_best_move_has_the_highest_score(v1):
    table, row = formula_battles.attack_table(), v1.iloc[12_345]
    first = table.first[table.fighters.get_loc(row["species_a"])]
    end = first + table.count[table.fighters.get_loc(row["species_a"])]
    scores = dict(
        zip(
            table.moves["move_id"].iloc[first:end],
            table.score[first:end, table.fighters.get_loc(row["species_b"])],
            strict=True,
        )
    )
    assert scores[row["move_a"]] == max(scores.values())


def test_the_scenarios_hold_learned_moves_and_none_twice(v2):
    assert v2["policy"].value_counts().to_dict() == {
        "best_move": 34_782,
        "random_move": 170_004,
        "all_combinations": 688_410,
    }
    assert not v2.duplicated(["species_a", "species_b", "move_a", "move_b", "policy"]).any()
    learned = set(dex.learnsets().itertuples(index=False, name=None))
    for side in "ab":
        used = v2[[f"species_{side}", f"move_{side}"]].drop_duplicates()
        assert set(used.itertuples(index=False, name=None)) <= learned
    best = v2[v2["policy"] == "best_move"].set_index(["species_a", "species_b"])["move_a"]
    drawn = v2[v2["policy"] == "random_move"]
    expected = best.loc[list(zip(drawn["species_a"], drawn["species_b"], strict=True))]
    assert (expected.to_numpy() == drawn["move_a"]).all()


def test_a_version_is_the_same_every_time(v2):
    formula_battles.attack_table.cache_clear()
    assert formula_battles.battles("v2").equals(v2)


def test_every_subset_is_drawn_alike():
    rows, numbers = formula_battles.draw(np.full(60_000, 5), 3, np.random.default_rng(0))
    drawn = np.sort(numbers.reshape(-1, 3), axis=1)
    assert (rows == np.repeat(np.arange(60_000), 3)).all()
    subsets, counts = np.unique(drawn, axis=0, return_counts=True)
    assert subsets.tolist() == [list(subset) for subset in itertools.combinations(range(5), 3)]
    assert abs(counts - 6000).max() < 5 * (60_000 * 0.1 * 0.9) ** 0.5


def test_where_there_are_few_all_are_drawn():
    rows, numbers = formula_battles.draw(np.array([2, 0, 3]), 3, np.random.default_rng(0))
    assert rows.tolist() == [0, 0, 2, 2, 2]
    assert sorted(numbers[:2]) == [0, 1]
    assert sorted(numbers[2:]) == [0, 1, 2]


def test_a_set_of_the_formula_loads_like_any_other():
    battles, fought = load_battles("v1"), load_battles("v3")
    assert set(pair_ids(open_part(battles, "test"))) == set(pair_ids(open_part(fought, "test")))
    assert battles.digest == load_battles("v1").digest != load_battles("v1", max_matchups=1000).digest
    assert battles.manifest["rows"] == 34_782
    with pytest.raises(DatasetError, match="did you mean v1"):
        load_battles("v1x")
    with pytest.raises(DatasetError, match="engine fought"):
        load_battles("v1", by_engine=True)


def test_a_matchup_from_both_sides_counts_once_and_has_no_limit(v1):
    part = v1[v1["species_a"].isin(["abra", "zubat", "mew"]) & v1["species_b"].isin(["abra", "zubat", "mew"])]
    judged = single_orientation(part)
    assert (len(part), len(judged)) == (6, 3)
    assert not has_limit(judged)
    scores = evaluate(judged, {"half": np.full(3, 0.5)}, n_bootstrap=20, random_state=0)
    assert "excess_percent" not in set(scores["metric"])
    assert set(scores["predictor"]) == {"half"}
    assert bayes_limit(judged.assign(n_battles=2)).notna().all(axis=None)
