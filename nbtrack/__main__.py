"""``python -m nbtrack``: see `nbtrack.cli`."""

from nbtrack.cli import exit_with, main


def program() -> None:
    """Run the command line, and end this process with its exit code."""
    exit_with(main)


if __name__ == "__main__":
    program()
