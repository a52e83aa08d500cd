"""No pair of species is on both sides of a split, whatever its order, moves or policy."""

import pytest

from pokebattle import battles, splits

NAMES = {"species_a": "species_b", "species_b": "species_a", "move_a": "move_b", "move_b": "move_a"}


def test_a_pair_has_one_id_in_both_orders():
    table = battles.matchups()[:500]
    assert splits.pair_ids(table).equals(splits.pair_ids(table.rename(columns=NAMES)))
    assert splits.pair_ids(table).iloc[0] == "abra|aerodactyl"


def test_a_tenth_of_the_pairs_is_set_aside_in_every_order():
    table = battles.matchups()
    chosen = splits.evaluation_pairs(table)
    assert chosen.sum() == 1739
    assert (splits.evaluation_pairs(table.rename(columns=NAMES)) == chosen).all()
    mixed = table.sample(frac=1, random_state=0)
    assert (splits.evaluation_pairs(mixed) == chosen[mixed.index]).all()


def test_the_pairs_set_aside_are_always_the_same():
    table = battles.matchups()
    assert splits.pair_ids(table[splits.evaluation_pairs(table)]).head(3).tolist() == [
        "abra|alakazammega", "abra|arbok", "abra|blastoise"]


def test_a_larger_fraction_contains_a_smaller_one():
    table = battles.matchups()[:2000]
    small, large = (splits.evaluation_pairs(table, fraction) for fraction in (0.1, 0.3))
    assert (large[small]).all()
    assert large.sum() == 600


def test_matchups_of_one_pair_stay_together():
    table = battles.matchups()[:300]
    other = table.assign(move_a="tackle", policy="another")
    assert (splits.evaluation_pairs(table, 0.3) == splits.evaluation_pairs(other, 0.3)).all()


def test_purposes_draw_independently():
    table = battles.matchups()
    held = splits.evaluation_pairs(table)
    kept = splits.subset(table, 3000).index
    assert 0.08 < held[kept].mean() < 0.12


def test_a_smaller_subset_is_part_of_a_larger_one_and_keeps_the_order():
    table = battles.matchups()
    small, large = splits.subset(table, 40), splits.subset(table, 400)
    assert len(small) == 40
    assert set(small.index) <= set(large.index)
    assert small.index.is_monotonic_increasing
    assert splits.subset(table, 0).equals(table)


def test_a_shared_pair_is_refused_in_either_order():
    table = battles.matchups()[:10]
    splits.check_disjoint(table[:5], table[5:])
    with pytest.raises(ValueError, match=r"share 1 pairs of species, e\.g\. abra\|alakazam"):
        splits.check_disjoint(table[:5], table[3:4].rename(columns=NAMES))
