"""``python -m pokebattle``: see :mod:`pokebattle.cli`."""

from pokebattle.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
