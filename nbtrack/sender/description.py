"""The description of a run: what a reader wants to know first, as Markdown at the top of MLflow's page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LONGEST = 7500  # characters: MLflow stores 8,000 of a tag
COLUMNS = 8  # maximum number of differing parameters, and of curves, in a table
ROWS = 40  # maximum number of fits in a table


def page(text: str, failures: Sequence[str], fits: Sequence[Mapping[str, Any]], held: Mapping[str, str]) -> str:
    """Return the description of a run.

    Parameters
    ----------
    text : str
        The notebook's own description.
    failures : list of str
        A line for each cell whose last execution failed.
    fits : list of dict
        All fits, including those of earlier attempts, each with the number of its ``cell``.
    held : dict
        Parameters that are written to the run only when it ends, as MLflow's parameters cannot be changed.

    Returns
    -------
    str
        Markdown of at most `LONGEST` characters and a mark that it was cut.
    """
    parts, table = [text, *failures], ""
    if held:
        parts.append(
            "Parameters, on the run itself once it ends: "
            + ", ".join(f"{name} `{_plain(value)}`" for name, value in held.items())
        )
    if (attempts := max((fit["attempt"] for fit in fits), default=1)) > 1:
        parts.append(f"The run shows attempt {attempts}; the earlier ones are child runs.")
    if fits and (held or any(_what(fit) != _what(fits[0]) for fit in fits)):
        table = "\n".join(_table(fits))
    whole = "\n".join(filter(None, ["\n\n".join(filter(None, parts)), table]))
    if len(whole) <= LONGEST:
        return whole
    cut = whole[:LONGEST]
    lines = cut.rpartition("\n")[0]
    return (lines if len(lines) > LONGEST // 2 else cut) + "\n\n…"  # cut in the middle of a very long line


def _what(fit: Mapping[str, Any]) -> str:
    """Return a text that is the same for equal fits."""
    return repr((fit["model"], sorted(fit["params"].items()), fit.get("shape"), fit["attempt"]))


def _table(fits: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table of fits: where they differ, and the final values of their curves."""
    shown = list(fits[-ROWS:])
    attempts = shown[-1]["attempt"] > 1
    names = list(dict.fromkeys(name for fit in shown for name in fit["params"]))
    differing = [name for name in names if len({str(fit["params"].get(name)) for fit in shown}) > 1][:COLUMNS]
    curves = list(dict.fromkeys(name for fit in shown for name in fit.get("history") or {}))[:COLUMNS]
    columns = [*(["attempt"] if attempts else []), "cell", "fit", "data", "seconds", *differing, *curves]
    if len(shown) < len(fits):
        yield f"The last {len(shown)} of {len(fits)} fits (`fits.json` has all):"
    yield f"| {' | '.join(map(_plain, columns))} |"
    yield "|" + "---|" * len(columns)
    for fit in shown:
        ends = [(fit.get("history") or {}).get(curve) for curve in curves]
        values = [
            *([fit["attempt"]] if attempts else []),
            "" if fit["cell"] is None else f"[{fit['cell']}]",
            fit["name"] or fit["model"],
            " × ".join(map(str, fit.get("shape") or [])),
            f"{fit['seconds']:.3g}",
            *(fit["params"].get(name, "") for name in differing),
            *(f"{end[-1]:.6g}" if end else "" for end in ends),
        ]
        yield f"| {' | '.join(map(_plain, values))} |"


def _plain(value: Any) -> str:
    """Return a value as text for a table cell."""
    return str(value)[:80].replace("|", "\\|").replace("`", "'").replace("\n", " ")
