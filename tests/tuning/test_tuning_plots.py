"""Figures of a search show its trials."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from pokebattle.evaluation.plots import GREY
from pokebattle.params import Range
from pokebattle.tuning import plots

LOSSES = [0.190, 0.194, 0.900, 0.188, np.nan, 0.189, 0.192]  # trial 2 is an outlier, trial 4 is pruned
SPACE = {
    "max_depth": Range(low=2, high=8),
    "learning_rate": Range(low=0.02, high=0.3, log=True),
    "reg_lambda": Range(low=0.1, high=30, log=True),
    "subsample": Range(low=0.5, high=1),
    "features": Range(choices=["raw", "mechanics"]),
}


@pytest.fixture
def search() -> Any:
    columns = {
        "state": ["pruned" if np.isnan(loss) else "complete" for loss in LOSSES],
        "log_loss": LOSSES,
        "predict_us": [9.0, 5.0, 1.0, 8.0, 2.0, 12.0, 3.0],
        "max_depth": [6, 2, 8, 5, 4, 7, 3],
        "learning_rate": [0.1, 0.02, 0.3, 0.05, 0.06, 0.07, 0.2],
        "reg_lambda": [0, 0.1, 30, 1, 2, 3, 4],  # the version's own value, which has no logarithm
        "subsample": 0.8,
        "features": ["raw", "mechanics", "raw", "raw", "raw", "mechanics", "raw"],
    }
    table = pd.DataFrame(columns).rename_axis("trial")
    return SimpleNamespace(table=table.copy, folds=SimpleNamespace(params=SimpleNamespace(search=SPACE)))


def ticks(labels: list[Any]) -> list[str]:
    return [label.get_text() for label in labels]


def points(axes: Axes, label: str) -> np.ndarray:
    found = [drawn for drawn in axes.collections if drawn.get_label() == label]
    return np.asarray(found[0].get_offsets()) if found else np.empty((0, 2))


def test_history_shows_steps_and_marks_what_is_outside(search: Any) -> None:
    axes = plots.history_picture(search).axes[0]
    steps = axes.lines[0]
    assert steps.get_drawstyle() == "steps-post"
    assert steps.get_ydata().tolist() == [0.190, 0.190, 0.190, 0.188, 0.188, 0.188, 0.188]
    assert points(axes, "complete")[:, 0].tolist() == [0, 1, 3, 5, 6]
    assert points(axes, "above the axis")[:, 0].tolist() == [2]
    assert points(axes, "pruned")[:, 0].tolist() == [4]
    low, high = axes.get_ylim()
    assert low < 0.188 and 0.194 < high < 0.2


def test_slices_show_every_parameter_on_its_whole_range(search: Any) -> None:
    figure = plots.slices_picture(search)
    panels = {axes.get_xlabel(): axes for axes in figure.axes if axes.get_xlabel()}
    assert list(panels) == list(SPACE)
    assert [panel.get_subplotspec().get_gridspec().nrows for panel in panels.values()] == [2] * 5
    assert ticks(panels["max_depth"].get_xticklabels()) == ["2", "4", "6", "8"]
    assert ticks(panels["learning_rate"].get_xticklabels()) == ["0.03", "0.1", "0.3"]
    assert ticks(panels["reg_lambda"].get_xticklabels()) == ["0.1", "1", "10"]
    assert ticks(panels["features"].get_xticklabels()) == ["raw", "mechanics"]
    for panel in panels.values():
        places = np.concatenate([np.asarray(drawn.get_offsets())[:, 0] for drawn in panel.collections])
        assert len(places) == 6 and (places > 0).all() and (places < 1).all()


def test_parallel_lines_are_visible_and_the_best_is_on_top(search: Any) -> None:
    axes = plots.parallel_picture(search).axes[0]
    lines = axes.collections[0]
    heights = np.array([segment[:, 1] for segment in lines.get_segments()])
    assert heights.shape == (6, 1 + len(SPACE)) and (heights >= 0).all() and (heights <= 1).all()
    assert heights[-1, 0] == heights[:, 0].min()
    darkness = 1 - lines.get_colors()[:, :3].mean(axis=1)
    assert darkness.min() > 0.15 and darkness.argmax() == 5
    assert ticks(axes.get_xticklabels()) == ["log-loss", *SPACE]


def test_importance_keeps_the_names_of_the_parameters() -> None:
    axes = plots.importance_picture(pd.Series({"max_depth": 0.7, "subsample": 0.3})).axes[0]
    assert ticks(axes.get_yticklabels()) == ["subsample", "max_depth"]


def test_speed_numbers_the_front(search: Any) -> None:
    axes = plots.speed_picture(search).axes[0]
    assert ticks(axes.texts) == ["2", "6", "3"]
    assert axes.lines[0].get_xdata().tolist() == [1.0, 3.0, 8.0]
    assert to_rgba(GREY) == tuple(axes.collections[0].get_facecolor()[0])


def test_one_trial_is_enough(search: Any) -> None:
    search.table = search.table().head(1).copy
    for draw in (plots.history_picture, plots.slices_picture, plots.parallel_picture, plots.speed_picture):
        draw(search).canvas.draw()
