"""What `pytest --nbval` does not compare in the notebooks of this folder. Digits of results always count."""

import os
import tempfile

# Each of these comes with plain text that is compared, or tells of the machine and the moment.
NOT_COMPARED = (
    "text/html",  # the same table as its plain text, with ids of its own
    "image/svg+xml",
    "stderr",  # progress bars and warnings
    "application/vnd.plotly.v1+json",
    "application/javascript",
)
SANITISED = {r"(?<= at )0x[0-9a-f]{8,16}(?=>)": "0x"}  # memory addresses, as in <function f at 0x7f3a5c0b1d30>


STUDIES = tempfile.TemporaryDirectory(prefix="studies-")  # a search that goes on would compute nothing anew


def pytest_terminal_summary(terminalreporter):
    """Say how to renew stored outputs if a cell's output differs from them."""
    if any("Cell outputs differ" in report.longreprtext for report in terminalreporter.getreports("failed")):
        terminalreporter.write_line(
            "reference_output is the stored output (lines with +), test_output is the new one (lines with -). If the "
            "new one is right, store it by `make reference` and review the diff of the notebook like code."
        )


def pytest_collectstart(collector):
    """Give nbval's collector of a notebook these rules, and searches a storage of their own."""
    if collector.path.suffix == ".ipynb":
        os.environ["POKEBATTLE_STORAGE"] = f"sqlite:///{STUDIES.name}/studies.db"
        collector.skip_compare += NOT_COMPARED
        collector.sanitize_patterns.update(SANITISED)
