"""``python -m pokebattle``: see `pokebattle.cli`."""

from nbtrack.cli import exit_with
from pokebattle.cli import main


def program() -> None:
    """Run the command line, and end this process with its exit code."""
    exit_with(main)


if __name__ == "__main__":
    program()
