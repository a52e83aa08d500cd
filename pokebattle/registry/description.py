"""Descriptions of versions and models in MLflow: gates and history as Markdown, below the text that people wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pokebattle.registry.stages import Model, Version

GATES, HISTORY, STAGES = "## Gates", "## History", "## Stages"
LIMIT = 5000  # characters of a description, the limit of MLflow's database
CELL = 160  # characters of a table's cell
EARLIER = "Earlier moves: `python -m pokebattle history`."


def of_version(description: str, events: Sequence[Mapping[str, Any]] = (), gates: str = "") -> str:
    """Return a version's description with the table of its gates and its history, oldest move first.

    If it would be longer than `LIMIT`, the oldest moves are left out.

    Parameters
    ----------
    description : str
        The present description. The text before the first of our headings is kept; so is the section of the gates if
        `gates` is empty.
    events : sequence of mapping
        The moves, see `stages.Version.events`.
    gates : str
        The new report, see `gate_report.Report.markdown`.
    """
    text_before, sections = _sections(description)
    gates = gates or sections.get(GATES, "")
    head = [text_before] + ([f"{GATES}\n\n{gates}"] if gates else [])
    rows = [
        (event["when"][:19].replace("T", " "), f"{event['from']} → {event['to']}", event["by"], event["why"])
        for event in events
    ]
    return _fitted(head, HISTORY, ("when, UTC", "move", "who", "why"), rows)


def of_model(model: Model, holders: Mapping[str, Version]) -> str:
    """Return a registered model's description: the version in each stage, and who moved it there, when and why.

    Parameters
    ----------
    model : Model
    holders : mapping of str to Version
        The version in each stage, lowest stage first. The gates of the last one are included if there is room.
    """
    text_before, _ = _sections(model.description)
    rows = []
    for stage, version in reversed([*holders.items()]):
        last = version.events[-1] if version.events else {"when": "", "by": "", "why": ""}
        link = f"[version {version.number}](#/models/{model.name}/versions/{version.number})"
        rows.append((stage, link, last["when"][:19].replace("T", " "), last["by"], last["why"]))
    text = _fitted([text_before], STAGES, ("stage", "version", "since, UTC", "who", "why"), rows)
    if holders:
        highest = list(holders.values())[-1]
        gates = _sections(highest.description)[1].get(GATES, "")
        shown = f"{text}\n\n{GATES}\n\nOf version {highest.number}.\n\n{gates}"
        text = shown if gates and len(shown) <= LIMIT else text
    return text


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table.

    Parameters
    ----------
    heads : sequence of str
        Headers of the columns.
    rows : sequence of sequence of str
        Cells; longer ones are cut to `CELL` characters.
    """
    lines = [heads, ["---"] * len(heads), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fitted(head: Sequence[str], heading: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Join sections and a table with as many of its last rows as fit into a description."""
    for first in range(len(rows)):
        parts = [*head, f"{heading}\n\n{table(heads, rows[first:])}", *([EARLIER] if first else [])]
        if len(text := "\n\n".join(filter(None, parts))) <= LIMIT:
            return text
    return "\n\n".join(filter(None, head))[:LIMIT]


def _sections(description: str) -> tuple[str, dict[str, str]]:
    """Split a description into the text that people wrote and the sections under our headings."""
    text_before, heading = "", ""
    sections: dict[str, str] = {}
    for line in description.splitlines():
        if line in (GATES, HISTORY, STAGES):
            heading = line
        elif heading:
            sections[heading] = sections.get(heading, "") + line + "\n"
        else:
            text_before += line + "\n"
    return text_before.strip(), {name: text.strip() for name, text in sections.items()}


def _cell(text: str) -> str:
    plain = " ".join(str(text).split()).replace("|", "\\|")
    return plain if len(plain) <= CELL else f"{plain[: CELL - 1]}…"
