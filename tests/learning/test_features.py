"""Features: every row on its own, both sides by the same rule, nothing but species and moves."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from pokebattle.game.matchups import RANDOM, damaging_moves, matchups
from pokebattle.learning import features
from pokebattle.learning.features import BLOCKS, FEATURE_SETS, MARGIN, MatchupFeatures, matchup_features, mirror


@pytest.fixture(scope="module")
def some() -> pd.DataFrame:
    return matchups().sample(120, random_state=0).reset_index(drop=True)


def pair(species_a: str, move_a: str, species_b: str, move_b: str) -> pd.DataFrame:
    return pd.DataFrame(
        [[species_a, species_b, move_a, move_b]], columns=["species_a", "species_b", "move_a", "move_b"]
    )


def numbers(matchup: pd.DataFrame, name: str = "mechanics") -> pd.Series:
    return matchup_features(name).set_output(transform="pandas").fit_transform(matchup).iloc[0]


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_swapping_the_sides_swaps_the_columns(name: str, some: pd.DataFrame) -> None:
    features = matchup_features(name).set_output(transform="pandas")
    one, other = features.fit_transform(some), features.fit_transform(mirror(some))
    swapped = other.rename(columns=lambda column: {"a_": "b_", "b_": "a_"}.get(column[:2], column[:2]) + column[2:])
    comparisons = FEATURE_SETS[name]["comparisons"] + [MARGIN] * (MARGIN in one)
    swapped[comparisons] *= -1
    pd.testing.assert_frame_equal(one, swapped[one.columns])


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_one_row_equals_the_same_row_among_many(name: str, some: pd.DataFrame) -> None:
    features = matchup_features(name).fit(some)
    together = features.transform(some)
    for row in range(0, 120, 30):
        assert (features.transform(some.iloc[[row]])[0] == together[row]).all()
    shuffled = some.sample(frac=2, replace=True, random_state=1)
    assert (features.transform(shuffled) == together[shuffled.index]).all()


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_names_fit_the_numbers_and_hold_no_ids(name: str, some: pd.DataFrame) -> None:
    features = matchup_features(name)
    X, names = features.fit_transform(some), features.get_feature_names_out()
    assert X.shape == (120, len(names)) and X.dtype == np.float32 and np.isfinite(X).all()
    assert len(set(names)) == len(names)
    ids = ("species", "move", "policy", "num")
    assert not [column for column in names if column.endswith(ids) and not column.endswith("random_move")]


def test_outcomes_are_not_read(some: pd.DataFrame) -> None:
    features = matchup_features("mechanics").fit(some)
    with_outcomes = some.assign(wins_a=1, n_battles=20, turns=3.0, policy="other")
    assert (features.transform(with_outcomes) == features.transform(some)).all()
    assert (features.transform(with_outcomes.iloc[:, ::-1]) == features.transform(some)).all()


def test_the_configuration_rebuilds_the_transformer(some: pd.DataFrame) -> None:
    features = matchup_features("mechanics").fit(some)
    again = MatchupFeatures(**clone(features).get_params())
    assert (again.fit_transform(some) == features.transform(some)).all()


def test_mechanics_by_hand() -> None:
    """Numbers of tests/game/test_attacks.py; Pikachu's base speed 90 makes 112, Squirtle's 43 makes 64."""
    row = numbers(pair("pikachu", "thunderbolt", "squirtle", "aquajet"))
    assert row["a_damage_min"] == pytest.approx(86 / 119) and row["a_damage_max"] == pytest.approx(104 / 119)
    assert row["a_down_by_1"] == pytest.approx(1 / 24, abs=1e-6) and row["a_down_by_2"] == 1
    assert row["faster_by"] == pytest.approx(np.log(112 / 64))
    assert (row["b_priority"], row["moves_first"]) == (1, -1)
    assert row["a_paralysis_chance"] == pytest.approx(0.1)
    assert row["turns_saved"] == pytest.approx(row["b_turns"] - row["a_turns"])
    assert row["stronger_by"] == pytest.approx(np.log(row["a_damage_mean"] / row["b_damage_mean"]), rel=1e-5)


def test_what_gives_back_does_no_damage_of_its_own() -> None:
    row = numbers(pair("machamp", "counter", "primeape", "lowkick"))
    assert (row["a_gives_back"], row["b_gives_back"], row["a_damage_max"]) == (1, 0, 0)
    assert row["stronger_by"] == pytest.approx(np.log(0.001 / row["b_damage_mean"]), rel=1e-5)


def test_who_moves_first() -> None:
    slow = pair("snorlax", "bodyslam", "jolteon", "thunderbolt")
    assert numbers(slow)["moves_first"] == -1
    assert numbers(slow.assign(move_a="quickattack"))["moves_first"] == 1
    assert numbers(pair("ditto", "tackle", "ditto", "tackle"))["moves_first"] == 0


def test_who_can_hide() -> None:
    digs = pair("sandslash", "dig", "tauros", "bodyslam")
    assert numbers(digs)["out_of_reach"] == 1 and numbers(mirror(digs))["out_of_reach"] == -1
    assert numbers(digs.assign(move_b="earthquake"))["out_of_reach"] == 0
    assert numbers(digs.assign(move_b="dig"))["out_of_reach"] == 0
    assert numbers(pair("pidgeot", "fly", "raichu", "thunder"))["out_of_reach"] == 0
    assert numbers(pair("pidgeot", "fly", "raichu", "thunderbolt"))["out_of_reach"] == 1


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_drawn_moves_are_symmetric_and_independent_of_other_rows(name: str, some: pd.DataFrame) -> None:
    features = matchup_features(name)
    drawn = pd.concat([some.head(9).assign(move_a=RANDOM), some.tail(9).assign(move_a=RANDOM, move_b=RANDOM)])
    X = features.transform(drawn)
    assert (features.both_orientations(drawn)[1] == features.transform(mirror(drawn))).all()
    for row in (0, 8, 17):
        assert (features.transform(drawn.iloc[[row]])[0] == X[row]).all()
    assert numbers(drawn.head(1), name)[["a_random_move", "b_random_move"]].tolist() == [1, 0]


def test_drawn_moves_are_described_by_their_means() -> None:
    pool = damaging_moves()["abra"]
    single = pd.concat([pair("abra", move, "onix", "dig") for move in pool])
    means = matchup_features("mechanics").set_output(transform="pandas").fit_transform(single).mean()
    row = numbers(pair("abra", RANDOM, "onix", "dig"))
    for name in ("damage_mean", "hit_chance", "priority", "paralysis_chance", "hides_by_dig"):
        assert row[f"a_{name}"] == pytest.approx(means[f"a_{name}"])
    assert row["moves_first"] == pytest.approx(means["moves_first"])
    assert row["a_down_by_1"] == pytest.approx(means["a_down_by_1"], abs=2e-6)  # later turns do not average
    assert row["a_turns"] < means["a_turns"]
    only = damaging_moves()["magikarp"]  # the only one
    given, drawn = (numbers(pair("magikarp", move, "onix", "dig")) for move in (only[0], RANDOM))
    pd.testing.assert_series_equal(given.drop("a_random_move"), drawn.drop("a_random_move"), atol=2e-6)


def test_ailments_spare_the_immune() -> None:
    assert numbers(pair("jolteon", "thunderbolt", "starmie", "surf"))["a_paralysis_chance"] == pytest.approx(0.1)
    assert numbers(pair("jolteon", "thunderbolt", "raichu", "surf"))["a_paralysis_chance"] == 0
    assert numbers(pair("jolteon", "thunderbolt", "dugtrio", "dig"))["a_paralysis_chance"] == 0  # the hit itself
    assert numbers(pair("arcanine", "fireblast", "starmie", "surf"))["a_burn_chance"] == pytest.approx(0.085)


def test_what_a_move_costs_its_user() -> None:
    row = numbers(pair("machamp", "superpower", "tauros", "doubleedge"))
    assert (row["a_own_attack_stages"], row["a_own_defense_stages"]) == (-1, -1)
    assert row["b_recoil"] > 0 and row["a_recoil"] == 0
    row = numbers(pair("exeggutor", "solarbeam", "electrode", "selfdestruct"))
    assert (row["a_charge"], row["b_self_destruct"], row["a_down_by_1"]) == (1, 1, 0)


def test_each_attack_is_computed_once(some: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[pd.DataFrame] = []
    block = BLOCKS["strike"]

    def strike(side: pd.DataFrame) -> pd.DataFrame:
        asked.append(side)
        return block.describe(side)

    features, repeated = matchup_features("mechanics"), pd.concat([some, mirror(some), some])
    expected = features.transform(some)
    monkeypatch.setitem(BLOCKS, "strike", block._replace(describe=strike))
    assert (features.transform(repeated)[-120:] == expected).all()
    assert sum(map(len, asked)) == 240 and not pd.concat(asked).duplicated().any()


def test_parts_do_not_show(some: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    matchups = pd.concat([some, some.assign(move_a=RANDOM).head(9)])
    whole = matchup_features("mechanics").both_orientations(matchups)
    monkeypatch.setattr(features, "ROWS", 50)
    monkeypatch.setattr(features, "POOL", 20)
    assert (matchup_features("mechanics").both_orientations(matchups) == whole).all()


def test_mirror_turns_the_wins() -> None:
    table = pair("abra", "psychic", "onix", "dig").assign(wins_a=15, n_battles=20)
    turned = mirror(table)
    assert turned.loc[0, ["species_a", "move_a", "species_b", "move_b", "wins_a"]].tolist() == [
        "onix",
        "dig",
        "abra",
        "psychic",
        5,
    ]
    pd.testing.assert_frame_equal(mirror(turned), table)


def test_errors_name_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"species_b: unknown id, got 'squirtel'; did you mean squirtle\?"):
        numbers(pair("pikachu", "thunderbolt", "squirtel", "surf"))
    with pytest.raises(ValueError, match=r"move_a: unknown id, got 'nan'"):
        numbers(pair("pikachu", float("nan"), "squirtle", "surf"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"column move_b is missing, got species_a, species_b, move_a"):
        numbers(pair("pikachu", "thunderbolt", "squirtle", "surf").drop(columns="move_b"))
    with pytest.raises(ValueError, match=r"random draws from the damaging moves of its user, and ditto has none"):
        numbers(pair("pikachu", "thunderbolt", "ditto", RANDOM))
    with pytest.raises(ValueError, match=r"unknown set, got 'mechanic'; expected one of raw, mechanics"):
        matchup_features("mechanic")
