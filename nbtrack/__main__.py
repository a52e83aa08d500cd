"""``python -m nbtrack``: see `nbtrack.cli`."""

from nbtrack.cli import main

if __name__ == "__main__":
    main()
