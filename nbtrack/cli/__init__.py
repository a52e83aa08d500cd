"""The command line: one module a verb, each with ``add_arguments(parser)`` and ``run(arguments) -> exit code``."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from nbtrack.errors import UserError

VERBS = {
    "server": "start, stop or show the local MLflow server",
    "shared": "start, stop or show the team's server: PostgreSQL, and MLflow with accounts on it",
    "accounts": "who may log in to the team's server, and as what",
    "backup": "write the team's server, databases and artifacts, to one file",
    "restore": "put the team's server back to what such a file holds",
    "doctor": "is tracking on, where do runs go, what waits, what is wrong, how to mend it",
    "sync": "deliver executions that wait for their server",
    "runs": "show this machine's recent executions",
}


def dispatch(
    package: str,
    packages: Mapping[str, Mapping[str, str]],
    argv: Sequence[str] | None = None,
    errors: tuple[type[Exception], ...] = (),
) -> int:
    """Run one verb and return its exit code; only that verb's module is imported.

    An error that the user can correct, or one of the operating system, is one line on stderr and the exit code 1.

    Parameters
    ----------
    package : str
        What the user has typed behind ``python -m``.
    packages : mapping of str to mapping of str to str
        For each package of verbs, its verbs and what they do.
    argv : sequence of str, optional
        The arguments; by default those of the process.
    errors : tuple of exception types
        Further errors that the user can correct.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    found = {verb: (home, purpose) for home, verbs in packages.items() for verb, purpose in verbs.items()}
    parser = argparse.ArgumentParser(prog=f"python -m {package}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{" + ",".join(found) + "}")
    parsers = {verb: verbs.add_parser(verb, help=purpose, description=purpose) for verb, (_, purpose) in found.items()}
    if not words or words[0] not in found:
        parser.parse_args(words)
    module = importlib.import_module(f"{found[words[0]][0]}.{words[0]}")
    module.add_arguments(parsers[words[0]])
    arguments = parser.parse_args(words)
    expected: tuple[type[Exception], ...] = (UserError, OSError, *errors)
    try:
        return int(module.run(arguments))
    except BrokenPipeError:
        raise
    except expected as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb of `VERBS` and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.
    """
    return dispatch("nbtrack", {__name__: VERBS}, argv)


def exit_with(program: Callable[[], int]) -> NoReturn:
    """Run a command line, and end this process with its exit code.

    Parameters
    ----------
    program : callable
        Returns the exit code.
    """
    try:
        code = program()
        sys.stdout.flush()
    except BrokenPipeError:  # the reading program has closed the pipe, as in `runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    raise SystemExit(code)
