"""The description at the top of a run's page."""

from typing import Any

import pytest

from nbtrack.sender.description import COLUMNS, LONGEST, ROWS, page


def fit(cell: int | None = 1, attempt: int = 1, model: str = "xgboost", loss: Any = (0.5, 0.25), **given: Any) -> Any:
    return {
        "attempt": attempt,
        "cell": cell,
        "name": model,
        "model": model,
        "shape": [40, 2],
        "seconds": 0.12345,
        "params": given,
        "history": {"loss": list(loss)} if loss else {},
    }


def without(name: str, fit: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fit.items() if key != name}


HEAD = "| cell | fit | data | seconds | depth | loss |\n|---|---|---|---|---|---|"
SAME = "| cell | fit | data | seconds | loss |\n|---|---|---|---|---|"
ROW = "| [1] | xgboost | 40 × 2 | 0.123 | 6 | 0.25 |"
SECOND = "The run shows attempt 2; the earlier ones are child runs."
HELD = "Parameters, on the run itself once it ends: depth `6`, version `v3`"

PAGES: dict[str, tuple[tuple[str, list[str], list[Any], dict[str, str]], str]] = {
    "nothing": (("", [], [], {}), ""),
    "a text": (("Trained on *v3*.", [], [], {}), "Trained on *v3*."),
    "one fit, which the run shows": (("", [], [fit(depth=6)], {}), ""),
    "equal fits": (("", [], [fit(depth=6), fit(depth=6)], {}), ""),
    "equal fits in two cells": (("", [], [fit(1, depth=6), fit(2, depth=6)], {}), ""),
    "equal fits that took other values": (("", [], [fit(depth=6), fit(depth=6, loss=[1.0])], {}), ""),
    "fits that differ": (
        ("", [], [fit(depth=6), fit(2, depth=3)], {}),
        f"{HEAD}\n{ROW}\n| [2] | xgboost | 40 × 2 | 0.123 | 3 | 0.25 |",
    ),
    "other order of equal parameters": (("", [], [fit(a=1, b=2), fit(b=2, a=1)], {}), ""),
    "two models": (
        ("", [], [fit(), fit(2, model="Logistic", loss=None)], {}),
        f"{SAME}\n| [1] | xgboost | 40 × 2 | 0.123 | 0.25 |\n| [2] | Logistic | 40 × 2 | 0.123 |  |",
    ),
    "a parameter that only one has": (
        ("", [], [fit(depth=6), fit(2)], {}),
        f"{HEAD}\n{ROW}\n| [2] | xgboost | 40 × 2 | 0.123 |  | 0.25 |",
    ),
    "a fit without a shape, a cell, a name and curves": (
        ("", [], [without("history", without("shape", fit(None, depth=6) | {"name": ""})), fit(depth=3)], {}),
        f"{HEAD}\n|  | xgboost |  | 0.123 | 6 |  |\n{ROW.replace('| 6 |', '| 3 |')}",
    ),
    "an empty curve": (
        ("", [], [fit() | {"history": {"loss": []}}], {"depth": "6", "version": "v3"}),
        f"{HELD}\n{SAME}\n| [1] | xgboost | 40 × 2 | 0.123 |  |",
    ),
    "held values": (("", [], [], {"depth": "6", "version": "v3"}), HELD),
    "held values and a fit": (
        ("", [], [fit(depth=6)], {"depth": "6", "version": "v3"}),
        f"{HELD}\n{SAME}\n| [1] | xgboost | 40 × 2 | 0.123 | 0.25 |",
    ),
    "a second attempt": (
        ("", [], [fit(depth=6), fit(2, attempt=2, depth=3)], {}),
        f"{SECOND}\n| attempt {HEAD}---|\n| 1 {ROW}\n| 2 | [2] | xgboost | 40 × 2 | 0.123 | 3 | 0.25 |",
    ),
    "a second attempt with equal fits": (
        ("", [], [fit(), fit(attempt=2)], {}),
        f"{SECOND}\n| attempt {SAME}---|\n"
        "| 1 | [1] | xgboost | 40 × 2 | 0.123 | 0.25 |\n| 2 | [1] | xgboost | 40 × 2 | 0.123 | 0.25 |",
    ),
    "failures": (
        ("", ["**Cell [1] failed:** `A`", "**Cell [3] failed:** `B`"], [], {}),
        "**Cell [1] failed:** `A`\n\n**Cell [3] failed:** `B`",
    ),
    "all of it": (
        ("Text.", ["**Cell [3] failed:** `B`"], [fit(), fit(attempt=2)], {"depth": "6", "version": "v3"}),
        f"Text.\n\n**Cell [3] failed:** `B`\n\n{HELD}\n\n{SECOND}\n| attempt {SAME}---|\n"
        "| 1 | [1] | xgboost | 40 × 2 | 0.123 | 0.25 |\n| 2 | [1] | xgboost | 40 × 2 | 0.123 | 0.25 |",
    ),
}


@pytest.mark.parametrize(("given", "expected"), PAGES.values(), ids=PAGES)
def test_a_page_says_what_the_run_does_not_show(given: Any, expected: str) -> None:
    assert page(*given) == expected


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a|b", "a\\|b"),
        ("a`b", "a'b"),
        ("a\nb", "a b"),
        (80 * "x" + "y", 80 * "x"),
        (79 * "x" + "|y", 79 * "x" + "\\|"),
        (None, "None"),
        (0.1, "0.1"),
    ],
)
def test_a_value_stays_in_its_cell(value: Any, shown: str) -> None:
    lines = page("", [], [fit(depth=value), fit(depth=3)], {}).splitlines()
    assert lines[2] == f"| [1] | xgboost | 40 × 2 | 0.123 | {shown} | 0.25 |"
    assert page("", [], [], {"depth": value}).endswith(f"depth `{shown}`")


@pytest.mark.parametrize(
    ("end", "shown"), [(0.123456789, "0.123457"), (1e-12, "1e-12"), (float("nan"), "nan"), (2, "2")]
)
def test_a_curve_is_shown_by_its_last_value(end: float, shown: str) -> None:
    assert page("", [], [fit(loss=[9.0, end])], {"a": "1"}).endswith(f"| {shown} |")


@pytest.mark.parametrize(("number", "cut"), [(2, False), (ROWS, False), (ROWS + 1, True), (3 * ROWS, True)])
def test_of_many_fits_the_last_are_shown(number: int, cut: bool) -> None:
    lines = page("", [], [fit(n, depth=n) for n in range(number)], {}).splitlines()
    rows = [line for line in lines if line.startswith("| [")]
    assert len(rows) == min(number, ROWS) and rows[-1].startswith(f"| [{number - 1}] ")
    first = f"The last {ROWS} of {number} fits (`fits.json` has all):"
    assert (lines[0] == first) == cut and len(lines) == len(rows) + 2 + cut


def test_a_table_has_few_columns() -> None:
    fits = [
        fit(**{f"p{n}": value for n in range(20)}) | {"history": {f"c{n}": [1.0] for n in range(20)}} for value in "ab"
    ]
    head = page("", [], fits, {}).splitlines()[0].strip("| ").split(" | ")
    assert head[4:] == [f"p{n}" for n in range(COLUMNS)] + [f"c{n}" for n in range(COLUMNS)]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * LONGEST, LONGEST),
        ("line\n" * (LONGEST // 5), LONGEST),
        ("line\n" * (LONGEST // 5 + 1), LONGEST - 1),
        ("x" * (LONGEST + 1), LONGEST),
        ("x" * 20 + "\n" + "y" * LONGEST, LONGEST),
        ("x" * (LONGEST - 20) + "\n" + "y" * LONGEST, LONGEST - 20),
    ],
    ids=["fits", "lines fit", "lines", "one line", "a long line below a short one", "a short line below a long one"],
)
def test_a_long_page_is_cut_where_a_line_ends_unless_that_line_is_very_long(text: str, kept: int) -> None:
    shown = page(text, [], [], {})
    assert shown == (text if len(text) <= LONGEST else text[:kept] + "\n\n…")


def test_many_held_values_do_not_hide_each_other() -> None:
    assert page("", [], [], {f"p{n}": 60 * "x" for n in range(200)}).startswith("Parameters, on the run itself")
