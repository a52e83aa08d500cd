"""What MLflow's pages show of a version and of a model: gates and history as Markdown, below what people wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pokebattle.registry.stages import Model, Version

GATES, HISTORY, STAGES = "## Gates", "## History", "## Stages"
LIMIT = 5000  # characters of a description, as MLflow's tables have them
CELL = 160  # characters of a cell of a table
EARLIER = "Earlier moves: `python -m pokebattle history`."


def of_version(description: str, events: Sequence[Mapping[str, Any]] = (), gates: str = "") -> str:
    """Return a version's description with its moves, oldest first, and with the table of its gates.

    Parameters
    ----------
    description : str
        The present one: what stands in it before the first of our headings is kept, and so are the gates unless there
        are new ones.
    events : sequence of mapping
        See `stages.Version.events`.
    gates : str
        A table, as from `report.Report.markdown`.
    """
    own, sections = _sections(description)
    gates = gates or sections.get(GATES, "")
    head = [own] + ([f"{GATES}\n\n{gates}"] if gates else [])
    rows = [(event["when"][:19].replace("T", " "), f"{event['from']} → {event['to']}", event["by"], event["why"])
            for event in events]  # fmt: skip
    return _fitted(head, HISTORY, ("when, UTC", "move", "who", "why"), rows)


def of_model(model: Model, holders: Mapping[str, Version]) -> str:
    """Return a registered model's description: which version is in which stage, since when, by whom, why.

    Parameters
    ----------
    model : Model
    holders : mapping of str to Version
        By stage. Of the highest one the gates are shown, too.
    """
    own, _ = _sections(model.description)
    rows = []
    for stage, version in reversed([*holders.items()]):
        last = version.events[-1] if version.events else {"when": "", "by": "", "why": ""}
        link = f"[version {version.number}](#/models/{model.name}/versions/{version.number})"
        rows.append((stage, link, last["when"][:19].replace("T", " "), last["by"], last["why"]))
    text = _fitted([own], STAGES, ("stage", "version", "since, UTC", "who", "why"), rows)
    if holders:
        highest = list(holders.values())[-1]
        gates = _sections(highest.description)[1].get(GATES, "")
        shown = f"{text}\n\n{GATES}\n\nOf version {highest.number}.\n\n{gates}"
        text = shown if gates and len(shown) <= LIMIT else text
    return text


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fitted(head: Sequence[str], heading: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Join sections and a last one of as many of the last rows as a description has room for."""
    for first in range(len(rows)):
        parts = [*head, f"{heading}\n\n{table(heads, rows[first:])}", *([EARLIER] if first else [])]
        if len(text := "\n\n".join(filter(None, parts))) <= LIMIT:
            return text
    return "\n\n".join(filter(None, head))[:LIMIT]


def _sections(description: str) -> tuple[str, dict[str, str]]:
    """Take a description apart: what people wrote, and the sections that stand under our headings."""
    own, heading = "", ""
    sections: dict[str, str] = {}
    for line in description.splitlines():
        if line in (GATES, HISTORY, STAGES):
            heading = line
        elif heading:
            sections[heading] = sections.get(heading, "") + line + "\n"
        else:
            own += line + "\n"
    return own.strip(), {name: text.strip() for name, text in sections.items()}


def _cell(text: str) -> str:
    plain = " ".join(str(text).split()).replace("|", "\\|")
    return plain if len(plain) <= CELL else f"{plain[: CELL - 1]}…"
