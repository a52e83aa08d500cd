"""Metrics of a predictor, the best values that any predictor could reach (the Bayes limit), and their intervals.

A row is a matchup that was fought `n_battles` times and won `wins_a` times by A. Every metric is computed from these
counts as a mean over single battles. Battles are partly chance, so even the true probabilities have a log-loss above
zero: the Bayes limit, which is estimated from the counts alone. The main metric is the excess over this limit. If
matchups were fought only once, the limit cannot be estimated, and there is no excess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import rel_entr, xlog1py, xlogy
from sklearn.base import clone

from pokebattle.datasets.splits import pair_hashes
from pokebattle.game.matchups import MATCHUP
from pokebattle.learning.features import mirror

if TYPE_CHECKING:
    from pokebattle.model import BattleWinner

LIMIT = "Bayes limit"
HELD_OUT = 0.2  # share of the training part that the learning curve holds out
MAIN = ("excess_percent", "log_loss", "accuracy")  # the metrics of every predictor that a run shows
INTERVAL = (0.025, 0.975)  # 95 % of the bootstrap resamples


def single_orientation(matchups: pd.DataFrame) -> pd.DataFrame:
    """Turn every matchup to the orientation that a hash of its unordered pair of species determines.

    Scoring both orientations would make precision, recall, F1 and accuracy the same number. The orientation depends
    only on the two species, not on a seed or on the input's orientation. If the input contains a matchup in both
    orientations with the same result, only one of them is kept.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a, species_b, wins_a, n_battles; optionally move_a, move_b, policy.
    """
    turned = (pair_hashes(matchups, "orientation") < 0.5) == (matchups["species_a"] < matchups["species_b"]).to_numpy()
    oriented = matchups.copy()
    oriented.iloc[turned] = mirror(matchups[turned])
    return oriented.drop_duplicates([name for name in (*MATCHUP, "wins_a", "n_battles") if name in oriented])


def jackknife(statistic: Callable[[np.ndarray], np.ndarray], wins: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Estimate `statistic(p)` of every matchup from its counts, with the jackknife's bias correction.

    For a concave statistic, the plug-in value `statistic(wins / n)` is too low by a bias of order 1 / n. Leaving out
    one battle at a time estimates this bias (Quenouille 1956; Miller, "The jackknife: a review", Biometrika 61, 1974).

    Parameters
    ----------
    statistic : callable
        Vectorised function of a probability.
    wins, n : ndarray of shape (n_matchups,)
        Battles won and fought, `n` at least 2.

    Returns
    -------
    ndarray of shape (n_matchups,)
    """
    without_win, without_loss = np.maximum(wins - 1, 0) / (n - 1), np.minimum(wins, n - 1) / (n - 1)
    left_out = (wins * statistic(without_win) + (n - wins) * statistic(without_loss)) / n
    return n * statistic(wins / n) - (n - 1) * left_out


def bayes_log_loss(p: np.ndarray) -> np.ndarray:
    """Return the log-loss, in nats per battle, of a predictor that knows the true probability.

    Parameters
    ----------
    p : ndarray
        True P(A wins), 0 to 1.
    """
    return -xlogy(p, p) - xlog1py(1 - p, -p)


def bayes_brier(p: np.ndarray) -> np.ndarray:
    """Return the Brier score of a predictor that knows the true probability.

    Parameters
    ----------
    p : ndarray
        True P(A wins), 0 to 1.
    """
    return p * (1 - p)


def favourite_share(p: np.ndarray) -> np.ndarray:
    """Return the accuracy of a predictor that knows the true probability: the share won by the likelier winner.

    Parameters
    ----------
    p : ndarray
        True P(A wins), 0 to 1.
    """
    return np.maximum(p, 1 - p)


def species_bootstrap(
    matchups: pd.DataFrame, n_bootstrap: int, random_state: int, families: pd.Series | None = None
) -> np.ndarray:
    """Return weights of the matchups in bootstrap resamples of the species, or of their families.

    All matchups share a few species, so resampling matchups would give intervals that are too narrow. Therefore the
    species are drawn with replacement. A matchup's weight is the product of the numbers of times that its two species
    were drawn.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a and species_b.
    n_bootstrap : int
        Number of resamples.
    random_state : int
        Seed.
    families : Series, optional
        Index species id, values the family. If given, whole families are drawn instead of species. The weight of a
        matchup within one family is the number of times that the family was drawn.

    Returns
    -------
    ndarray of shape (1 + n_bootstrap, n_matchups)
        Row 0 is all ones: the original sample.
    """
    sides = pd.concat([matchups["species_a"], matchups["species_b"]])
    codes, names = pd.factorize(sides if families is None else sides.map(families), sort=True)
    a, b = codes.reshape(2, -1)
    rng = np.random.default_rng(random_state)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_bootstrap)
    return np.vstack([np.ones((1, len(matchups))), counts[:, a] * np.where(a == b, 1, counts[:, b])])


def all_metrics(
    matchups: pd.DataFrame, probability: np.ndarray, weights: np.ndarray | None = None, n_bins: int = 10
) -> pd.DataFrame:
    """Compute all metrics of one predictor over single battles.

    Parameters
    ----------
    matchups : DataFrame
        Columns wins_a and n_battles; one row per matchup, in one orientation.
    probability : ndarray of shape (n_matchups,)
        Predicted P(A wins), 0 to 1. From 0.5 on, A is the predicted winner.
    weights : ndarray of shape (n_resamples, n_matchups), optional
        Weight of each matchup, see `species_bootstrap`. By default one row of ones.
    n_bins : int, default 10
        Number of bins of equal width for the calibration error.

    Returns
    -------
    DataFrame of shape (n_resamples, n_metrics)
        accuracy, precision, recall, f1_score, roc_auc, log_loss (nats per battle), brier, calibration_error (mean
        distance between predicted and observed share over the bins), favourite_agreement (share of the battles in
        matchups whose predicted favourite won more often), excess_percent (log-loss above the Bayes limit, in percent
        of the limit) and error_of_p (root mean square distance between predicted and true probability, from the
        difference between the Brier score and its limit). Undefined values are missing; the last two always are if a
        matchup was fought only once.

    Raises
    ------
    ValueError
        If `probability` has the wrong shape or values outside 0 to 1.

    Notes
    -----
    Resampling adds noise to every bin, so the calibration error of the resamples is higher than that of row 0.
    """
    wins, n = matchups["wins_a"].to_numpy(float), matchups["n_battles"].to_numpy(float)
    losses, p = n - wins, _checked(probability, len(matchups))
    weights = np.ones((1, len(p))) if weights is None else weights
    chosen = p >= 0.5
    inside = np.clip(p, np.finfo(float).eps, 1 - np.finfo(float).eps)
    floors = [
        n * jackknife(statistic, wins, n) if has_limit(matchups) else np.full(len(p), np.nan)
        for statistic in (bayes_log_loss, bayes_brier)
    ]
    total, true_a, false_a, missed_a, loss, squares, agreed, floor, least_squares = (
        weights
        @ np.column_stack(
            [
                n,
                wins * chosen,
                losses * chosen,
                wins * ~chosen,
                -wins * np.log(inside) - losses * np.log1p(-inside),
                wins * (1 - p) ** 2 + losses * p**2,
                np.where(wins == losses, n / 2, n * (chosen == (wins > losses))),
                *floors,
            ]
        )
    ).T
    with np.errstate(invalid="ignore", divide="ignore"):
        metrics = {
            "accuracy": 1 - (false_a + missed_a) / total,
            "precision": true_a / (true_a + false_a),
            "recall": true_a / (true_a + missed_a),
            "f1_score": 2 * true_a / (2 * true_a + false_a + missed_a),
            "roc_auc": _roc_auc(wins, losses, p, weights),
            "log_loss": loss / total,
            "brier": squares / total,
            "calibration_error": np.abs(weights @ _in_bins(p, n_bins, n * p - wins)).sum(axis=1) / total,
            "favourite_agreement": agreed / total,
            "excess_percent": 100 * (loss / floor - 1),
            "error_of_p": np.sqrt(np.maximum(squares - least_squares, 0) / total),
        }
    return pd.DataFrame(metrics)


def has_limit(matchups: pd.DataFrame) -> bool:
    """Return whether every matchup was fought more than once, so that the Bayes limit can be estimated.

    Parameters
    ----------
    matchups : DataFrame
        Column n_battles.
    """
    return bool((matchups["n_battles"] > 1).all())


def bayes_limit(matchups: pd.DataFrame, weights: np.ndarray | None = None) -> pd.DataFrame:
    """Estimate the metrics of the true probabilities, from the counts alone.

    Parameters
    ----------
    matchups : DataFrame
        Columns wins_a and n_battles (at least 2).
    weights : ndarray of shape (n_resamples, n_matchups), optional
        As in `all_metrics`.

    Returns
    -------
    DataFrame of n_resamples rows
        Columns accuracy (the highest possible), log_loss and brier (the lowest possible), and excess_percent (0 by
        definition).
    """
    wins, n = matchups["wins_a"].to_numpy(float), matchups["n_battles"].to_numpy(float)
    weights = np.ones((1, len(n))) if weights is None else weights
    statistics = (favourite_share, bayes_log_loss, bayes_brier)
    columns = [jackknife(statistic, wins, n) for statistic in statistics]
    with np.errstate(invalid="ignore"):
        means = (weights * n) @ np.column_stack(columns) / (weights @ n)[:, None]
    return pd.DataFrame(means, columns=["accuracy", "log_loss", "brier"]).assign(excess_percent=0.0)


def evaluate(
    matchups: pd.DataFrame,
    predictions: Mapping[str, np.ndarray],
    *,
    n_bootstrap: int,
    random_state: int,
    n_bins: int = 10,
    families: pd.Series | None = None,
) -> pd.DataFrame:
    """Score predictors on the same battles, with intervals from the same resamples of the species.

    Parameters
    ----------
    matchups : DataFrame
        Columns species_a, species_b, wins_a, n_battles, in one orientation, see `single_orientation`.
    predictions : mapping of str to ndarray of shape (n_matchups,)
        P(A wins) of each predictor.
    n_bootstrap : int
        Number of resamples.
    random_state : int
        Seed of the resamples.
    n_bins : int, default 10
        As in `all_metrics`.
    families : Series, optional
        If given, resample families instead of species, see `species_bootstrap`. Use it if whole families are unseen.

    Returns
    -------
    DataFrame
        One row per predictor and metric, without undefined metrics: predictor, metric, value, low, high (95 %
        interval), n_matchups, n_battles. The last predictor is the Bayes limit, if it can be estimated.

    Raises
    ------
    ValueError
        As in `all_metrics`.
    """
    weights = species_bootstrap(matchups, n_bootstrap, random_state, families)
    tables = {name: all_metrics(matchups, p, weights, n_bins) for name, p in predictions.items()}
    if has_limit(matchups):
        tables[LIMIT] = bayes_limit(matchups, weights)
    scores = pd.concat([_with_interval(table) for table in tables.values()], keys=tables, names=["predictor"])
    scores = scores.dropna(subset="value").reset_index()
    return scores.assign(n_matchups=len(matchups), n_battles=int(matchups["n_battles"].sum()))


def evaluate_policies(matchups: pd.DataFrame, predictions: Mapping[str, np.ndarray], **options: Any) -> pd.DataFrame:
    """Score predictors on all battles and, if there are several policies, on the battles of each policy.

    Parameters
    ----------
    matchups, predictions
        As in `evaluate`; matchups may have a column policy.
    **options
        Other arguments of `evaluate`.

    Returns
    -------
    DataFrame
        As from `evaluate`, with a first column `policy`; "all" for all battles.

    Raises
    ------
    ValueError
        As in `all_metrics`.
    """
    policies = list(matchups["policy"].unique()) if "policy" in matchups else []
    parts = {"all": np.ones(len(matchups), dtype=bool)}
    if len(policies) > 1:
        parts |= {policy: (matchups["policy"] == policy).to_numpy() for policy in policies}
    tables = [
        evaluate(matchups[rows], {name: p[rows] for name, p in predictions.items()}, **options)
        for rows in parts.values()
    ]
    return pd.concat(tables, keys=parts, names=["policy"]).reset_index(level="policy").reset_index(drop=True)


def paired_gain(
    matchups: pd.DataFrame,
    before: np.ndarray,
    after: np.ndarray,
    *,
    n_bootstrap: int,
    random_state: int,
    families: pd.Series | None = None,
) -> pd.DataFrame:
    """Compare two predictors on the same battles and the same resamples, so that chance affects both alike.

    Parameters
    ----------
    matchups, families
        As in `evaluate`.
    before, after : ndarray of shape (n_matchups,)
        P(A wins) of the two predictors.
    n_bootstrap, random_state : int
        As in `evaluate`.

    Returns
    -------
    DataFrame
        Index metric (the metrics of `MAIN` that are defined); columns before, after, gain (positive if `after` is
        better), low, high (95 % interval of the gain), n_matchups.

    Raises
    ------
    ValueError
        As in `all_metrics`.
    """
    weights = species_bootstrap(matchups, n_bootstrap, random_state, families)
    one, other = (all_metrics(matchups, p, weights)[list(MAIN)] for p in (before, after))
    difference = _with_interval((one - other) * [-1 if metric == "accuracy" else 1 for metric in MAIN])
    table = pd.DataFrame({"before": one.iloc[0], "after": other.iloc[0], "gain": difference["value"]})
    return table.join(difference[["low", "high"]]).dropna().rename_axis("metric").assign(n_matchups=len(matchups))


def gain_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return the result of `paired_gain` as metrics for a run.

    Parameters
    ----------
    table : DataFrame
        From `paired_gain`.

    Returns
    -------
    dict of str to float
        `gain_<metric>`, `gain_<metric>_low`, `gain_<metric>_high`; empty for an empty table.
    """
    columns = {"gain": "", "low": "_low", "high": "_high"}
    return {f"gain_{metric}{end}": row[column] for metric, row in table.iterrows() for column, end in columns.items()}


def result_table(scores: pd.DataFrame, decimals: Mapping[str, int]) -> pd.DataFrame:
    """Format the result of `evaluate` as a table: one row per predictor, cells of the form `value [low, high]`.

    Parameters
    ----------
    scores : DataFrame
        From `evaluate`.
    decimals : mapping of str to int
        The metrics to show, and their decimals.
    """
    shown = scores[scores["metric"].isin(list(decimals))]
    numbers = zip(shown["metric"], shown["value"], shown["low"], shown["high"], strict=True)
    cells = [f"{v:.{decimals[f]}f} [{low:.{decimals[f]}f}, {high:.{decimals[f]}f}]" for f, v, low, high in numbers]
    wide = shown.assign(cell=cells).pivot(index="predictor", columns="metric", values="cell")
    wide = wide.reindex(index=scores["predictor"].unique(), columns=list(decimals))
    return wide.fillna("").rename_axis(index=None, columns=None)


def run_metrics(scores: pd.DataFrame, predictor: str) -> dict[str, float]:
    """Return the result of `evaluate` or `evaluate_policies` as metrics for a run.

    Parameters
    ----------
    scores : DataFrame
        From `evaluate` or `evaluate_policies`.
    predictor : str
        Name of the model among the predictors.

    Returns
    -------
    dict of str to float
        All metrics of `predictor`, with `_low` and `_high`; `accuracy` is renamed to `test_accuracy`. The metrics of
        the Bayes limit (without excess_percent) as `bayes_...`. The metrics of `MAIN` of the other predictors as
        `baseline_<name>_...`. For each policy, the metrics of `MAIN` of `predictor` as `<policy>_...`.
    """
    named: dict[str, float] = {}
    columns = ("predictor", "metric", "value", "low", "high")
    policies = scores["policy"] if "policy" in scores else ["all"] * len(scores)
    for policy, name, metric, value, low, high in zip(policies, *(scores[c] for c in columns), strict=True):
        key = "test_accuracy" if metric == "accuracy" else metric
        if policy != "all":
            if name == predictor and metric in MAIN:
                named |= {f"{policy}_{metric}": value, f"{policy}_{metric}_low": low, f"{policy}_{metric}_high": high}
        elif name == predictor:
            named |= {key: value, f"{key}_low": low, f"{key}_high": high}
        elif name == LIMIT:
            if metric != "excess_percent":
                named[f"bayes_{metric}"] = value
        elif metric in MAIN:
            named[f"baseline_{re.sub(r'[^a-z0-9]+', '_', name.lower())}_{metric}"] = value
    return named


def calibration_table(matchups: pd.DataFrame, probability: np.ndarray, n_bins: int = 10) -> pd.DataFrame:
    """Return the predicted and the observed share of wins in each bin of the predicted probability.

    Parameters
    ----------
    matchups : DataFrame
        Columns wins_a and n_battles, in one orientation.
    probability : ndarray of shape (n_matchups,)
        Predicted P(A wins), 0 to 1.
    n_bins : int, default 10
        Number of bins of equal width.

    Returns
    -------
    DataFrame
        Index bin (interval of probabilities); columns predicted, observed (0 to 1), n_matchups, n_battles. Empty bins
        are left out.

    Raises
    ------
    ValueError
        As in `all_metrics`.
    """
    wins, n = matchups["wins_a"].to_numpy(float), matchups["n_battles"].to_numpy(float)
    p = _checked(probability, len(matchups))
    battles, predicted, observed, rows = (
        _in_bins(p, n_bins, column).sum(axis=0) for column in (n, n * p, wins, np.ones_like(n))
    )
    bins = _bins(n_bins)
    with np.errstate(invalid="ignore"):
        table = pd.DataFrame({"predicted": predicted / battles, "observed": observed / battles}, index=bins)
    return table.assign(n_matchups=rows.astype(int), n_battles=battles.astype(int))[battles > 0]


def calibration_intervals(
    matchups: pd.DataFrame,
    probability: np.ndarray,
    n_bins: int = 10,
    *,
    n_bootstrap: int,
    random_state: int,
    families: pd.Series | None = None,
) -> pd.DataFrame:
    """Return 95 % intervals of the observed share of wins in each bin of `calibration_table`.

    They are wider than a number of single battles suggests: the battles of a bin share a few matchups, and these a few
    species.

    Parameters
    ----------
    matchups, probability, n_bins
        As in `calibration_table`.
    n_bootstrap, random_state, families
        As in `evaluate`.

    Returns
    -------
    DataFrame
        Index as in `calibration_table`; columns low and high (0 to 1).

    Raises
    ------
    ValueError
        As in `all_metrics`.
    """
    wins, n = matchups["wins_a"].to_numpy(float), matchups["n_battles"].to_numpy(float)
    p, weights = _checked(probability, len(matchups)), species_bootstrap(matchups, n_bootstrap, random_state, families)
    won, battles = (weights @ _in_bins(p, n_bins, column) for column in (wins, n))
    with np.errstate(invalid="ignore"):
        shares = pd.DataFrame(won / battles, columns=_bins(n_bins)).iloc[1:]
    low, high = (shares.quantile(bound) for bound in INTERVAL)
    return pd.DataFrame({"low": low, "high": high})[battles[0] > 0]


def largest_errors(matchups: pd.DataFrame, probability: np.ndarray, n_largest: int = 10) -> pd.DataFrame:
    """Return the matchups whose predicted probability is farthest from the observed share of wins.

    Parameters
    ----------
    matchups : DataFrame
        Matchups with wins_a and n_battles.
    probability : ndarray of shape (n_matchups,)
        Predicted P(A wins), 0 to 1.
    n_largest : int, default 10
        Number of rows.

    Returns
    -------
    DataFrame of n_largest rows
        The matchup, `observed` and `predicted` P(A wins), n_battles, and `cost`: the Kullback-Leibler divergence of
        predicted from observed in nats per battle, largest first.

    Raises
    ------
    ValueError
        As in `all_metrics`.
    """
    n, p = matchups["n_battles"].to_numpy(), _checked(probability, len(matchups))
    observed = matchups["wins_a"].to_numpy() / n
    cost = rel_entr(observed, p) + rel_entr(1 - observed, 1 - p)
    table = matchups[[name for name in ("species_a", "move_a", "species_b", "move_b") if name in matchups]].assign(
        observed=observed, predicted=p, n_battles=n, cost=cost
    )
    return table.sort_values("cost", ascending=False, kind="stable").head(n_largest).reset_index(drop=True)


def learning_curve(
    model: BattleWinner,
    training: pd.DataFrame,
    numbers: np.ndarray,
    n_points: int,
    *,
    n_bootstrap: int,
    random_state: int,
) -> pd.DataFrame:
    """Fit a model on growing subsets of the training part, and score it on a held-out fifth of the training part.

    Parameters
    ----------
    model : BattleWinner
        Provides the parameters and, if it was fitted on your own species, their table. It is not changed.
    training : DataFrame
        Matchups with wins_a and n_battles. A hash of the unordered pair selects the held-out fifth and orders the rest.
    numbers : ndarray of shape (2, n_matchups, n_features)
        The features of `training` in both orientations.
    n_points : int
        Number of subsets. Each is twice as large as the one before; the last contains all matchups not held out.
    n_bootstrap, random_state : int
        As in `evaluate`.

    Returns
    -------
    DataFrame
        One row per subset: n_matchups (its size), `training` (log-loss on the subset), `held_out` (log-loss on the
        held-out fifth, with the interval `low`, `high`), and `bayes` (the Bayes limit of the fifth), if it can be
        estimated. Log-loss in nats per battle.
    """
    hashes = pair_hashes(training, "learning curve")
    order = np.argsort(hashes, kind="stable")
    held, others = np.flatnonzero(hashes < HELD_OUT), order[np.sum(hashes < HELD_OUT) :]
    held_out, rest, new = training.iloc[held], training.iloc[others], numbers[:, held]
    species = getattr(model, "species_", None)
    weights = species_bootstrap(held_out, n_bootstrap, random_state)
    rows = []
    for size in (max(1, len(rest) >> halvings) for halvings in reversed(range(n_points))):
        part, known = rest.head(size), numbers[:, others[:size]]
        fitted = clone(model).fit(known, part["wins_a"], part["n_battles"], species)
        train_loss, held_out_loss = (
            _with_interval(all_metrics(matchups, fitted.predict_proba(described)[:, 1], w)).loc["log_loss"]
            for matchups, described, w in ((part, known, None), (held_out, new, weights))
        )
        rows.append((size, train_loss["value"], held_out_loss["value"], held_out_loss["low"], held_out_loss["high"]))
    table = pd.DataFrame(rows, columns=["n_matchups", "training", "held_out", "low", "high"])
    return table.assign(bayes=bayes_limit(held_out)["log_loss"].iloc[0]) if has_limit(held_out) else table


def _checked(probability: np.ndarray, n_rows: int) -> np.ndarray:
    p = np.asarray(probability, dtype=float)
    if p.shape != (n_rows,) or not ((p >= 0) & (p <= 1)).all():
        got = f"shape {p.shape}, {p.min()} to {p.max()}"
        raise ValueError(f"expected {n_rows} probabilities from 0 to 1, got {got}")
    return p


def _bins(n_bins: int) -> pd.IntervalIndex:
    edges = np.round(np.linspace(0, 1, n_bins + 1), 6)
    return pd.IntervalIndex.from_breaks(edges, closed="left", name="bin")


def _in_bins(p: np.ndarray, n_bins: int, values: np.ndarray) -> np.ndarray:
    """Put each matchup's value in the column of its probability bin; 0 elsewhere. Shape (n_matchups, n_bins)."""
    spread = np.zeros((len(p), n_bins))
    spread[np.arange(len(p)), np.minimum((p * n_bins).astype(int), n_bins - 1)] = values
    return spread


def _roc_auc(wins: np.ndarray, losses: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of every resample; equal predictions count half."""
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.diff(p[order], prepend=-1.0))
    won = np.add.reduceat((weights * wins)[:, order], starts, axis=1)
    lost = np.add.reduceat((weights * losses)[:, order], starts, axis=1)
    below = np.cumsum(lost, axis=1) - lost / 2
    return (won * below).sum(axis=1) / (won.sum(axis=1) * lost.sum(axis=1))


def _with_interval(table: pd.DataFrame) -> pd.DataFrame:
    """Return row 0 as the value and the quantiles of the other rows as its interval, one row per metric."""
    low, high = (table.iloc[1:].quantile(bound) for bound in INTERVAL)
    return pd.DataFrame({"value": table.iloc[0], "low": low, "high": high}).rename_axis("metric")
