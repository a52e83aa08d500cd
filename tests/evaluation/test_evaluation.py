"""Figures of merit on made-up battles whose true probabilities are known."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn import metrics as sklearn_metrics

from pokebattle import evaluation
from pokebattle.learning.features import mirror


def fought(n_matchups: int = 1700, n_battles: int = 400, random_state: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Matchups of 187 species with the spread of p that real best-move battles have, and their true p."""
    rng = np.random.default_rng(random_state)
    pairs = np.array(list(itertools.combinations([f"species{i:03d}" for i in range(187)], 2)))
    pairs = pairs[rng.choice(len(pairs), n_matchups, replace=False)]
    p = expit(rng.normal(0, 10, n_matchups))
    table = pd.DataFrame(
        {
            "species_a": pairs[:, 0],
            "species_b": pairs[:, 1],
            "move_a": "tackle",
            "move_b": "surf",
            "policy": "best_move",
            "wins_a": rng.binomial(n_battles, p),
            "n_battles": n_battles,
        }
    )
    return table, p


def excess(matchups: pd.DataFrame, p: np.ndarray) -> float:
    return float(evaluation.all_metrics(matchups, p)["excess_percent"].iloc[0])


@pytest.mark.parametrize("random_state", range(5))
def test_the_true_probabilities_have_no_excess_over_bayes(random_state: int) -> None:
    matchups, p = fought(random_state=random_state)
    limit = evaluation.bayes_limit(matchups).iloc[0]
    assert limit["log_loss"] == pytest.approx(0.13, abs=0.02)  # as hard as the real battles
    assert abs(excess(matchups, p)) < 0.3


def test_the_plug_in_limit_would_flatter_nobody() -> None:
    """Without the correction, 20 battles a matchup make a perfect predictor look several percent bad."""
    matchups, p = fought(n_battles=20)
    plug_in = evaluation.bayes_log_loss(matchups["wins_a"].to_numpy() / 20).mean()
    loss = evaluation.all_metrics(matchups, p)["log_loss"].iloc[0]
    assert loss / plug_in > 1.05
    assert abs(excess(matchups, p)) < 2


def test_the_ceiling_is_the_accuracy_of_the_true_probabilities() -> None:
    matchups, p = fought(n_matchups=15_000, n_battles=50)
    ceiling = evaluation.bayes_limit(matchups)["accuracy"].iloc[0]
    assert ceiling == pytest.approx(np.maximum(p, 1 - p).mean(), abs=1e-3)
    assert ceiling == pytest.approx(evaluation.all_metrics(matchups, p)["accuracy"].iloc[0], abs=2e-3)


@pytest.mark.parametrize("spoil", [lambda z: z / 2, lambda z: 1.5 * z, lambda z: z + 1, lambda z: z + np.sin(9 * z)])
def test_a_worse_model_is_worse(spoil: Callable[[np.ndarray], np.ndarray]) -> None:
    matchups, p = fought()
    worse = evaluation.all_metrics(matchups, expit(spoil(logit(p)))).iloc[0]
    perfect = evaluation.all_metrics(matchups, p).iloc[0]
    assert worse["excess_percent"] > 2
    for figure in ("log_loss", "brier", "calibration_error"):
        assert worse[figure] > perfect[figure]


def test_figures_equal_scikit_learn_on_single_battles() -> None:
    matchups, p = fought(n_matchups=200, n_battles=30)
    p = np.round(p, 2)  # with ties
    battles = matchups.loc[matchups.index.repeat(30)]
    y = (battles.groupby(level=0).cumcount() < battles["wins_a"]).to_numpy().astype(int)
    q = np.repeat(p, 30)
    ours = evaluation.all_metrics(matchups, p).iloc[0]
    for name in ("accuracy", "precision", "recall", "f1"):
        expected = getattr(sklearn_metrics, f"{name}_score")(y, q >= 0.5)
        assert ours["f1_score" if name == "f1" else name] == pytest.approx(expected, abs=1e-12)
    assert ours["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(y, q), abs=1e-12)
    assert ours["log_loss"] == pytest.approx(sklearn_metrics.log_loss(y, q), abs=1e-12)
    assert ours["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(y, q), abs=1e-12)


def test_weights_mean_repetition() -> None:
    matchups, p = fought(n_matchups=60, n_battles=20)
    times = np.random.default_rng(1).integers(0, 4, 60)
    repeated = np.repeat(np.arange(60), times)
    weighted = evaluation.all_metrics(matchups, p, times[None, :].astype(float)).iloc[0]
    copied = evaluation.all_metrics(matchups.iloc[repeated], p[repeated]).iloc[0]
    pd.testing.assert_series_equal(weighted, copied, atol=1e-12)


def test_calibration_error_by_hand() -> None:
    matchups = pd.DataFrame({"wins_a": [3, 9], "n_battles": [10, 10]})
    error = evaluation.all_metrics(matchups, np.array([0.25, 0.7]))["calibration_error"].iloc[0]
    assert error == pytest.approx((0.05 + 0.2) / 2)


def test_jackknife_by_hand() -> None:
    """Two battles, one won: the plug-in gives ln 2, both leave-one-out values are 0, so 2 ln 2 - 0."""
    estimate = evaluation.jackknife(evaluation.bayes_log_loss, np.array([1.0]), np.array([2.0]))
    assert estimate == pytest.approx(2 * math.log(2))


def test_orientation_is_drawn_by_the_pair_alone() -> None:
    matchups, _ = fought()
    drawn = evaluation.single_orientation(matchups)
    pd.testing.assert_frame_equal(drawn, evaluation.single_orientation(mirror(matchups)))
    pd.testing.assert_frame_equal(drawn.iloc[::-1], evaluation.single_orientation(matchups.iloc[::-1]))
    turned = (drawn["species_a"] != matchups["species_a"]).to_numpy()
    assert 0.45 < turned.mean() < 0.55
    assert (drawn["wins_a"] == matchups["wins_a"].where(~turned, 400 - matchups["wins_a"])).all()


def test_mirrored_battles_mirror_the_figures() -> None:
    matchups, p = fought(n_matchups=300)
    one, other = (evaluation.all_metrics(matchups, p), evaluation.all_metrics(mirror(matchups), 1 - p))
    same = ["accuracy", "roc_auc", "log_loss", "brier", "excess_percent"]
    pd.testing.assert_frame_equal(one[same], other[same])


def test_intervals_resample_species() -> None:
    matchups, p = fought(n_matchups=400)
    scores = evaluation.evaluate(matchups, {"model": p}, n_bootstrap=300, random_state=1)
    again = evaluation.evaluate(matchups, {"model": p}, n_bootstrap=300, random_state=1)
    pd.testing.assert_frame_equal(scores, again)
    scores = scores[scores["metric"] != "calibration_error"]  # resampling adds to it
    assert ((scores["low"] <= scores["value"]) & (scores["value"] <= scores["high"])).all()
    weights = evaluation.species_bootstrap(matchups, 300, 1)
    assert weights.shape == (301, 400) and (weights[0] == 1).all()
    assert weights[1:].mean() == pytest.approx(1, abs=0.05)
    shares = (matchups["species_a"] == matchups.loc[0, "species_a"]).to_numpy()
    absent = (weights[:, shares] == 0).all(axis=1).mean()  # a species left out takes all its matchups along
    assert absent > 0.3


def test_a_matchup_counts_the_product_of_its_species() -> None:
    """Of two species drawn twice, both must come for their matchup to count, and then it counts once."""
    weights = evaluation.species_bootstrap(pd.DataFrame({"species_a": ["abra"], "species_b": ["onix"]}), 400, 0)[1:]
    assert set(weights.ravel()) == {0, 1} and weights.mean() == pytest.approx(0.5, abs=0.1)


def test_where_families_are_unseen_they_are_resampled_whole() -> None:
    matchups = pd.DataFrame({"species_a": ["abra", "kadabra", "abra"], "species_b": ["onix", "onix", "kadabra"]})
    families = pd.Series({"abra": "abra", "kadabra": "abra", "onix": "onix"})
    weights = evaluation.species_bootstrap(matchups, 400, 0, families)[1:]
    assert (weights[:, 0] == weights[:, 1]).all()  # one comes with the other
    assert set(weights[:, 0]) == {0, 1} and set(weights[:, 2]) == {0, 1, 2}  # within a family: its count


def test_error_of_p_and_agreement_by_hand() -> None:
    matchups = pd.DataFrame({"wins_a": [900, 200, 500], "n_battles": [1000, 1000, 1000]})
    figures = evaluation.all_metrics(matchups, np.array([0.6, 0.1, 0.7])).iloc[0]
    assert figures["error_of_p"] == pytest.approx(np.sqrt((0.3**2 + 0.1**2 + 0.2**2) / 3), abs=0.002)
    assert figures["favourite_agreement"] == pytest.approx((1 + 1 + 0.5) / 3)
    wrong = evaluation.all_metrics(matchups, np.array([0.4, 0.1, 0.7])).iloc[0]
    assert wrong["favourite_agreement"] == pytest.approx(0.5)
    once = evaluation.all_metrics(matchups.assign(wins_a=[1, 0, 1], n_battles=1), np.array([0.6, 0.1, 0.7]))
    assert once["error_of_p"].isna().all() and once["favourite_agreement"].iloc[0] == 1


def test_policies_are_scored_together_and_apart() -> None:
    matchups, p = fought(n_matchups=300)
    matchups["policy"] = np.where(np.arange(300) % 3, "best_move", "random_move")
    options = {"n_bootstrap": 20, "random_state": 0}
    scores = evaluation.evaluate_policies(matchups, {"model": p}, **options)
    assert list(scores["policy"].unique()) == ["all", "random_move", "best_move"]
    part = (matchups["policy"] == "best_move").to_numpy()
    alone = evaluation.evaluate(matchups[part], {"model": p[part]}, **options)
    pd.testing.assert_frame_equal(
        scores[scores["policy"] == "best_move"].drop(columns="policy").reset_index(drop=True), alone
    )
    one = evaluation.evaluate_policies(matchups.assign(policy="best_move"), {"model": p}, **options)
    assert set(one["policy"]) == {"all"}


def test_intervals_cover_what_a_bootstrap_over_matchups_misses() -> None:
    """When one species decides the loss, its share of the set is what is uncertain."""
    matchups, _ = fought(n_matchups=1700)
    hard = (matchups[["species_a", "species_b"]] < "species020").any(axis=1).to_numpy()
    matchups["wins_a"] = np.where(hard, 200, 400)
    scores = evaluation.evaluate(matchups, {"model": np.where(hard, 0.5, 0.999)}, n_bootstrap=400, random_state=0)
    row = scores.set_index(["predictor", "metric"]).loc[("model", "log_loss")]
    naive = 2 * 1.96 * np.log(2) * np.sqrt(hard.mean() * (1 - hard.mean()) / len(hard))
    assert row["high"] - row["low"] > 2 * naive


def test_result_table_and_metrics_name_every_number() -> None:
    matchups, p = fought(n_matchups=100)
    predictions = {"model": p, "faster species": np.full(100, 0.5)}
    scores = evaluation.evaluate(matchups, predictions, n_bootstrap=50, random_state=0)
    table = evaluation.result_table(scores, {"log_loss": 3, "roc_auc": 2})
    assert list(table.index) == ["model", "faster species", "Bayes limit"]
    assert table.loc["faster species", "roc_auc"] == "0.50 [0.50, 0.50]"
    assert table.loc["Bayes limit", "roc_auc"] == ""
    named = evaluation.run_metrics(scores, "model")
    expected = "test_accuracy test_accuracy_low bayes_log_loss bayes_accuracy baseline_faster_species_log_loss"
    assert set(expected.split()) <= set(named)
    assert not [name for name in named if "limit" in name or name == "bayes_excess_percent"]
    assert named["excess_percent"] == pytest.approx(100 * (named["log_loss"] / named["bayes_log_loss"] - 1))


def test_calibration_table_counts_every_battle() -> None:
    matchups, p = fought(n_matchups=500)
    table = evaluation.calibration_table(matchups, p, n_bins=7)
    assert table["n_battles"].sum() == 500 * 400 and table["n_matchups"].sum() == 500
    middle = table["observed"].sub(table["predicted"]).abs()
    assert (middle * table["n_battles"]).sum() / table["n_battles"].sum() == pytest.approx(
        evaluation.all_metrics(matchups, p, n_bins=7)["calibration_error"].iloc[0]
    )


def test_calibration_intervals_are_those_of_resampled_species() -> None:
    matchups, _ = fought(n_matchups=500)
    p = np.full(500, 0.35)
    table = evaluation.calibration_table(matchups, p)
    few, many = (
        evaluation.calibration_intervals(rows, p[: len(rows)], n_bootstrap=200, random_state=0)
        for rows in (matchups.head(50), matchups)
    )
    assert few.index.equals(table.index) and many.index.equals(table.index)
    width_few, width_many = (float((found["high"] - found["low"]).iloc[0]) for found in (few, many))
    assert many["low"].iloc[0] < table["observed"].iloc[0] < many["high"].iloc[0]
    assert width_few > 2 * width_many > 0.05, "wider than 500 * 400 single battles suggest"


def test_largest_errors_finds_the_planted_ones() -> None:
    matchups, p = fought(n_matchups=200)
    p[17] = 1 - matchups.loc[17, "wins_a"] / 400 if abs(p[17] - 0.5) > 0.4 else 1e-9
    worst = evaluation.largest_errors(matchups, np.clip(p, 1e-9, 1 - 1e-9), n_largest=3)
    assert worst.loc[0, "species_a"] == matchups.loc[17, "species_a"] and len(worst) == 3
    assert worst["cost"].is_monotonic_decreasing


@pytest.mark.parametrize("wrong", [np.full(10, 1.2), np.full(9, 0.5), np.full(10, np.nan)])
def test_what_is_no_probability_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="10 probabilities"):
        evaluation.all_metrics(fought(n_matchups=10)[0], wrong)
