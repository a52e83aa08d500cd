"""README and docs/ agree with the repository: links, anchors, make targets, commands, and the lock of the site."""

import re
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement

from pokebattle.cli import VERBS

LONGEST = 8000  # bytes of the README
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`]*`")


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[Path, str]:
    """The text of every page by its path."""
    return {path: path.read_text("utf-8") for path in [root / "README.md", *sorted((root / "docs").glob("*.md"))]}


def links(text: str) -> Iterator[str]:
    """Yield the targets of a page's links within the repository; text in code is no link."""
    for link in LINK.finditer(CODE.sub("", FENCE.sub("", text))):
        if not re.match(r"[a-z][a-z0-9+.-]*:", link["target"]):
            yield link["target"]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    seen: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = seen[anchor] = seen.get(anchor, -1) + 1
        names.add(f"{anchor}-{number}" if number else anchor)
    return names


def broken(page: Path, pages: dict[Path, str]) -> list[str]:
    """Return the links of a page that lead nowhere."""
    targets = []
    for target in links(pages[page]):
        name, _, anchor = unquote(target).partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(pages.get(path, ""))):
            targets.append(target)
    return targets


def test_readme_is_one_short_page(root: Path) -> None:
    assert len((root / "README.md").read_bytes()) <= LONGEST


def test_every_link_resolves(root: Path, pages: dict[Path, str]) -> None:
    wrong = {str(page.relative_to(root)): targets for page in pages if (targets := broken(page, pages))}
    assert wrong == {}


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b` c!\n[1](#a-b-c) [2](#a) [3](gone.md) [4](page.md#d) [5](https://a.example) `[6](gone)`\n")
    assert broken(page, {page: page.read_text()}) == ["#a", "gone.md", "page.md#d"]


def test_every_page_is_reachable_from_the_index(root: Path, pages: dict[Path, str]) -> None:
    index = root / "docs" / "index.md"
    reached, todo = {index}, [index]
    while todo:
        page = todo.pop()
        linked = {(page.parent / unquote(target.partition("#")[0])).resolve() for target in links(pages[page])}
        new = (linked & set(pages)) - reached
        reached |= new
        todo += sorted(new)
    notebooks = {(index.parent / target).resolve() for target in links(pages[index]) if target.endswith(".ipynb")}
    assert set(pages) - reached == {root / "README.md"}
    assert notebooks == set((root / "notebooks").glob("*.ipynb"))


def test_every_make_target_exists(root: Path, pages: dict[Path, str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE))
    named = {
        name
        for text in pages.values()
        for block in [*FENCE.findall(text), *CODE.findall(FENCE.sub("", text))]
        for name in re.findall(r"(?:^|`)make (?:[A-Z]+=\S+ )*([a-z-]+)", block, re.MULTILINE)
    }
    assert {"train", "test", "docs"} <= named
    assert named - targets == set()


def test_every_command_exists(pages: dict[Path, str]) -> None:
    named = {name for text in pages.values() for name in re.findall(r"python -m pokebattle ([a-z]+)", text)}
    assert {"doctor", "promote"} <= named
    assert named - set(VERBS) == set()
    table = next(text for page, text in pages.items() if page.name == "scripts.md").partition("## All commands")[2]
    assert set(VERBS) == {name for name in VERBS if re.search(rf"^\| .*`{name}\b.*? \|", table, re.MULTILINE)}


def test_packages_of_the_site_are_pinned_and_hashed(root: Path) -> None:
    group = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]["docs"]
    text = (root / "docs" / "requirements.lock").read_text()
    site, main = pins(text), pins((root / "requirements.lock").read_text())
    assert [line for line in group if str(Requirement(line).specifier) not in site[Requirement(line).name]] == []
    assert [name for name in site if name in main and not site[name] <= main[name]] == []
    entries = re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]
    assert [entry.splitlines()[0] for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry)] == []
    assert re.findall(r"\S*(?:://|--(?:extra-)?index-url|--find-links|--trusted-host| @ )\S*", text) == []


def pins(lock: str) -> dict[str, set[str]]:
    """Return the versions of every package in a lock."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)(==[^\s;]+)", lock, re.MULTILINE):
        versions.setdefault(name, set()).add(version)
    return versions


@pytest.mark.parametrize("program", ["differential/compare.py", "foreign/suites.py", "foreign/readonly.py"])
def test_what_is_allowed_to_differ_is_in_the_table(
    root: Path, pages: dict[Path, str], monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """Every exception of a comparison names the row of the table of intended differences that allows it."""
    path = root / "tests" / program
    monkeypatch.syspath_prepend(str(path.parent))
    names = runpy.run_path(str(path))
    text = pages[root / "docs" / "mlflow-in-notebooks.md"]
    table = text.partition("## Intended differences")[2].partition("\n## ")[0]
    rows = [line.removeprefix("| ") for line in table.splitlines() if line.startswith("| ")][1:]
    missing = [row for row in names["ON_PURPOSE"].values() if sum(line.startswith(row) for line in rows) != 1]
    assert len(rows) > 10 and missing == []
    assert {name for name in names if name.startswith("OWN_")} <= names["ON_PURPOSE"].keys()
