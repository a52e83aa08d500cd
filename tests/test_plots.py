"""Figures show the numbers that they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from pokebattle import dex, evaluation, plots


@pytest.fixture
def battles() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 0.3, 300)
    table = pd.DataFrame(
        {"species_a": "abra", "species_b": "onix", "move_a": "psychic", "move_b": "dig"}, index=range(300)
    )
    return table.assign(wins_a=rng.binomial(50, p), n_battles=50), p


def line(figure: plt.Figure, label: str) -> np.ndarray:
    lines = [found for axes in figure.axes for found in axes.lines if found.get_label() == label]
    return np.column_stack([np.asarray(values, dtype=object) for values in lines[0].get_data()])


def test_reliability_shows_the_table(battles: tuple[pd.DataFrame, np.ndarray]) -> None:
    table = evaluation.calibration_table(*battles)
    figure = plots.reliability(table)
    assert (line(figure, "model") == table[["predicted", "observed"]].to_numpy()).all()
    assert [bar.get_height() for bar in figure.axes[1].patches] == table["n_battles"].tolist()


def test_importance_shows_the_largest_on_top() -> None:
    table = pd.DataFrame({"gain": [0.5, 0.3, 0.2]}, index=["turns_saved", "speed", "hp"])
    axes = plots.importance(table, n_features=2).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.3, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["speed", "turns saved"]


def test_learning_curve_shows_the_table() -> None:
    table = pd.DataFrame({"n_matchups": [100, 200], "training": [0.1, 0.15], "held_out": [0.3, 0.2],
                          "low": [0.2, 0.1], "high": [0.4, 0.3], "bayes": 0.12})  # fmt: skip
    figure = plots.learning_curve(table)
    for label, column in (("learned from", "training"), ("held out", "held_out"), ("Bayes limit, held out", "bayes")):
        assert (line(figure, label) == table[["n_matchups", column]].to_numpy()).all()


def test_largest_errors_shows_the_worst_on_top(battles: tuple[pd.DataFrame, np.ndarray]) -> None:
    table = evaluation.largest_errors(*battles, n_largest=4)
    table["species_a"] = ["first", "second", "third", "fourth"]
    figure = plots.largest_errors(table)
    shown = line(figure, "predicted")
    assert shown[::-1, 0].tolist() == table["predicted"].tolist()
    assert shown[-1, 1].startswith("first (psychic)")


def test_type_chart_marks_strength() -> None:
    axes = plots.type_chart(dex.type_chart()).axes[0]
    assert sum(text.get_text() == "0" for text in axes.texts) == (dex.type_chart() == 0).sum().sum()
    assert len(axes.get_xticklabels()) == len(axes.get_yticklabels()) == 18


def test_win_shares_counts_every_matchup() -> None:
    axes = plots.win_shares(pd.Series([0.0, 0.01, 0.5, 1.0]), "title").axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    assert (heights[0], heights[10], heights[-1]) == (50, 25, 25)
    assert axes.patches[0].get_facecolor()[:3] == to_rgba(plots.A_COLOUR)[:3]


def test_figures_are_left_to_the_caller() -> None:
    plots.win_shares(pd.Series([0.5]), "title")
    assert plt.get_fignums() == []
