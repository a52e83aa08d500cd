"""Executed notebooks are the same with the product as without it.

``python tests/foreign/readonly.py [--only NAME ...] [--by EXECUTOR ...]`` executes the samples (`samples.py`) and the
project's notebooks by papermill, nbconvert, ``jupyter execute`` and nbval, in this environment, tracked on a real
server, and in the same environment without the product. It compares exit codes, the files left behind and what was
written, byte for byte outside times, ids, addresses, the environment's own folder and where a stream is cut into
pieces; with nbval, what it says of each cell of a notebook that the plain environment has executed. It names each
difference and exits with 1 if there is one, or if a sample differs from itself.

On purpose different: where a notebook's metadata has a ``pokebattle`` mapping, papermill notes there which execution it
shows.
"""

import difflib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import samples
from environments import ROOT, served, variables, without_product

OURS = ("explore", "simulate", "train", "tune", "evaluate")
OWN_NOTE = re.compile(r'(?<=\{)(\s*"execution": "[-0-9a-f]{28}"),|,(\s*"execution": "[-0-9a-f]{28}")')  # see above
ON_PURPOSE = {"OWN_NOTE": "The output notebook of papermill has"}  # a row of the table in docs/mlflow-in-notebooks.md
WIDGETS = re.compile(r'(?ms)^  "widgets": \{.*?^  \},?\n')  # compared for themselves
LINES = 60  # of a difference that are shown
LONGEST = 900  # seconds for one execution
MASKS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]?\d*(\+00:00|Z)?", "TIME"),
        (r'"duration": [\d.e-]+', '"duration": 0'),
        (r"\b[\d.e+]+ ?(ns|[mµμ]?s|min)\b( ±)?", "SECONDS"),
        (r"(\d+:)?\d\d:\d\d", "CLOCK"),
        (r"\s*[\d.?]+ ?(it/s|s/it)", "RATE"),
        (r"x[0-9a-f]{8,}\b", "ADDRESS"),
        (r"\w*kernel_\d+/\d+(\.py)?", "ipykernel.py"),  # pytest shows its end alone where all before is the same
        (r"Skipping \d+ identical", "Skipping identical"),
        (r"(?m)^(\s*)\? [ ^+-]+$", r"\1?"),
        (r"\b(id|pid|port)[=: ]+\d+", r"\1"),
        (r"/experiments/\d+", "/experiments/N"),
        (r"\b[a-z]+-[a-z]+-\d+\b", "a-random-name"),
        (r"\b\d{15}\b", "IDENT"),  # of a thread
        (r"(?<=/tmp/)[\w-]+", "FOLDER"),
    )
]
IDENTIFIER = re.compile(
    r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}|(?<=\"id\": \")[0-9a-f]{8}\b"
)


@dataclass
class Place:
    """An environment, with the variables that its programs get."""

    prefix: Path
    env: dict[str, str]

    def run(self, folder: Path, *command: str) -> int:
        """Run a program of the environment in a folder; return its exit code."""
        words = [str(self.prefix / "bin" / command[0]), *command[1:]]
        with (folder.parent / "log.txt").open("w") as log:
            done = subprocess.run(
                words, cwd=folder, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=LONGEST
            )
        return done.returncode


def papermill(place: Place, folder: Path, path: Path) -> dict[str, str]:
    """Execute a notebook by papermill."""
    given = ["-p", "n", "5", "-p", "name", "given"] if path.stem.startswith("parameters") else []
    given = ["-p", "version", "sample"] if path.stem in OURS else given
    return _left(folder, place.run(folder, "papermill", path.name, "out.ipynb", *given))


def nbconvert(place: Place, folder: Path, path: Path) -> dict[str, str]:
    """Execute a notebook by nbconvert."""
    return _left(
        folder, place.run(folder, "jupyter-nbconvert", "--to", "notebook", "--execute", "--output=out.ipynb", path.name)
    )


def jupyter_execute(place: Place, folder: Path, path: Path) -> dict[str, str]:
    """Execute a notebook by ``jupyter execute``, which writes it back."""
    return _left(folder, place.run(folder, "jupyter-execute", "--inplace", path.name))


def nbval(place: Place, folder: Path, path: Path) -> dict[str, str]:
    """Compare a notebook, of which ``reference.ipynb`` is an execution, with what its cells give now."""
    if (reference := folder.parent / "reference.ipynb").is_file():
        shutil.copy(reference, path)
    code = place.run(
        folder,
        "pytest",
        "-p",
        "no:cacheprovider",
        "--nbval",
        "--nbval-current-env",
        "--junitxml=said.xml",
        "--nbval-cell-timeout=60",
        "--rootdir=.",
        path.name,
    )
    results = {}
    for case in ElementTree.parse(folder / "said.xml").iter("testcase"):
        faults = [f"{child.tag}: {child.get('message')} {child.text}" for child in case]
        results[f"cell {case.get('name')}"] = masked("\n".join(faults) or "passed", folder)
    (folder / "said.xml").unlink()
    return _left(folder, code) | results


EXECUTORS: dict[str, Callable[[Place, Path, Path], dict[str, str]]] = {
    "papermill": papermill,
    "nbconvert": nbconvert,
    "jupyter-execute": jupyter_execute,
    "nbval": nbval,
}


def _left(folder: Path, code: int) -> dict[str, str]:
    """Return exit code and the files of a folder, without what differs from one execution to the next."""
    files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
    texts = {
        name: file.read_text("utf-8", "backslashreplace") for name, file in files.items() if "__pycache__" not in name
    }
    notebooks = [name for name in texts if name.endswith(".ipynb")]
    results = {"exit code": str(code)} | {name: masked(text, folder) for name, text in texts.items()}
    for name in notebooks:
        results[name] = masked(_joined(texts[name]), folder)
        results[f"widgets of {name}"] = masked(_widgets(texts[name]), folder)
    return results


def _joined(text: str) -> str:
    """Return a notebook in which neighbouring pieces of a stream are one: where they are cut is the kernel's timing."""
    document = json.loads(text)
    for cell in document.get("cells", []):
        outputs: list[dict[str, Any]] = []
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                output["text"] = "".join(output["text"])
                if outputs and outputs[-1].get("name") == output["name"]:
                    outputs[-1]["text"] += output["text"]
                    continue
            outputs.append(output)
        if "outputs" in cell:
            cell["outputs"] = outputs
    return json.dumps(document, indent=1, ensure_ascii=False)


def _widgets(text: str) -> str:
    """Return the states of a notebook's widgets, which are in the order of their random ids."""
    pages = json.loads(text).get("metadata", {}).get("widgets", {}).values()
    states = [json.dumps(state, indent=1, ensure_ascii=False) for page in pages for state in page["state"].values()]
    return "\n".join(sorted(IDENTIFIER.sub("ID", state) for state in states))


def masked(text: str, folder: Path) -> str:
    """Return a text without times, ids, addresses and the folders of the execution and its environment."""
    seen: dict[str, str] = {}
    text = WIDGETS.sub("", OWN_NOTE.sub("", text))
    for place in (str(folder), sys.prefix, str(folder.parents[1] / "plain")):
        text = text.replace(place, "PLACE")
    text = IDENTIFIER.sub(lambda match: seen.setdefault(match[0], f"ID{len(seen)}"), text)
    for pattern, replacement in MASKS:
        text = pattern.sub(replacement, text)
    return text


Said = tuple[str, dict[str, str]]  # by whom, and what was left by an execution


@dataclass
class Comparison:
    """Executes notebooks in both environments and keeps what differs."""

    folder: Path
    tracked: Place
    plain: Place
    differences: list[str] = field(default_factory=list)

    def execute(self, place: Place, executor: str, name: str) -> dict[str, str]:
        """Execute the notebook ``name`` in a fresh folder, of the same name for all."""
        folder = self.folder / "here" / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        path = self._write(folder, name)
        return EXECUTORS[executor](place, folder, path)

    def _write(self, folder: Path, name: str) -> Path:
        if name in OURS:
            return Path(shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", folder))
        return samples.build(folder, [name])[0]

    def compare(self, executor: str, name: str) -> dict[str, str]:
        """Execute a notebook by one executor in both environments; note each difference, return what the plain left."""
        (reference := self.folder / "here" / "reference.ipynb").unlink(missing_ok=True)
        if executor == "nbval" and name not in OURS:
            self.execute(self.plain, "jupyter-execute", name)
            shutil.copy(self.folder / "here" / "work" / f"{name}.ipynb", reference)
        one = self.execute(self.plain, executor, name)
        other = self.execute(self.tracked, executor, name)
        if one != other:
            again = self.execute(self.plain, executor, name)
            self.note(f"{name} by {executor}", ("plain", one), ("plain again", again))
            self.note(f"{name} by {executor}", ("plain", one), ("tracked", other), without=differing(one, again))
        return one

    def note(
        self,
        what: str,
        one: tuple[str, dict[str, str]],
        other: tuple[str, dict[str, str]],
        without: Set[str] = frozenset(),
    ) -> None:
        """Note each part that differs between two executions."""
        for part in sorted(differing(one[1], other[1]) - without):
            lines = [side.get(part, "(nothing)").splitlines() for _, side in (one, other)]
            shown = "\n    ".join(list(difflib.unified_diff(*lines, one[0], other[0], lineterm="", n=1))[:LINES])
            self.differences.append(f"{what}: {part}\n    {shown[:4000]}")


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    """Return the parts in which two executions differ."""
    return {part for part in one.keys() | other.keys() if one.get(part) != other.get(part)}


def names() -> list[str]:
    """Return all notebooks: the samples and the project's own."""
    return [*samples.names(), *OURS]


@click.command()
@click.option("--only", multiple=True, type=click.Choice(names()), help="a notebook; all without it")
@click.option("--by", multiple=True, type=click.Choice(list(EXECUTORS)), help="an executor; all without it")
def main(only: tuple[str, ...], by: tuple[str, ...]) -> None:
    """Compare executed notebooks with and without the product."""
    count = 0
    with served() as (state, uri), tempfile.TemporaryDirectory(prefix="readonly-") as temporary:
        folder = Path(temporary)
        comparison = comparing(folder, without_product(folder), state, uri)
        for name in only or names():
            for executor in by or EXECUTORS:
                began, known = time.monotonic(), len(comparison.differences)
                comparison.compare(executor, name)
                count += 1
                differences = comparison.differences[known:]
                click.echo(
                    f"{name} by {executor}: {'differs' if differences else 'same'} ({time.monotonic() - began:.0f} s)"
                )
                for difference in differences:
                    click.echo(f"  {difference}")
    click.echo(f"{count} executions compared, {len(comparison.differences)} differences")
    sys.exit(bool(comparison.differences))


def comparing(folder: Path, plain: Path, state: Path, uri: str) -> Comparison:
    """Return the comparison of this environment, tracked at ``uri``, with the one without the product."""
    prefixes = (Path(sys.prefix), plain)
    tracked, untracked = (Place(prefix, variables(prefix, state, uri, ROOT)) for prefix in prefixes)  # notebooks use it
    return Comparison(folder, tracked, untracked)


if __name__ == "__main__":
    main()
