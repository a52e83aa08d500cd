"""No pair of species, and no family that is to be unseen, is in two parts, whatever its order, moves or policy."""

import itertools

import pandas as pd
import pytest

from pokebattle.datasets import splits
from pokebattle.game import dex, matchups

NAMES = {"species_a": "species_b", "species_b": "species_a", "move_a": "move_b", "move_b": "move_a"}
JUDGING = ("test", "gate")
FIRST = {
    "pair": ["abra|alakazammega", "abra|dragonair"],
    "one_unseen": ["abra|charizardmegay", "abra|charmander"],
    "both_unseen": ["aerodactyl|aerodactylmega", "aerodactyl|arcanine"],
}  # a change of these is a change of every result


@pytest.fixture(scope="module")
def families() -> pd.Series:
    return dex.species()["evolution_line"]


@pytest.fixture(scope="module", params=splits.PROTOCOLS)
def protocol(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def part(protocol, families) -> pd.Series:
    return splits.assign(matchups.pairs(), protocol, families)


def species(pairs: pd.DataFrame) -> set[str]:
    return {*pairs["species_a"], *pairs["species_b"]}


def test_a_pair_has_one_id_in_both_orders():
    table = matchups.matchups()[:500]
    assert splits.pair_ids(table).equals(splits.pair_ids(table.rename(columns=NAMES)))
    assert splits.pair_ids(table).iloc[0] == "abra|aerodactyl"


def test_every_protocol_judges_with_enough_pairs(part):
    assert part.value_counts()["test"] >= 1500
    assert part.value_counts()["gate"] >= 750
    assert part.value_counts()["train"] >= 6000


def test_the_parts_are_always_the_same():
    pairs = matchups.pairs()
    first = {
        protocol: splits.pair_ids(pairs[splits.assign(pairs, protocol, dex.species()["evolution_line"]) == "test"])
        .head(2)
        .tolist()
        for protocol in splits.PROTOCOLS
    }
    assert first == FIRST


def test_a_part_does_not_depend_on_the_order_of_rows_and_sides(part, protocol, families):
    mixed = matchups.pairs().rename(columns=NAMES).sample(frac=1, random_state=0)
    assert splits.assign(mixed, protocol, families).sort_index().equals(part)


def test_families_stay_together_and_unseen_ones_never_teach(part, protocol, families):
    held = splits.unseen_species(families)
    for _, members in families.groupby(families).groups.items():
        assert set(members) <= held or not set(members) & held
    pairs = matchups.pairs()
    unseen = pairs["species_a"].isin(held).astype(int) + pairs["species_b"].isin(held)
    if protocol == "pair":
        assert species(pairs[part == "train"]) == species(pairs)
        assert "unused" not in set(part)
    else:
        assert set(unseen[part == "train"]) == {0}
        assert {count for name in JUDGING for count in unseen[part == name]} == {splits.PROTOCOLS.index(protocol)}


def test_a_mega_an_alolan_form_and_an_evolution_are_of_one_family(families):
    assert families["raichualola"] == families["raichu"] == families["pikachustarter"] == "pikachu"
    assert families["charizardmegax"] == families["charmander"]


def test_few_judging_pairs_are_shared_two_to_one():
    names = [f"s{number}" for number in range(10)]
    pairs = pd.DataFrame(list(itertools.combinations(names, 2)), columns=["species_a", "species_b"])
    part = splits.assign(pairs, "both_unseen", pd.Series(names, index=names))
    counts = part.value_counts()
    assert counts["test"] == 2 * counts["gate"] > 0


def test_an_unknown_protocol_is_named(families):
    with pytest.raises(
        ValueError, match="protocol: unknown, got 'rows'; expected one of pair, one_unseen, both_unseen"
    ):
        splits.assign(matchups.pairs(), "rows", families)


def test_inner_folds_hold_back_what_the_protocol_does(part, protocol, families):
    training = matchups.matchups()[(part == "train").to_numpy()].reset_index(drop=True)
    validated = 0
    for fit, validate in splits.folds(training, protocol, families, 3):
        assert fit.any() and validate.any() and not (fit & validate).any()
        learned, judged = training[fit], training[validate]
        assert not set(splits.pair_ids(learned)) & set(splits.pair_ids(judged))
        new = set(families[list(species(judged))]) - set(families[list(species(learned))])
        sides = judged["species_a"].map(families).isin(new).astype(int) + judged["species_b"].map(families).isin(new)
        assert set(sides) == ({0} if protocol == "pair" else {splits.PROTOCOLS.index(protocol)})
        validated += validate.sum()
    assert protocol != "pair" or validated == len(training)


def test_purposes_draw_independently(part, protocol):
    table = matchups.matchups()
    kept = splits.subset(table, 3000).index
    share = (part == "test").mean()
    assert abs((part[kept] == "test").mean() - share) < 0.02


def test_a_smaller_subset_is_part_of_a_larger_one_and_keeps_the_order():
    table = matchups.matchups()
    small, large = splits.subset(table, 40), splits.subset(table, 400)
    assert len(small) == 40
    assert set(small.index) <= set(large.index)
    assert small.index.is_monotonic_increasing
    assert splits.subset(table, 0).equals(table)
