"""The site: the pages of docs/ and the notebooks with their stored outputs. `make docs` builds it without a network."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]  # Sphinx's source folder, so that links to notebooks are the same as on GitHub

project = "pokebattle"
author = "the pokebattle maintainers"
extensions = ["myst_nb"]
root_doc = "docs/index"
# Sphinx walks its whole source folder: nothing but pages and notebooks is for it
exclude_patterns = [path.name for path in ROOT.iterdir() if path.name not in ("docs", "notebooks")]
exclude_patterns += ["**/.ipynb_checkpoints"]

nb_execution_mode = "off"  # stored outputs are the reference
nb_merge_streams = True
myst_enable_extensions: list[str] = []  # plain Markdown, as GitHub shows it
myst_heading_anchors = 4

html_theme = "furo"
html_title = "pokebattle"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["site"]  # index.html, which leads to docs/index.html
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}  # "edit" and "view source" would need an address

LIST = re.compile(r"^- \[(?P<title>[^\]]+)\]\((?P<page>[^)#:]+)\.(?:md|ipynb)\)", re.MULTILINE)


def setup(app: Any) -> None:
    """Make the navigation from the lists of links in index.md."""
    app.connect("source-read", _navigation)


def _navigation(app: Any, page: str, source: list[str]) -> None:
    """Append a hidden table of contents for each section of index.md that lists pages."""
    if page != root_doc:
        return
    for section in source[0].split("\n## ")[1:]:
        caption = section.partition("\n")[0]
        entries = "".join(f"{link['title']} <{link['page']}>\n" for link in LIST.finditer(section))
        if entries:
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}```\n"
