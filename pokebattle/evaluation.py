"""Figures of merit: how good a predictor is, how good any predictor could be, and how sure we are of both.

A row is a matchup that was fought `n_battles` times and won `wins_a` times by A. Every figure is a mean over
single battles, computed from these counts. A battle is partly luck, so even the true probabilities have a
log-loss above zero: the Bayes limit, estimated from the counts alone. The main figure is the excess over it. Where
matchups were fought once the counts cannot tell luck from cause: there is no limit, and no excess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import rel_entr, xlog1py, xlogy
from sklearn.base import clone

from pokebattle.battles import MATCHUP
from pokebattle.features import mirror
from pokebattle.model import BattleWinner
from pokebattle.splits import pair_hashes

LIMIT = "Bayes limit"
HELD_OUT = 0.2  # of the training part, for the learning curve
MAIN = ("excess_percent", "log_loss", "accuracy")  # the figures of every predictor that a run shows
INTERVAL = (0.025, 0.975)  # 95 % of the bootstrap resamples


def single_orientation(matchups: pd.DataFrame) -> pd.DataFrame:
    """Turn every matchup to the one orientation that a hash of its unordered species pair draws.

    Scoring both orientations would make precision, recall, F1 and accuracy the same number. The draw depends
    on the two species only, never on a seed or on the orientation of the input. A matchup that is there from
    both sides with the same result counts once.
    """
    turned = (pair_hashes(matchups, "orientation") < 0.5) == (matchups["species_a"] < matchups["species_b"]).to_numpy()
    oriented = matchups.copy()
    oriented.iloc[turned] = mirror(matchups[turned])
    return oriented.drop_duplicates([name for name in (*MATCHUP, "wins_a", "n_battles") if name in oriented])


def jackknife(statistic: Callable[[np.ndarray], np.ndarray], wins: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Estimate `statistic(p)` of every matchup from its counts, with the jackknife's correction of bias.

    The plug-in value `statistic(wins / n)` of a concave statistic is too low by about 1 / n. Leaving out one
    battle at a time measures that (Quenouille 1956; Miller, "The jackknife: a review", Biometrika 61, 1974).

    Parameters
    ----------
    statistic : callable
        Vectorised function of a probability.
    wins, n : ndarray of shape (n_matchups,)
        Battles won and fought, `n` at least 2.
    """
    without_win, without_loss = np.maximum(wins - 1, 0) / (n - 1), np.minimum(wins, n - 1) / (n - 1)
    left_out = (wins * statistic(without_win) + (n - wins) * statistic(without_loss)) / n
    return n * statistic(wins / n) - (n - 1) * left_out


def entropy(p: np.ndarray) -> np.ndarray:
    """Log-loss in nats per battle of a predictor that knows the true probability `p`."""
    return -xlogy(p, p) - xlog1py(1 - p, -p)


def variance(p: np.ndarray) -> np.ndarray:
    """Brier score of a predictor that knows the true probability `p`."""
    return p * (1 - p)


def favourite_share(p: np.ndarray) -> np.ndarray:
    """Share of battles that the likelier winner wins: the accuracy of a predictor that knows `p`."""
    return np.maximum(p, 1 - p)


def species_bootstrap(
    matchups: pd.DataFrame, n_bootstrap: int, random_state: int, families: pd.Series | None = None
) -> np.ndarray:
    """Weights of the matchups in resamples of the species, or of their families.

    All matchups share a few species, so resampling matchups would give intervals that are too narrow. The
    species are drawn with replacement instead; a matchup counts the product of its species' counts.

    Parameters
    ----------
    families : Series, optional
        Index species id, values the family. With it families are drawn, whole; of a matchup within one its count.

    Returns
    -------
    ndarray of shape (1 + n_bootstrap, n_matchups)
        Row 0 is the set itself, all ones.
    """
    sides = pd.concat([matchups["species_a"], matchups["species_b"]])
    codes, names = pd.factorize(sides if families is None else sides.map(families), sort=True)
    a, b = codes.reshape(2, -1)
    rng = np.random.default_rng(random_state)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_bootstrap)
    return np.vstack([np.ones((1, len(matchups))), counts[:, a] * np.where(a == b, 1, counts[:, b])])


def figures_of_merit(
    matchups: pd.DataFrame, probability: np.ndarray, weights: np.ndarray | None = None, n_bins: int = 10
) -> pd.DataFrame:
    """All figures of one predictor over single battles.

    Parameters
    ----------
    matchups : DataFrame
        Columns wins_a and n_battles, one row a matchup, in one orientation.
    probability : ndarray of shape (n_matchups,)
        Predicted P(A wins), 0 to 1; A is predicted to win from 0.5 on.
    weights : ndarray of shape (n_resamples, n_matchups), optional
        How often each matchup counts, see `species_bootstrap`.
    n_bins : int
        Bins of equal width in the calibration error.

    Returns
    -------
    DataFrame of shape (n_resamples, n_figures)
        accuracy, precision, recall, f1_score, roc_auc, log_loss (nats a battle), brier, calibration_error
        (mean distance of predicted and observed share over the bins), favourite_agreement (share of the battles in
        whose matchup the predicted favourite is the one that won more often), excess_percent (log-loss over the
        Bayes limit, in percent of it) and error_of_p (root mean square distance of the predicted from the true
        probability: what the Brier score has above its limit). A figure that a resample leaves undefined is missing;
        the last two are where matchups were fought once.

    Notes
    -----
    Resampling adds noise to every bin, so the resamples' calibration error lies above the set's own.
    """
    wins, n = matchups["wins_a"].to_numpy(float), matchups["n_battles"].to_numpy(float)
    losses, p = n - wins, _checked(probability, len(matchups))
    weights = np.ones((1, len(p))) if weights is None else weights
    chosen = p >= 0.5
    inside = np.clip(p, np.finfo(float).eps, 1 - np.finfo(float).eps)
    floors = [n * jackknife(statistic, wins, n) if has_limit(matchups) else np.full(len(p), np.nan)
              for statistic in (entropy, variance)]  # fmt: skip
    total, true_a, false_a, missed_a, loss, squares, agreed, floor, least_squares = (
        weights
        @ np.column_stack([
            n, wins * chosen, losses * chosen, wins * ~chosen,
            -wins * np.log(inside) - losses * np.log1p(-inside),
            wins * (1 - p) ** 2 + losses * p**2,
            np.where(wins == losses, n / 2, n * (chosen == (wins > losses))),
            *floors,
        ])
    ).T  # fmt: skip
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = {
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
    return pd.DataFrame(figures)


def has_limit(matchups: pd.DataFrame) -> bool:
    """Tell whether every matchup was fought more than once, so that its luck can be told from the counts."""
    return bool((matchups["n_battles"] > 1).all())


def bayes_limit(matchups: pd.DataFrame, weights: np.ndarray | None = None) -> pd.DataFrame:
    """The figures that the true probabilities would have, estimated from the counts alone.

    Columns accuracy (the ceiling), log_loss and brier, and excess_percent, which is 0 by definition; rows as
    in `figures_of_merit`.
    """
    wins, n = matchups["wins_a"].to_numpy(float), matchups["n_battles"].to_numpy(float)
    weights = np.ones((1, len(n))) if weights is None else weights
    statistics = (favourite_share, entropy, variance)
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
        species_a, species_b, wins_a, n_battles in one orientation, see `single_orientation`.
    predictions : mapping of str to ndarray of shape (n_matchups,)
        P(A wins) by each predictor.
    families : Series, optional
        Resample these instead of species, see `species_bootstrap`: where whole families are unseen.

    Returns
    -------
    DataFrame
        One row a predictor and figure that is defined: predictor, figure, value, low, high (95 % interval),
        n_matchups, n_battles. The last predictor is the Bayes limit, where there is one.
    """
    weights = species_bootstrap(matchups, n_bootstrap, random_state, families)
    tables = {name: figures_of_merit(matchups, p, weights, n_bins) for name, p in predictions.items()}
    if has_limit(matchups):
        tables[LIMIT] = bayes_limit(matchups, weights)
    scores = pd.concat([_with_interval(table) for table in tables.values()], keys=tables, names=["predictor"])
    scores = scores.dropna(subset="value").reset_index()
    return scores.assign(n_matchups=len(matchups), n_battles=int(matchups["n_battles"].sum()))


def evaluate_policies(matchups: pd.DataFrame, predictions: Mapping[str, np.ndarray], **options: Any) -> pd.DataFrame:
    """Score predictors on all battles, and on those of each policy where there are several.

    Parameters and result are those of `evaluate`, with a first column `policy`, which is "all" for all of them.
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


def gain(
    matchups: pd.DataFrame, before: np.ndarray, after: np.ndarray, *, n_bootstrap: int, random_state: int,
    families: pd.Series | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Compare two predictors on the same battles and the same resamples, so that the luck of both is one.

    Parameters
    ----------
    matchups, families
        As in `evaluate`.
    before, after : ndarray of shape (n_matchups,)
        P(A wins) by each of them.

    Returns
    -------
    DataFrame
        Index figure (of `MAIN`, where it is defined); columns before, after, gain (what is better counts as positive),
        low, high (95 % interval of the gain), n_matchups.
    """
    weights = species_bootstrap(matchups, n_bootstrap, random_state, families)
    one, other = (figures_of_merit(matchups, p, weights)[list(MAIN)] for p in (before, after))
    difference = _with_interval((one - other) * [-1 if figure == "accuracy" else 1 for figure in MAIN])
    table = pd.DataFrame({"before": one.iloc[0], "after": other.iloc[0], "gain": difference["value"]})
    return table.join(difference[["low", "high"]]).dropna().rename_axis("figure").assign(n_matchups=len(matchups))


def gain_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Flatten the result of `gain` to named numbers for a run; none of an empty table."""
    columns = {"gain": "", "low": "_low", "high": "_high"}
    return {f"gain_{figure}{end}": row[column] for figure, row in table.iterrows() for column, end in columns.items()}


def result_table(scores: pd.DataFrame, figures: Mapping[str, int]) -> pd.DataFrame:
    """Lay the result of `evaluate` out for reading: one row a predictor, `value [low, high]` in the cells.

    Parameters
    ----------
    scores : DataFrame
        From `evaluate`.
    figures : mapping of str to int
        Figures to show and their decimals.
    """
    shown = scores[scores["figure"].isin(list(figures))]
    numbers = zip(shown["figure"], shown["value"], shown["low"], shown["high"], strict=True)
    cells = [f"{v:.{figures[f]}f} [{low:.{figures[f]}f}, {high:.{figures[f]}f}]" for f, v, low, high in numbers]
    wide = shown.assign(cell=cells).pivot(index="predictor", columns="figure", values="cell")
    wide = wide.reindex(index=scores["predictor"].unique(), columns=list(figures))
    return wide.fillna("").rename_axis(index=None, columns=None)


def metrics(scores: pd.DataFrame, predictor: str) -> dict[str, float]:
    """Flatten the result of `evaluate` or `evaluate_policies` to named numbers for a run.

    The predictor's figures with `_low` and `_high`; the limit's accuracy and log-loss as `bayes_...`; every
    other predictor's as `baseline_...`; `accuracy` becomes `test_accuracy`. Of the battles of one policy the
    predictor's figures alone, with the policy before them.
    """
    named: dict[str, float] = {}
    columns = ("predictor", "figure", "value", "low", "high")
    policies = scores["policy"] if "policy" in scores else ["all"] * len(scores)
    for policy, name, figure, value, low, high in zip(policies, *(scores[c] for c in columns), strict=True):
        key = "test_accuracy" if figure == "accuracy" else figure
        if policy != "all":
            if name == predictor and figure in MAIN:
                named |= {f"{policy}_{figure}": value, f"{policy}_{figure}_low": low, f"{policy}_{figure}_high": high}
        elif name == predictor:
            named |= {key: value, f"{key}_low": low, f"{key}_high": high}
        elif name == LIMIT:
            if figure != "excess_percent":
                named[f"bayes_{figure}"] = value
        elif figure in MAIN:
            named[f"baseline_{re.sub(r'[^a-z0-9]+', '_', name.lower())}_{figure}"] = value
    return named


def calibration_table(matchups: pd.DataFrame, probability: np.ndarray, n_bins: int = 10) -> pd.DataFrame:
    """Predicted and observed share of wins by bin of the prediction; one row a bin that is not empty.

    Returns
    -------
    DataFrame
        predicted, observed (0 to 1), n_matchups, n_battles; the index is the bin's interval of probabilities.
    """
    wins, n = matchups["wins_a"].to_numpy(float), matchups["n_battles"].to_numpy(float)
    p = _checked(probability, len(matchups))
    battles, predicted, observed, rows = (
        _in_bins(p, n_bins, column).sum(axis=0) for column in (n, n * p, wins, np.ones_like(n))
    )
    edges = np.round(np.linspace(0, 1, n_bins + 1), 6)
    bins = pd.IntervalIndex.from_breaks(edges, closed="left", name="bin")
    with np.errstate(invalid="ignore"):
        table = pd.DataFrame({"predicted": predicted / battles, "observed": observed / battles}, index=bins)
    return table.assign(n_matchups=rows.astype(int), n_battles=battles.astype(int))[battles > 0]


def largest_errors(matchups: pd.DataFrame, probability: np.ndarray, n_largest: int = 10) -> pd.DataFrame:
    """The matchups that cost a predictor most log-loss beyond their own luck.

    Returns
    -------
    DataFrame of n_largest rows
        The matchup, `observed` and `predicted` P(A wins), n_battles and `cost`, the divergence of the two in
        nats a battle, largest first.
    """
    n, p = matchups["n_battles"].to_numpy(), _checked(probability, len(matchups))
    observed = matchups["wins_a"].to_numpy() / n
    cost = rel_entr(observed, p) + rel_entr(1 - observed, 1 - p)
    table = matchups[[name for name in ("species_a", "move_a", "species_b", "move_b") if name in matchups]].assign(
        observed=observed, predicted=p, n_battles=n, cost=cost
    )
    return table.sort_values("cost", ascending=False, kind="stable").head(n_largest).reset_index(drop=True)


def learning_curve(
    model: BattleWinner, training: pd.DataFrame, numbers: np.ndarray, n_points: int, *, n_bootstrap: int,
    random_state: int,
) -> pd.DataFrame:
    """Refit a model on more and more of the training part, and score it on a fifth of it that is held out.

    Parameters
    ----------
    model : BattleWinner
        Its parameters are used, and its species where it was fitted on others than the game's; it is not refitted
        itself.
    training : DataFrame
        Matchups with wins_a and n_battles. A hash of the unordered pair draws the fifth, and the order of the rest.
    numbers : ndarray of shape (2, n_matchups, n_features)
        Their features in both orientations.
    n_points : int
        Sizes, each twice the one before; the last is all that is not held out.

    Returns
    -------
    DataFrame
        n_matchups (learned from), log-loss on these (`training`) and on the fifth (`held_out`, with `low` and
        `high`), and, where there is one, the fifth's Bayes limit (`bayes`).
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
        seen, unseen = (
            _with_interval(figures_of_merit(matchups, fitted.predict_proba(described)[:, 1], w)).loc["log_loss"]
            for matchups, described, w in ((part, known, None), (held_out, new, weights))
        )
        rows.append((size, seen["value"], unseen["value"], unseen["low"], unseen["high"]))
    table = pd.DataFrame(rows, columns=["n_matchups", "training", "held_out", "low", "high"])
    return table.assign(bayes=bayes_limit(held_out)["log_loss"].iloc[0]) if has_limit(held_out) else table


def _checked(probability: np.ndarray, n_rows: int) -> np.ndarray:
    p = np.asarray(probability, dtype=float)
    if p.shape != (n_rows,) or not ((p >= 0) & (p <= 1)).all():
        got = f"shape {p.shape}, {p.min()} to {p.max()}"
        raise ValueError(f"expected {n_rows} probabilities from 0 to 1, got {got}")
    return p


def _in_bins(p: np.ndarray, n_bins: int, values: np.ndarray) -> np.ndarray:
    """Spread a value a matchup over the columns of its probability bin, shape (n_matchups, n_bins)."""
    spread = np.zeros((len(p), n_bins))
    spread[np.arange(len(p)), np.minimum((p * n_bins).astype(int), n_bins - 1)] = values
    return spread


def _roc_auc(wins: np.ndarray, losses: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every resample at once; equal predictions count half."""
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.diff(p[order], prepend=-1.0))
    won = np.add.reduceat((weights * wins)[:, order], starts, axis=1)
    lost = np.add.reduceat((weights * losses)[:, order], starts, axis=1)
    below = np.cumsum(lost, axis=1) - lost / 2
    return (won * below).sum(axis=1) / (won.sum(axis=1) * lost.sum(axis=1))


def _with_interval(table: pd.DataFrame) -> pd.DataFrame:
    """Row 0 as the value and the quantiles of the other rows as its interval, one row a figure."""
    low, high = (table.iloc[1:].quantile(bound) for bound in INTERVAL)
    return pd.DataFrame({"value": table.iloc[0], "low": low, "high": high}).rename_axis("figure")
