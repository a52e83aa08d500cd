"""The report of the gates of a registered version: one row per gate, with the measured value and the bound."""

from __future__ import annotations

from dataclasses import dataclass

from pokebattle.registry import description

PASSED, REFUSED, NOT_APPLICABLE, UNKNOWN = "passed", "refused", "no meaning", "not measured"


@dataclass(frozen=True)
class Gate:
    """One row of the report.

    Attributes
    ----------
    name : str
        The gate.
    value : str
        The measured value, or why it was not measured.
    bound : str
        The condition for passing; "" if the gate was not measured.
    verdict : str
        `PASSED`, `REFUSED`, `NOT_APPLICABLE` (does not apply, passes) or `UNKNOWN` (could not be measured, refuses).
    """

    name: str
    value: str
    bound: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.verdict:<12} {self.name}: {self.value}" + (f" (expected {self.bound})" if self.bound else "")


@dataclass(frozen=True)
class Report:
    """The report of all gates of a version.

    Attributes
    ----------
    name : str
        The registered model.
    version : int
    when : str
        Time of the judgement, UTC.
    gates : tuple of Gate
    battles : str
        A sentence about the battles on which the version was judged.
    file : str
        Path of the report on the version's run; "" if it was not written.
    notes : tuple of str
        What could not be written, and why.
    """

    name: str
    version: int
    when: str
    gates: tuple[Gate, ...]
    battles: str = ""
    file: str = ""
    notes: tuple[str, ...] = ()

    @property
    def refused(self) -> list[Gate]:
        """Return the gates that the version does not pass."""
        return [gate for gate in self.gates if gate.verdict in (REFUSED, UNKNOWN)]

    @property
    def passed(self) -> bool:
        """Return whether the version passes all gates."""
        return not self.refused

    @property
    def verdict(self) -> str:
        """Return the verdict in a few words, with the names of the gates that refuse the version."""
        return "passed" if self.passed else f"refused by {', '.join(gate.name for gate in self.refused)}"

    def markdown(self) -> str:
        """Return the report as Markdown, for MLflow's page of the version."""
        rows = [(gate.name, gate.value, gate.bound, gate.verdict) for gate in self.gates]
        summary = f"Judged {self.when[:19].replace('T', ' ')} UTC: **{self.verdict}**. {self.battles}".strip()
        return f"{summary}\n\n{description.table(('gate', 'measured', 'bound', 'verdict'), rows)}"
