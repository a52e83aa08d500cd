"""Tables and figures of a study. Every function for a figure returns a new one."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.exceptions import ExperimentalWarning

from pokebattle.evaluation import plots
from pokebattle.params import Range
from pokebattle.tuning.search import Search

N_BINS = 3  # parts of a parameter's values
N_PANELS = 4  # in one row
MARGIN = 0.05  # at both ends of an axis, as a share of it
LOSS = "log-loss (nats per battle)"
DARKER = ListedColormap(plt.get_cmap("Blues")(np.linspace(0.3, 1, 256)))  # without the tones that are nearly white


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        values = optuna.importance.get_param_importances(search.study)
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
    """Draw the log-loss of every complete trial and the best value so far, and mark the pruned trials.

    Parameters
    ----------
    search : Search
    """
    trials, losses = search.table(), _complete(search)["log_loss"]
    pruned = trials.index[trials["state"] == "pruned"]
    best = losses.cummin().reindex(trials.index).ffill()
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(figsize=(7.4, 3.6), layout="constrained")
        axes.plot(best.index, best, color=plots.B_COLOUR, drawstyle="steps-post", label="best so far", zorder=1)
        _scatter(axes, losses.index.to_series(), losses, np.full(len(losses), plots.A_COLOUR), label="complete")
        if len(pruned):
            _at_the_top(axes, pruned, color=plots.GREY, marker="x", label="pruned")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="trial", ylabel=LOSS, title="Progress of the search", xlim=(-0.6, trials.index.max() + 0.6))
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.closed(figure)


def importance_picture(values: pd.Series) -> Figure:
    """Draw the importance of the parameters.

    Parameters
    ----------
    values : Series
        From `importance`.
    """
    return plots.bars(values, "importance (sum 1)", "What the trials' log-loss depends on")


def slices_picture(search: Search) -> Figure:
    """Draw the log-loss of the complete trials against each parameter, over the whole range that is searched.

    Parameters
    ----------
    search : Search
    """
    trials, space = _complete(search), search.folds.params.search
    rows = 1 if len(space) <= N_PANELS else 2
    columns = -(-len(space) // rows)
    colours = ScalarMappable(Normalize(0, max(1, trials.index.max())), DARKER)
    with plt.rc_context(plots.STYLE):
        size = (2.25 * columns + 0.6, 2.6 * rows + 0.3)
        figure, panels = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
        for panel, (name, searched) in zip(panels.flat, space.items(), strict=False):
            scale = _scale(trials[name], searched)
            _scatter(panel, scale.places, trials["log_loss"], colours.to_rgba(trials.index.to_numpy()))
            panel.set(xlabel=name, xlim=(0, 1))
            panel.set_xticks(list(scale.ticks.values()), list(scale.ticks))
        for panel in panels.flat[len(space) :]:
            panel.remove()
        figure.colorbar(colours, ax=figure.axes, label="trial", ticks=MaxNLocator(integer=True))
        above = " (triangles: above the axis)" if (trials["log_loss"] > _highest(trials["log_loss"])).any() else ""
        figure.suptitle("Log-loss by parameter" + above, x=0.01, horizontalalignment="left", fontsize=11)
        figure.supylabel(LOSS, fontsize=10)
    return plots.closed(figure)


def parallel_picture(search: Search) -> Figure:
    """Draw every complete trial as a line in parallel coordinates: the better, the darker.

    Parameters
    ----------
    search : Search
    """
    trials, space = _complete(search).sort_values("log_loss", ascending=False), search.folds.params.search
    losses, highest = trials["log_loss"], _highest(trials["log_loss"])
    shown = trials.assign(log_loss=losses.clip(upper=highest))
    ranges = {"log_loss": Range(low=losses.min(), high=highest), **space}
    scales = [_scale(shown[name], searched) for name, searched in ranges.items()]
    colours = ScalarMappable(Normalize(losses.min(), highest), DARKER.reversed())
    with plt.rc_context(plots.STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(9.6, 4.4), layout="constrained")
        lines = [list(enumerate(row)) for row in np.column_stack([scale.places for scale in scales])]
        axes.add_collection(LineCollection(lines, colors=colours.to_rgba(losses.to_numpy()), linewidths=1.8))
        above = f" (log-losses above {highest:.3f} start at the top)" if (losses > highest).any() else ""
        axes.set(xlim=(0, len(space)), ylim=(0, 1), title="Log-loss and parameters of the complete trials" + above)
        axes.set_yticks(list(scales[0].ticks.values()), list(scales[0].ticks))
        axes.set_xticks(range(len(scales)), ["log-loss", *space], rotation=20, rotation_mode="anchor", ha="right")
        for place, scale in enumerate(scales[1:], start=1):
            _upright(axes.twinx(), place, scale)
        figure.colorbar(colours, ax=axes, label=LOSS, extend="max" if above else "neither", pad=0.08)
    return plots.closed(figure)


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
        label = "Pareto front, with the trials' numbers"
        axes.plot(front["predict_us"], front["log_loss"], color=plots.A_COLOUR, marker="o", label=label)
        for number, row in front.iterrows():  # below and to the left of the front there is no trial
            place = (row["predict_us"], row["log_loss"])
            side = {"horizontalalignment": "right", "verticalalignment": "top"}
            axes.annotate(str(number), place, xytext=(-5, -5), textcoords="offset points", **side)
        axes.margins(0.09)
        axes.set(
            xlabel="microseconds per matchup, without features", ylabel=LOSS, title="Quality and speed of prediction"
        )
        axes.legend(frameon=False)
    return plots.closed(figure)


def _improves(losses: pd.Series) -> pd.Series:
    """Return which values are below all earlier ones."""
    return losses < losses.shift().cummin().fillna(np.inf)


def _complete(search: Search) -> pd.DataFrame:
    table = search.table()
    return table[table["state"] == "complete"].drop(columns="state").astype({"log_loss": float})


def _highest(losses: pd.Series) -> float:
    """Return the largest log-loss that is no outlier: at most 1.5 interquartile ranges above the upper quartile."""
    lower, upper = losses.quantile([0.25, 0.75])
    return float(losses[losses <= upper + 1.5 * (upper - lower)].max())


def _scatter(axes: Axes, places: pd.Series, losses: pd.Series, colours: np.ndarray, label: str = "") -> None:
    """Draw trials as points. The axis ends above the largest log-loss that is no outlier."""
    lowest, highest = losses.min(), _highest(losses)
    inside, span = (losses <= highest).to_numpy(), highest - lowest or 0.01
    axes.scatter(places[inside], losses[inside], color=colours[inside], label=label)
    axes.set_ylim(lowest - 0.08 * span, highest + 0.16 * span)
    if not inside.all():
        _at_the_top(axes, places[~inside], color=colours[~inside], marker="^", label="above the axis")


def _at_the_top(axes: Axes, places: pd.Series | pd.Index, **style: Any) -> None:
    axes.scatter(places, np.full(len(places), 0.96), transform=axes.get_xaxis_transform(), **style)


def _upright(axes: Axes, place: int, scale: _Scale) -> None:
    """Turn a twin of a plot into one of its parallel axes."""
    axes.set(ylim=(0, 1))
    axes.set_yticks(list(scale.ticks.values()), list(scale.ticks))
    axes.spines["right"].set(visible=True, position=("data", place))
    for label in axes.get_yticklabels():
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8})


@dataclass(frozen=True)
class _Scale:
    """Where the values of a parameter are on an axis from 0 to 1.

    Attributes
    ----------
    places : Series
        Index trial.
    ticks : dict of str to float
        Places by label.
    """

    places: pd.Series
    ticks: dict[str, float]


def _scale(values: pd.Series, searched: Range) -> _Scale:
    """Return the scale of a parameter. It contains the range that is searched, and own values outside of it."""
    if searched.choices is not None:
        choices = searched.choices
        numbers, ticks = values.map(choices.index), {str(choice): float(n) for n, choice in enumerate(choices)}
        return _from_0_to_1(numbers, ticks, 0, len(choices) - 1)
    low, high = min(searched.low, values.min()), max(searched.high, values.max())
    if not searched.log:
        locator = MaxNLocator(4, steps=[1, 2, 5, 10], integer=isinstance(searched.low, int), min_n_ticks=3)
        steps = [step for step in locator.tick_values(low, high) if low <= step <= high]
        return _from_0_to_1(values, {f"{step:g}": step for step in steps or [low]}, low, high)
    values = values.where(values > 0, searched.low)  # 0 has no logarithm
    low = min(searched.low, values.min())
    ticks = {f"{step:g}": np.log10(step) for step in _powers(low, high)}
    return _from_0_to_1(np.log10(values), ticks, np.log10(low), np.log10(high))


def _powers(low: float, high: float) -> list[float]:
    """Return the powers of ten from `low` to `high`, with their threefold if the range is short."""
    factors = (1, 3) if high <= 100 * low else (1,)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = [float(f"{factor}e{power}") for power in powers for factor in factors]
    found = [step for step in steps if low <= step <= high]
    return found if len(found) > 1 else [low, high]


def _from_0_to_1(numbers: pd.Series, ticks: dict[str, float], low: float, high: float) -> _Scale:
    """Return a scale with a margin at both ends."""
    margin = MARGIN * (high - low) or 1.0
    start, length = low - margin, high - low + 2 * margin
    places = (numbers.astype(float) - start) / length
    return _Scale(places, {label: (number - start) / length for label, number in ticks.items()})
