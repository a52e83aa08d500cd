"""Figures of the tables that `evaluation`, `explanation` and `model` return. Every function returns a new figure."""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pokebattle.datasets import splits
from pokebattle.evaluation.explanation import labels
from pokebattle.evaluation.placeholders import NOTE, is_note
from pokebattle.game import dex
from pokebattle.game.matchups import RANDOM

A_COLOUR, B_COLOUR, GREY = "#3b6fb6", "#d1603d", "#8a8a8a"
PALE, DARK = "#c4c4c4", "#4a4a4a"  # cells without a number; a species with itself
SAME = "a species with itself"
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
}


def reliability(table: pd.DataFrame, intervals: pd.DataFrame | None = None) -> Figure:
    """Draw the observed against the predicted share of wins, and below it the number of battles in each bin.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.calibration_table`.
    intervals : DataFrame, optional
        From `evaluation.calibration_intervals`.
    """
    with plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(5.2, 5.6), sharex=True, height_ratios=[3, 1], layout="constrained"
        )
        above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
        above.plot(table["predicted"], table["observed"], color=A_COLOUR, marker="o", label="model")
        if intervals is not None:
            low, high = intervals["low"], intervals["high"]
            above.vlines(table["predicted"], low, high, color=A_COLOUR, alpha=0.4, linewidth=3, label="95 % interval")
        above.set(ylabel="observed share of wins", ylim=(-0.02, 1.02), title="Calibration: predicted and observed wins")
        above.legend(frameon=False)
        middles = [interval.mid for interval in table.index]
        below.bar(middles, table["n_battles"], width=0.9 * (table.index[0].right - table.index[0].left), color=A_COLOUR)
        below.set(xlabel="predicted P(A wins)", ylabel="battles", xlim=(-0.02, 1.02))
        below.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return closed(figure)


def importance(table: pd.DataFrame, n_features: int = 15) -> Figure:
    """Draw the features with the largest share of the gain.

    Parameters
    ----------
    table : DataFrame
        From `model.BattleWinner.importance`.
    n_features : int, default 15
        Number of features to show.
    """
    return bars(_spaced(table["gain"].head(n_features)), "share of the total gain", "Importance of the features")


def mean_contributions(contributions: pd.Series, n_features: int = 15) -> Figure:
    """Draw the features that contribute most to the predictions.

    Parameters
    ----------
    contributions : Series
        Mean absolute contribution (log-odds) by feature, largest first.
    n_features : int, default 15
        Number of features to show.
    """
    shown = _spaced(contributions.head(n_features))
    return bars(shown, "mean distance from 0, log-odds", "What moves the predictions")


def explanations(table: pd.DataFrame) -> Figure:
    """Draw the features' contributions to some matchups, one panel each: to the right for A, to the left for B.

    Parameters
    ----------
    table : DataFrame
        From `explanation.explain`.
    """
    matchups = table.index.unique("matchup")
    rows = len(table) // len(matchups)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            len(matchups),
            1,
            figsize=(7.4, (0.6 + 0.25 * rows) * len(matchups) + 0.3),
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        for axes, matchup in zip(panels.flat, matchups, strict=True):
            parts = table.loc[matchup, "log_odds"][::-1]
            colours = [A_COLOUR if value > 0 else B_COLOUR for value in parts]
            colours[0] = GREY
            axes.barh(parts.index.str.replace("_", " "), parts, color=colours)
            axes.axvline(0, color="black", linewidth=0.8)
            axes.grid(axis="y", visible=False)
            axes.set_title(_named(matchup))
        panels[-1, 0].set_xlabel("log-odds: left for B, right for A; grey is the sum")
    return closed(figure)


def learning_curve(table: pd.DataFrame) -> Figure:
    """Draw the log-loss against the number of matchups that the model was fitted on.

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
        axes.set(xscale="log", xlabel="matchups learned from", ylabel="log-loss (nats per battle)", ylim=(0, None))
        axes.set(title="Learning curve")
        axes.set_xticks(table["n_matchups"], [f"{n:,}" for n in table["n_matchups"]])
        axes.minorticks_off()
        axes.legend(frameon=False)
    return closed(figure)


def largest_errors(table: pd.DataFrame) -> Figure:
    """Draw predicted and observed P(A wins) of the worst matchups, the worst on top.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.largest_errors`.
    """
    shown = table.set_axis([_named(label) for label in labels(table)]).rename_axis("matchup")[["predicted", "observed"]]
    return two_shares(shown, "P(A wins)", "Largest errors")


def two_shares(table: pd.DataFrame, xlabel: str, title: str, ylabel: str = "") -> Figure:
    """Draw two shares for each row, joined by a line, the first row on top.

    Parameters
    ----------
    table : DataFrame
        Two columns of numbers from 0 to 1; the index contains the labels of the rows.
    xlabel, title : str
    ylabel : str, optional
        What the labels of the rows are.
    """
    first, second = table.columns
    rows = table[::-1]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.4, 0.9 + 0.32 * len(table)), layout="constrained")
        axes.hlines(rows.index, rows[first], rows[second], color=GREY, linewidth=1)
        axes.plot(rows[first], rows.index, "o", color=A_COLOUR, label=first)
        axes.plot(rows[second], rows.index, "D", color=B_COLOUR, label=second)
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(-0.02, 1.02), title=title)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return closed(figure)


def excesses(table: pd.DataFrame) -> Figure:
    """Draw the log-loss above the Bayes limit with its intervals, on a scale that is logarithmic from 1 % on.

    Parameters
    ----------
    table : DataFrame
        Index protocol and feature set; columns value, low, high, in percent. Or a note.
    """
    if is_note(table):
        return _note(table)
    groups = table.index.unique(0)
    colours = dict(zip(table.index.unique(1), (GREY, B_COLOUR, A_COLOUR, "#5b8c5a"), strict=False))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.4, 0.9 + 0.75 * len(groups)), layout="constrained")
        for number, (name, colour) in enumerate(colours.items()):
            rows = table.xs(name, level=1).reindex(groups)
            heights = [-place + 0.2 * (1 - number) for place in range(len(groups))]
            axes.hlines(heights, rows["low"], rows["high"], color=colour, linewidth=2)
            axes.plot(rows["value"], heights, "o", color=colour, label=name)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_yticks([-place for place in range(len(groups))], [name.replace("_", " ") for name in groups])
        axes.set(xlabel="log-loss above the Bayes limit, %", xlim=(min(0, table["low"].min()), None))
        axes.set(title="Protocols and feature sets", ylim=(0.5 - len(groups), 0.5))
        low, high = axes.get_xlim()
        steps = [sign * factor * 10**power for power in range(5) for factor in (1, 3) for sign in (-1, 1)]
        axes.set_xticks([step for step in sorted([0, *steps]) if low <= step <= high])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(axis="y", visible=False)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return closed(figure)


def protocols(pairs: pd.DataFrame, families: pd.Series) -> Figure:
    """Draw the part of every pair of species, one square for each protocol, the held-out families last.

    Parameters
    ----------
    pairs : DataFrame
        From `splits.parts_of_pairs`.
    families : Series
        Index species id, values the family.
    """
    unseen = splits.unseen_species(families)
    fighting = families.index[families.index.isin({*pairs["species_a"], *pairs["species_b"]})]
    order = {name: row for row, name in enumerate(sorted(fighting, key=lambda name: name in unseen))}
    held_out = sum(name not in unseen for name in order) - 0.5
    a, b = pairs["species_a"].map(order), pairs["species_b"].map(order)
    parts = (*splits.PARTS, splits.UNUSED, SAME)
    colours = dict(zip(parts, ("#d9e2ec", A_COLOUR, B_COLOUR, "white", DARK), strict=True))
    with plt.rc_context(STYLE):
        figure, squares = plt.subplots(1, len(splits.PROTOCOLS), figsize=(10, 3.7), layout="constrained")
        for axes, protocol in zip(squares, splits.PROTOCOLS, strict=True):
            cells = np.full((len(order), len(order)), parts.index(splits.UNUSED))
            np.fill_diagonal(cells, parts.index(SAME))
            cells[a, b] = cells[b, a] = pairs[protocol].map(parts.index)
            axes.imshow(cells, cmap=ListedColormap(list(colours.values())), interpolation="nearest", origin="lower")
            if protocol != "pair":  # which holds out no family
                axes.axhline(held_out, color=GREY, linewidth=0.8)
                axes.axvline(held_out, color=GREY, linewidth=0.8)
            axes.set(title=protocol, xticks=[], yticks=[], xlabel="species A", ylabel="species B")
        names = [Patch(facecolor=colour, edgecolor=GREY, label=part) for part, colour in colours.items()]
        figure.legend(handles=names, frameon=False, loc="outside lower center", ncols=len(names))
    return closed(figure)


def type_chart(chart: pd.DataFrame) -> Figure:
    """Draw the type multipliers: attacking types as rows, defending types as columns.

    Parameters
    ----------
    chart : DataFrame
        From `dex.type_chart`.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.4, 6.2), layout="constrained")
        _multipliers(chart, axes)
        axes.set(title="Multiplier (blank: 1)")
    return closed(figure)


def type_outcomes(chart: pd.DataFrame, share: pd.DataFrame) -> Figure:
    """Draw the type multipliers, and beside them the share of battles that the attackers won.

    Parameters
    ----------
    chart, share : DataFrame
        Index attacking type, columns defending type. Multipliers (0 to 2), and shares of wins (0 to 1, missing if
        unknown).
    """
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(14.2, 6.2), layout="constrained")
        _multipliers(chart, left)
        sns.heatmap(
            100 * share,
            cmap=sns.diverging_palette(20, 245, as_cmap=True),
            vmin=0,
            vmax=100,
            annot=True,
            fmt=".0f",
            annot_kws={"size": 8},
            cbar=False,
            linewidths=0.5,
            ax=right,
        )
        left.set(title="Multiplier of the type chart (blank: 1)")
        title = "Battles won by the attacker, % (grey: too few battles)"
        right.set(title=title, xlabel="defender's first type", ylabel="", facecolor=PALE)
        right.tick_params(length=0)
        right.grid(visible=False)
    return closed(figure)


def win_counts(table: pd.DataFrame) -> Figure:
    """Draw how often each number of wins occurs, one group of bars per number.

    Parameters
    ----------
    table : DataFrame
        Index policy, columns number of wins, values shares of the matchups (0 to 1).
    """
    width = 0.8 / len(table)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.8, 3.2), layout="constrained")
        for number, (policy, row) in enumerate(table.iterrows()):
            colour = (A_COLOUR, GREY, B_COLOUR)[number % 3]
            places = [wins + width * (number - (len(table) - 1) / 2) for wins in row.index]
            axes.bar(places, 100 * row, width, color=colour, label=str(policy).replace("_", " "))
        axes.set(xlabel=f"wins in {len(table.columns) - 1} battles", ylabel="matchups, %")
        axes.set_xticks(list(table.columns))
        axes.grid(axis="x", visible=False)
        axes.legend(frameon=False)
    return closed(figure)


def bars(values: pd.Series, xlabel: str, title: str) -> Figure:
    """Draw a horizontal bar for every value, the first on top.

    Parameters
    ----------
    values : Series
        The index contains the labels of the bars.
    xlabel, title : str
    """
    shown = values[::-1]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.2, 0.5 + 0.27 * len(shown)), layout="constrained")
        axes.barh(shown.index, shown, color=A_COLOUR)
        axes.set(xlabel=xlabel, title=title)
        axes.grid(axis="y", visible=False)
    return closed(figure)


def _multipliers(chart: pd.DataFrame, axes: Axes) -> None:
    colours = sns.color_palette(["#3d3d3d", "#e8a798", "#f7f7f7", "#7fb3d5"])
    codes = chart.replace({0: 0, 0.5: 1, 1: 2, 2: 3}).astype(int)
    text = chart.replace({0: "0", 0.5: "½", 1: "", 2: "2"})
    sns.heatmap(codes, cmap=list(colours), annot=text, fmt="", cbar=False, linewidths=0.5, ax=axes)
    axes.set(xlabel="defending type", ylabel="attacking type")
    axes.tick_params(length=0)


def advice(table: pd.DataFrame, species_a: str, species_b: str, n_moves: int = 12) -> Figure:
    """Draw the chances of A's best moves, and of the move that the policy uses.

    Parameters
    ----------
    table : DataFrame
        From `move_choice.advise`. Or a note.
    species_a, species_b : str
    n_moves : int, default 12
    """
    if is_note(table):
        return _note(table)
    shown = table[(table.index < n_moves) | (table["policy"] == "best_move")]
    names = _names()
    move_a, move_b = shown["move_a"].map(names), shown["move_b"].map(names)
    rows = move_a + " – " + move_b + shown["policy"].where(shown["policy"] == "", " (best_move)")
    chances = shown.set_index(rows)[["predicted", "simulated"]]
    title = f"{names[species_a]} (A) against {names[species_b]} (B)"
    return two_shares(chances, "P(A wins)", title, ylabel="A's move – B's best reply")


def _spaced(values: pd.Series) -> pd.Series:
    """Return values with spaces instead of underscores in the names of the features."""
    return values.set_axis(values.index.str.replace("_", " "))


def _names() -> dict[str, str]:
    """Return the name of every species and move of the game by its id."""
    return {**dex.species()["name"], **dex.moves()["name"], RANDOM: "random"}


def _named(label: str) -> str:
    """Replace the ids in the label of a matchup by names. A label without moves belongs to your own battles."""
    names = _names()
    known = "(" in label and all(word in names for word in re.findall(r"\w+", label))
    return re.sub(r"\w+", lambda found: names[found[0]], label) if known else label


def _note(table: pd.DataFrame) -> Figure:
    """Draw a figure that says why there is nothing to draw."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(7.4, 0.6))
        figure.text(0, 0.5, table[NOTE].iloc[0], verticalalignment="center")
    return closed(figure)


def closed(figure: Figure) -> Figure:
    """Close a figure, so that a notebook shows it only once, as the result of the cell, and return it.

    Parameters
    ----------
    figure : Figure
    """
    plt.close(figure)
    return figure
