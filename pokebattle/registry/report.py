"""What the gates say of a registered version: one row a gate, with what was measured and the bound."""

from __future__ import annotations

from dataclasses import dataclass

from pokebattle.registry import page

PASSED, REFUSED, MEANINGLESS, UNKNOWN = "passed", "refused", "no meaning", "not measured"


@dataclass(frozen=True)
class Gate:
    """One row: what was looked at, what was measured, what it had to be, and whether it was."""

    name: str
    value: str
    bound: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.verdict:<12} {self.name}: {self.value}" + (f" (expected {self.bound})" if self.bound else "")


@dataclass(frozen=True)
class Report:
    """What the gates say of a version.

    Attributes
    ----------
    battles : str
        What it was judged on.
    file : str
        The report on the version's run; "" where it was not written.
    notes : tuple of str
        What was not written, and why.
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
        """The gates that do not let it pass."""
        return [gate for gate in self.gates if gate.verdict in (REFUSED, UNKNOWN)]

    @property
    def passed(self) -> bool:
        """Whether all gates let it pass."""
        return not self.refused

    @property
    def verdict(self) -> str:
        """In a few words, and who does not let it pass."""
        return "passed" if self.passed else f"refused by {', '.join(gate.name for gate in self.refused)}"

    def markdown(self) -> str:
        """Return the report for MLflow's page."""
        rows = [(gate.name, gate.value, gate.bound, gate.verdict) for gate in self.gates]
        told = f"Judged {self.when[:19].replace('T', ' ')} UTC: **{self.verdict}**. {self.battles}".strip()
        return f"{told}\n\n{page.table(('gate', 'measured', 'bound', 'verdict'), rows)}"
