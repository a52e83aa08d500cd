"""``python -m pokebattle``: see `pokebattle.cli`."""

from pokebattle.cli import main

if __name__ == "__main__":
    main()
