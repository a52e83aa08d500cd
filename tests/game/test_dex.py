"""The game tables contain Let's Go, not another game."""

import json

import pytest

from pokebattle import engine
from pokebattle.game import dex


def test_there_are_as_many_species_moves_and_types_as_in_the_game():
    species, moves = dex.species(), dex.moves()
    assert species.index.is_unique
    assert species["form"].value_counts().to_dict() == {"base": 153, "alola": 18, "mega": 15, "starter": 2}
    assert moves.index.is_unique
    assert len(moves) == 226
    assert (moves["category"] != "status").sum() == 157
    assert dex.type_chart().shape == (18, 18)


def test_a_species_is_described_as_in_the_game():
    charizard = dex.species().loc["charizardmegax"]
    assert (charizard["type_1"], charizard["type_2"], charizard["attack"], charizard["speed"]) == (
        "fire",
        "dragon",
        130,
        100,
    )
    assert dex.species().loc["abra", "type_2"] == ""


@pytest.mark.parametrize("member", ["pikachu", "raichu", "raichualola", "pikachustarter"])
def test_all_forms_of_a_line_belong_to_its_first_member(member):
    assert dex.species().loc[member, "evolution_line"] == "pikachu"


@pytest.mark.parametrize(
    ("move", "power", "pp"), [("absorb", 40, 15), ("megadrain", 75, 10), ("solarbeam", 200, 10), ("skyattack", 200, 5)]
)
def test_moves_have_the_values_of_lets_go(move, power, pp):
    assert tuple(dex.moves().loc[move, ["base_power", "pp"]]) == (power, pp)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("ohko", {"fissure", "guillotine", "horndrill"}),
        ("charge", {"dig", "fly", "razorwind", "skullbash", "skyattack", "solarbeam"}),
        ("recharge", {"hyperbeam"}),
        ("self_destruct", {"explosion", "selfdestruct"}),
        ("needs_sleeping_target", {"dreameater"}),
        ("locks_in", {"outrage", "petaldance", "thrash"}),
    ],
)
def test_flags_name_the_moves_with_that_effect(column, expected):
    moves = dex.moves()
    assert set(moves.index[moves[column]]) == expected


def test_a_move_has_a_damage_rule_where_its_power_is_not_a_number():
    moves = dex.moves().query("category != 'status'")
    assert ((moves["base_power"] == 0) == (moves["damage_rule"] != "")).all()


def test_learnsets_name_known_species_and_moves_once():
    learnsets = dex.learnsets()
    assert not learnsets.duplicated().any()
    assert set(learnsets["species_id"]) == set(dex.species().index)
    assert set(learnsets["move_id"]) == set(dex.moves().index)


def test_a_mega_form_has_the_moves_of_its_base_species():
    known = dex.learnsets().groupby("species_id")["move_id"].agg(set)
    assert known["charizardmegax"] == known["charizard"]
    assert known["ditto"] == {"transform"}


@pytest.mark.parametrize(
    ("attacking", "defending", "multiplier"),
    [
        ("fire", "grass", 2.0),
        ("water", "grass", 0.5),
        ("electric", "ground", 0.0),
        ("fairy", "dragon", 2.0),
        ("dragon", "fairy", 0.0),
        ("normal", "rock", 0.5),
    ],
)
def test_types_meet_as_in_the_game(attacking, defending, multiplier):
    assert dex.type_chart().loc[attacking, defending] == multiplier


def test_callers_may_change_what_they_get():
    for read in (dex.species, dex.moves, dex.learnsets, dex.type_chart):
        original, mine = read().copy(), read()
        del mine[mine.columns[0]]
        assert read().equals(original)


def test_the_source_is_the_engine_that_is_installed():
    source = json.loads((dex.FOLDER / "SOURCE.json").read_text())
    assert (source["package"], source["version"], source["mod"]) == (engine.PACKAGE, engine.VERSION, engine.MOD)
    assert source["licence"] == "MIT"
