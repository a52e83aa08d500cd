"""A score that would be a memory stops the training, and says what leaks."""

import numpy as np
import pandas as pd
import pytest

from pokebattle import datasets
from pokebattle.datasets import formula_battles, leaks, splits
from pokebattle.game import dex, matchups
from pokebattle.learning.features import matchup_features, mirror

FAMILIES = dex.species()["evolution_line"]


def parts(protocol: str) -> dict[str, pd.DataFrame]:
    table = matchups.matchups()
    part = splits.assign(matchups.pairs(), protocol, FAMILIES)
    return {name: table[(part == name).to_numpy()] for name in splits.PARTS}


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_clean_parts_pass_and_are_counted(protocol):
    clean = parts(protocol)
    sizes = leaks.check_parts(clean, protocol, FAMILIES)
    assert sizes["matchups"].to_dict() == {name: len(rows) for name, rows in clean.items()}


def plant(leaking: dict[str, pd.DataFrame], part: str, rows: pd.DataFrame) -> None:
    leaking[part] = pd.concat([leaking[part], rows])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("part", ["test", "gate"])
def test_a_matchup_that_also_teaches_is_named_from_either_side(part, turned):
    leaking = parts("pair")
    row = leaking["train"].iloc[[7]]
    plant(leaking, part, mirror(row) if turned else row)
    pair = splits.pair_ids(row).iloc[0].replace("|", r"\|")
    message = f"leak: the {part} part has 1 pairs of species that are also in the training part, e.g. {pair}"
    with pytest.raises(splits.LeakError, match=message):
        leaks.check_parts(leaking, "pair", FAMILIES)


def test_the_parts_that_judge_share_nothing():
    leaking = parts("pair")
    plant(leaking, "gate", leaking["test"].head(2))
    with pytest.raises(splits.LeakError, match="has 2 pairs of species of the gate part"):
        leaks.check_parts(leaking, "pair", FAMILIES)


def test_a_matchup_twice_is_named():
    leaking = parts("pair")
    plant(leaking, "train", leaking["train"].head(1))
    with pytest.raises(splits.LeakError, match="the train part has 1 matchups that occur twice"):
        leaks.check_parts(leaking, "pair", FAMILIES)


def test_a_family_that_was_to_be_unseen_is_named():
    leaking = parts("both_unseen")
    unseen = sorted(splits.unseen_species(FAMILIES))[0]
    row = matchups.matchups().query("species_a == @unseen or species_b == @unseen").head(1)
    plant(leaking, "train", row[~splits.pair_ids(row).isin(splits.pair_ids(leaking["test"]))])
    with pytest.raises(
        splits.LeakError, match=f"held-out families in the training part, e.g. {FAMILIES[unseen]}|are also in"
    ):
        leaks.check_parts(leaking, "both_unseen", FAMILIES)


def numbers(table: pd.DataFrame, name: str = "mechanics") -> tuple[np.ndarray, list[str]]:
    features = matchup_features(name)
    return features.fit_transform(table), features.get_feature_names_out().tolist()


def test_the_features_of_battles_with_luck_pass_and_the_share_of_wins_does_not():
    table = datasets.load_battles("v3", max_matchups=1500).training
    X, names = numbers(table)
    wins, n = table["wins_a"].to_numpy(), table["n_battles"].to_numpy()
    leaks.check_columns(X, names, wins, n)
    leaking = np.column_stack([X, -3.0 * wins / n])
    with pytest.raises(splits.LeakError, match=r"the column streak contains the result: .* \(correlation"):
        leaks.check_columns(leaking, [*names, "streak"], wins, n)


def test_the_features_of_a_formula_pass_and_the_formula_does_not():
    table = formula_battles.battles("v1").iloc[::7]
    X, names = numbers(table)
    wins, n = table["wins_a"].to_numpy(), table["n_battles"].to_numpy()
    leaks.check_columns(X, names, wins, n)
    rank = 2 * np.random.default_rng(0).random(len(table))
    leaking = np.column_stack([X, rank + wins, rank])
    with pytest.raises(splits.LeakError, match=r"the column a_rank less b_rank contains the result: .* \(AUC"):
        leaks.check_columns(leaking, [*names, "a_rank", "b_rank"], wins, n)
