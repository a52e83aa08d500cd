"""``python -m pokebattle``: see :mod:`pokebattle.cli`."""

import os
import sys

from pokebattle.cli import main

if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reading program has closed the pipe, as in `runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    raise SystemExit(code)
