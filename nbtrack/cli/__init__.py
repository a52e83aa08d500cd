"""The command line: one module a verb, whose ``command`` is a click command that returns its exit code."""

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from nbtrack.errors import UserError

VERBS = {
    "server": "Start, stop or show the local MLflow server",
    "shared": "Start, stop or show the team's server without Docker",
    "accounts": "List, add, change and remove the accounts of the team's server",
    "backup": "Save the team's server to one file",
    "restore": "Restore the team's server from a backup",
    "doctor": "Check tracking: is it on, where do runs go, what waits, what is wrong, how to repair it",
    "sync": "Deliver what waits",
    "runs": "List the latest executions of this machine",
}


class Choice(click.Choice[str]):
    """A choice whose error also names the nearest value."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return click's message and the nearest value, in the words that click uses for options and commands.

        Parameters
        ----------
        value : Any
            The invalid value.
        ctx : click.Context, optional
        """
        from difflib import get_close_matches

        near = get_close_matches(str(value), self.choices, 1)
        return super().get_invalid_choice_message(value, ctx) + (f" Did you mean {near[0]!r}?" if near else "")


class VerbGroup(click.Group):
    """A group that imports only the module of the verb that runs.

    An error that the user can correct, or one of the operating system, is one line on stderr and the exit code 1.

    Parameters
    ----------
    name : str
    packages : mapping of str to mapping of str to str
        For each package of verbs, its verbs and their short help.
    help : str
    errors : tuple of exception types
        Further errors that the user can correct.
    """

    def __init__(
        self, name: str, packages: Mapping[str, Mapping[str, str]], help: str, errors: tuple[type[Exception], ...] = ()
    ) -> None:
        listed = {
            verb: click.Command(verb, short_help=text) for verbs in packages.values() for verb, text in verbs.items()
        }
        super().__init__(name, listed, help=help, context_settings={"help_option_names": ["-h", "--help"]})
        self._modules = {verb: f"{package}.{verb}" for package, verbs in packages.items() for verb in verbs}
        self._errors: tuple[type[Exception], ...] = (UserError, OSError, *errors)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of their tables.

        Parameters
        ----------
        ctx : click.Context
        """
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the verb's module and return name, command and the remaining arguments.

        Parameters
        ----------
        ctx : click.Context
        args : list of str
        """
        verb, listed, rest = super().resolve_command(ctx, args)
        if verb is None or listed is None:  # shell completion resolves what is not yet complete
            return verb, listed, rest
        return verb, importlib.import_module(self._modules[verb]).command, rest

    def invoke(self, ctx: click.Context) -> None:
        """Run the verb, and exit with the code that it returns.

        Parameters
        ----------
        ctx : click.Context

        Raises
        ------
        click.ClickException
            If the verb ends with an error that the user can correct.
        """
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # the reading program has closed the pipe, as in `runs | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except self._errors as error:
            raise click.ClickException(str(error)) from error
        ctx.exit(code)


main = VerbGroup("nbtrack", {__name__: VERBS}, "Notebook executions as MLflow runs.")
