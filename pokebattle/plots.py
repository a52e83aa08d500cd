"""Pictures of the numbers that `evaluation` and `model` return. Every function returns a new figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

A_COLOUR, B_COLOUR, GREY = "#3b6fb6", "#d1603d", "#8a8a8a"
STYLE = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
    "axes.axisbelow": True, "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left",
}  # fmt: skip


def reliability(table: pd.DataFrame) -> Figure:
    """Draw observed against predicted share of wins, over the number of battles in each bin.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.calibration_table`.
    """
    with plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(5.2, 5.6), sharex=True, height_ratios=[3, 1], layout="constrained"
        )
        above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
        above.plot(table["predicted"], table["observed"], color=A_COLOUR, marker="o", label="model")
        above.set(ylabel="observed share of wins", ylim=(-0.02, 1.02), title="Calibration: predicted and observed wins")
        above.legend(frameon=False)
        middles = [interval.mid for interval in table.index]
        below.bar(middles, table["n_battles"], width=0.9 * (table.index[0].right - table.index[0].left), color=A_COLOUR)
        below.set(xlabel="predicted P(A wins)", ylabel="battles", xlim=(-0.02, 1.02))
        below.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return _done(figure)


def importance(table: pd.DataFrame, n_features: int = 15) -> Figure:
    """Draw the features with the largest share of the gain.

    Parameters
    ----------
    table : DataFrame
        From `model.BattleWinner.importance`.
    """
    shown = table.head(n_features)[::-1]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.2, 0.5 + 0.27 * len(shown)), layout="constrained")
        axes.barh(shown.index.str.replace("_", " "), shown["gain"], color=A_COLOUR)
        axes.set(xlabel="share of the total gain", title="Importance of the features")
        axes.grid(axis="y", visible=False)
    return _done(figure)


def learning_curve(table: pd.DataFrame) -> Figure:
    """Draw held-out log-loss against the number of matchups to learn from.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.learning_curve`.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.2, 3.6), layout="constrained")
        axes.plot(table["n_matchups"], table["training"], color=GREY, marker="o", label="learned from")
        axes.plot(table["n_matchups"], table["held_out"], color=A_COLOUR, marker="o", label="held out")
        axes.fill_between(table["n_matchups"], table["low"], table["high"], color=A_COLOUR, alpha=0.15, linewidth=0)
        if "bayes" in table:
            limit = "Bayes limit, held out"
            axes.plot(table["n_matchups"], table["bayes"], color=B_COLOUR, linestyle="--", label=limit)
        axes.set(xscale="log", xlabel="matchups learned from", ylabel="log-loss (nats a battle)", ylim=(0, None))
        axes.set(title="Learning curve")
        axes.set_xticks(table["n_matchups"], [f"{n:,}" for n in table["n_matchups"]])
        axes.minorticks_off()
        axes.legend(frameon=False)
    return _done(figure)


def largest_errors(table: pd.DataFrame) -> Figure:
    """Draw predicted and observed P(A wins) of the worst matchups, the worst on top.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.largest_errors`.
    """
    names = [
        f"{row.species_a} ({row.move_a}) – {row.species_b} ({row.move_b})"
        for row in table[::-1].itertuples(index=False)
    ]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.4, 0.9 + 0.32 * len(table)), layout="constrained")
        axes.hlines(names, table["predicted"][::-1], table["observed"][::-1], color=GREY, linewidth=1)
        axes.plot(table["predicted"][::-1], names, "o", color=A_COLOUR, label="predicted")
        axes.plot(table["observed"][::-1], names, "D", color=B_COLOUR, label="observed")
        axes.set(xlabel="P(A wins)", xlim=(-0.02, 1.02), title="Largest errors")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return _done(figure)


def type_chart(chart: pd.DataFrame) -> Figure:
    """Draw the type multipliers, attacking types down, defending types across."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.4, 6.2), layout="constrained")
        colours = sns.color_palette(["#3d3d3d", "#e8a798", "#f7f7f7", "#7fb3d5"])
        codes = chart.replace({0: 0, 0.5: 1, 1: 2, 2: 3}).astype(int)
        text = chart.replace({0: "0", 0.5: "½", 1: "", 2: "2"})
        sns.heatmap(codes, cmap=list(colours), annot=text, fmt="", cbar=False, linewidths=0.5, ax=axes)
        axes.set(xlabel="defending type", ylabel="attacking type")
        axes.tick_params(length=0)
    return _done(figure)


def win_shares(share: pd.Series, title: str) -> Figure:
    """Draw how often each share of wins occurs over matchups."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.2, 3.2), layout="constrained")
        sns.histplot(x=share, bins=20, binrange=(0, 1), color=A_COLOUR, stat="percent", ax=axes)
        axes.set(xlabel="share of battles won by A", ylabel="matchups, %", xlim=(0, 1), title=title)
    return _done(figure)


def _done(figure: Figure) -> Figure:
    """Close the figure, so that a notebook shows it once: where the cell returns it."""
    plt.close(figure)
    return figure
