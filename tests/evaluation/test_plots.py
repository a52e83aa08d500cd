"""Figures show the numbers that they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from pokebattle import evaluation
from pokebattle.datasets import splits
from pokebattle.evaluation import explanation, plots
from pokebattle.game import dex, matchups


@pytest.fixture
def battles() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 0.3, 300)
    table = pd.DataFrame(
        {"species_a": "abra", "species_b": "onix", "move_a": "psychic", "move_b": "dig"}, index=range(300)
    )
    return table.assign(wins_a=rng.binomial(50, p), n_battles=50), p


def line(figure: plt.Figure, label: str) -> np.ndarray:
    lines = [candidate for axes in figure.axes for candidate in axes.lines if candidate.get_label() == label]
    return np.column_stack([np.asarray(values, dtype=object) for values in lines[0].get_data()])


def test_reliability_shows_the_table(battles: tuple[pd.DataFrame, np.ndarray]) -> None:
    table = evaluation.calibration_table(*battles)
    figure = plots.reliability(table)
    assert (line(figure, "model") == table[["predicted", "observed"]].to_numpy()).all()
    assert [bar.get_height() for bar in figure.axes[1].patches] == table["n_battles"].tolist()
    intervals = pd.DataFrame({"low": table["observed"] - 0.1, "high": table["observed"] + 0.1})
    drawn = plots.reliability(table, intervals).axes[0].collections[0].get_segments()
    assert np.allclose([segment[:, 1] for segment in drawn], intervals)


def test_importance_shows_the_largest_on_top() -> None:
    table = pd.DataFrame({"gain": [0.5, 0.3, 0.2]}, index=["turns_saved", "speed", "hp"])
    axes = plots.importance(table, n_features=2).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.3, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["speed", "turns saved"]


def test_learning_curve_shows_the_table() -> None:
    table = pd.DataFrame(
        {
            "n_matchups": [100, 200],
            "training": [0.1, 0.15],
            "held_out": [0.3, 0.2],
            "low": [0.2, 0.1],
            "high": [0.4, 0.3],
            "bayes": 0.12,
        }
    )
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


def test_a_picture_names_species_and_moves_of_the_game() -> None:
    row = {"species_a": "mewtwomegay", "move_a": "solarbeam", "species_b": "mrmime", "move_b": "random"}
    table = pd.DataFrame([row | {"observed": 0.4, "predicted": 0.9}])
    names = "Mewtwo-Mega-Y (Solar Beam) – Mr. Mime (random)"
    assert line(plots.largest_errors(table), "predicted")[0, 1] == names
    parts = pd.DataFrame({"log_odds": [1.0, 1.0]}, index=["speed", "sum"])
    panels = plots.explanations(pd.concat({explanation.labels(table)[0]: parts}, names=["matchup", "feature"])).axes
    assert panels[0].get_title(loc="left") == names
    own = table.drop(columns=["move_a", "move_b"])
    assert line(plots.largest_errors(own), "predicted")[0, 1] == "mewtwomegay – mrmime", "an id of your own"


def test_advice_shows_the_best_moves_and_that_of_the_policy() -> None:
    moves = {"move_a": ["shadowball", "psychic", "surf"], "move_b": "icebeam", "policy": ["", "", "best_move"]}
    table = pd.DataFrame(moves | {"predicted": [0.9, 0.5, 0.2], "simulated": [0.8, 0.6, 0.1]})
    figure = plots.advice(table, "mewtwomegay", "mew", n_moves=1)
    rows = line(figure, "predicted")[::-1].tolist()
    assert rows == [[0.9, "Shadow Ball – Ice Beam"], [0.2, "Surf – Ice Beam (best_move)"]]
    assert figure.axes[0].get_title(loc="left") == "Mewtwo-Mega-Y (A) against Mew (B)"


def test_mean_contributions_show_the_largest_on_top() -> None:
    axes = plots.mean_contributions(pd.Series({"turns_saved": 1.5, "speed": 0.5, "hp": 0.1}), n_features=2).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.5, 1.5]


def test_explanations_give_every_matchup_its_panel_and_the_sum_in_grey() -> None:
    parts = pd.DataFrame({"log_odds": [1.0, -0.4, 0.1, 0.7]}, index=["speed", "hp", "all others", "sum"])
    table = pd.concat({"abra – onix": parts, "onix – abra": -parts}, names=["matchup", "feature"])
    figure = plots.explanations(table)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["abra – onix", "onix – abra"]
    for axes, matchup in zip(figure.axes, ("abra – onix", "onix – abra"), strict=True):
        shown = [bar.get_width() for bar in axes.patches][::-1]
        assert shown == table.loc[matchup, "log_odds"].tolist()
        colours = [bar.get_facecolor() for bar in axes.patches][::-1]
        assert colours == [to_rgba(plots.A_COLOUR if width > 0 else plots.B_COLOUR) for width in shown[:3]] + [
            to_rgba(plots.GREY)
        ]


def test_two_shares_joins_the_two_columns() -> None:
    table = pd.DataFrame({"predicted": [0.9, 0.2], "simulated": [1.0, 0.0]}, index=["psychic", "surf"])
    figure = plots.two_shares(table, "P(A wins)", "title")
    assert line(figure, "predicted")[::-1].tolist() == [[0.9, "psychic"], [0.2, "surf"]]
    assert line(figure, "simulated")[::-1, 0].tolist() == [1.0, 0.0]


def test_excesses_show_values_and_intervals_by_protocol() -> None:
    index = pd.MultiIndex.from_product([["pair", "both_unseen"], ["raw", "mechanics"]])
    columns = {"value": [100, 20, 150, 30], "low": [80, 15, 90, -1], "high": [130, 30, 200, 50]}
    table = pd.DataFrame(columns, index=index)
    figure = plots.excesses(table)
    axes = figure.axes[0]
    for name in ("raw", "mechanics"):
        assert line(figure, name)[:, 0].tolist() == table.xs(name, level=1)["value"].tolist()
    drawn = [[segment[:, 0].tolist() for segment in lines.get_segments()] for lines in axes.collections]
    assert drawn == [[[80, 130], [90, 200]], [[15, 30], [-1, 50]]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["pair", "both unseen"]
    assert axes.get_xlim()[0] <= -1
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert [text for text in labels if not text.startswith("-")] == ["0", "1", "3", "10", "30", "100", "300"]


def test_type_outcomes_put_shares_beside_the_chart() -> None:
    chart = dex.type_chart()
    share = chart.drop(index="fire").reindex(chart.index) / 2
    left, right = plots.type_outcomes(chart, share).axes
    assert sum(text.get_text() == "½" for text in left.texts) == (chart == 0.5).sum().sum()
    assert len(right.texts) == 17 * 18
    assert sum(text.get_text() == "100" for text in right.texts) == (share == 1).sum().sum()
    assert right.get_facecolor() == to_rgba(plots.PALE), "a combination without a share"


def test_protocols_show_held_out_families_and_no_species_against_itself() -> None:
    families = dex.species()["evolution_line"]
    panels = plots.protocols(splits.parts_of_pairs(matchups.pairs(), families), families).axes
    assert [len(axes.lines) for axes in panels] == [0, 2, 2], "pair holds out no family"
    for axes in panels:
        cells = axes.images[0].get_array()
        assert (np.diagonal(cells) == cells.max()).all() and (cells == cells.max()).sum() == len(cells)


def test_win_counts_show_a_group_of_bars_a_policy() -> None:
    table = pd.DataFrame([[0.5, 0.1, 0.4], [0.2, 0.6, 0.2]], index=["best_move", "random_move"])
    axes = plots.win_counts(table).axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert np.allclose(heights, 100 * table.to_numpy())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["best move", "random move"]
    assert axes.get_xlabel() == "wins in 2 battles"


def test_type_chart_marks_strength() -> None:
    axes = plots.type_chart(dex.type_chart()).axes[0]
    assert sum(text.get_text() == "0" for text in axes.texts) == (dex.type_chart() == 0).sum().sum()
    assert len(axes.get_xticklabels()) == len(axes.get_yticklabels()) == 18


def test_figures_are_left_to_the_caller() -> None:
    plots.type_chart(dex.type_chart())
    assert plt.get_fignums() == []
