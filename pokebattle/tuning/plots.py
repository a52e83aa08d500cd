"""Tables and figures of a study. Every function for a figure returns a new one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from optuna.exceptions import ExperimentalWarning
from optuna.visualization import matplotlib as drawn

from pokebattle.evaluation import plots
from pokebattle.tuning.search import Search

N_BINS = 3  # parts of a parameter's values
LOSS = "log-loss (nats per battle)"


def progress(search: Search) -> pd.DataFrame:
    """Return the trials that were better than all earlier ones.

    Parameters
    ----------
    search : Search

    Returns
    -------
    DataFrame
        Index trial; columns log_loss (nats per battle) and better_by (percent, relative to the previous best trial).
    """
    losses = _complete(search)["log_loss"]
    best = losses[_improves(losses)]
    return pd.DataFrame({"log_loss": best, "better_by": -100 * best.pct_change()})


def importance(search: Search) -> pd.Series:
    """Return how much each parameter separates good from average trials, largest first (PED-ANOVA).

    Parameters
    ----------
    search : Search

    Returns
    -------
    Series
        Index parameter; shares that sum to 1.
    """
    values = _quietly(lambda: optuna.importance.get_param_importances(search.study))
    return pd.Series(values, name="importance").rename_axis("parameter")


def slices(search: Search) -> pd.DataFrame:
    """Return the best log-loss in each third of every parameter's values.

    Parameters
    ----------
    search : Search

    Returns
    -------
    DataFrame
        Index parameter; columns low, middle, high, in nats per battle.
    """
    trials = _complete(search)
    rows = {}
    for name in search.folds.params.search:
        codes, _ = pd.factorize(trials[name], sort=True)
        thirds = pd.Series(codes * N_BINS // (codes.max() + 1), index=trials.index)
        rows[name] = trials["log_loss"].groupby(thirds).min().reindex(range(N_BINS))
    return pd.DataFrame(rows).T.set_axis(["low", "middle", "high"], axis=1).rename_axis("parameter")


def history_picture(search: Search) -> Figure:
    """Draw the log-loss of every complete trial, and the best value so far.

    Parameters
    ----------
    search : Search
    """
    return _picture(lambda: drawn.plot_optimization_history(search.study, target_name=LOSS), (7.4, 3.6))


def importance_picture(values: pd.Series) -> Figure:
    """Draw the importance of the parameters.

    Parameters
    ----------
    values : Series
        From `importance`.
    """
    return plots.bars(values, "share of the importance", "What the trials' log-loss depends on")


def slices_picture(search: Search) -> Figure:
    """Draw the log-loss of the complete trials against each parameter.

    Parameters
    ----------
    search : Search
    """
    n = len(search.folds.params.search)
    return _picture(lambda: drawn.plot_slice(search.study, target_name=LOSS), (2.4 * n, 3.4))


def parallel_picture(search: Search) -> Figure:
    """Draw every complete trial as a line in parallel coordinates.

    Parameters
    ----------
    search : Search
    """
    return _picture(lambda: drawn.plot_parallel_coordinate(search.study, target_name=LOSS), (9.6, 4.4))


def speed_picture(search: Search) -> Figure:
    """Draw the log-loss against the time of a prediction, and the Pareto front of the trials.

    Parameters
    ----------
    search : Search
    """
    trials = _complete(search).sort_values(["predict_us", "log_loss"])
    front = trials[_improves(trials["log_loss"])]
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(figsize=(6.2, 3.8), layout="constrained")
        axes.scatter(trials["predict_us"], trials["log_loss"], color=plots.GREY, label="trials")
        axes.plot(front["predict_us"], front["log_loss"], color=plots.A_COLOUR, marker="o", label="Pareto front")
        for number, row in front.iterrows():
            axes.annotate(str(number), (row["predict_us"], row["log_loss"]), xytext=(4, 4), textcoords="offset points")
        axes.set(
            xlabel="microseconds per matchup, without features", ylabel=LOSS, title="Quality and speed of prediction"
        )
        axes.legend(frameon=False)
    plt.close(figure)
    return figure


def _improves(losses: pd.Series) -> pd.Series:
    """Return which values are below all earlier ones."""
    return losses < losses.shift().cummin().fillna(np.inf)


def _complete(search: Search) -> pd.DataFrame:
    table = search.table()
    return table[table["state"] == "complete"].drop(columns="state").astype({"log_loss": float})


def _picture(draw: Callable[[], Any], size: tuple[float, float]) -> Figure:
    """Draw a figure with Optuna, and restore matplotlib's style afterwards."""
    with plt.rc_context():
        axes = np.atleast_1d(_quietly(draw))
        for panel in axes.flat:
            panel.xaxis.set_minor_formatter(NullFormatter())  # on a narrow logarithmic axis these labels overlap
        figure: Figure = axes.flat[0].figure
        figure.set_size_inches(size)
        plt.close(figure)
    return figure


def _quietly(call: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return call()
