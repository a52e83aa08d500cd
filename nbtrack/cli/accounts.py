"""``python -m nbtrack accounts``: the accounts of the team's server."""

import os
import sys

import click

from nbtrack.cli import Choice
from nbtrack.files import read_json
from nbtrack.team import accounts
from nbtrack.team import settings as s


@click.command("accounts")
@click.argument(
    "action",
    type=Choice(["list", "apply", "add", "role", "password", "remove"]),
    default="list",
    metavar="[ACTION]",
    help="list, apply, add, role, password or remove; apply creates the roles and the accounts that .env names; add, "
    "role, password and remove need NAME.  [default: list]",
)
@click.argument("name", default="", help="The account.")
@click.option("--role", type=Choice(accounts.ROLES), help="What it may do; needed for role.  [default for add: team]")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin, instead of showing a random one.")
def command(action: str, name: str, role: str | None, password_stdin: bool) -> int:
    """List, add, change and remove the accounts of the team's server.

    This needs the administrator's password, from .env or the environment.
    """
    if action not in {"list", "apply"} and not name:
        raise s.SettingsError(f"accounts {action}: expected the account's name, got none")
    if action == "role" and role is None:
        raise s.SettingsError(f"accounts role: expected --role with one of {', '.join(accounts.ROLES)}, got none")
    role = role or "team"
    settings = s.load()
    if action == "apply" and not s.with_accounts(settings):
        click.echo("MLFLOW_ENABLE_AUTH is off: there are no accounts to apply")
        return 0
    server = accounts.AccountsClient(_uri(settings), s.login(settings, "ADMIN"))
    if action == "apply":
        for remark in server.apply(settings) or ["roles and accounts are as .env says"]:
            click.echo(remark)
    elif action == "list":
        for account in server.listed():
            click.echo(f"{account.name:<24} {'admin' if account.admin else ', '.join(account.roles) or 'no role'}")
    elif action == "role":
        server.give_role(name, role)
        click.echo(f"{name} has the role {role}: {accounts.PURPOSES[role]}")
    elif action == "remove":
        server.remove(name)
        click.echo(f"{name} cannot log in any more")
    else:
        word = sys.stdin.readline().rstrip("\n") if password_stdin else accounts.random_password()
        _set(server, action, s.Login(name, word), role)
        if not password_stdin:
            click.echo(f"password: {word}")
    return 0


def _set(server: accounts.AccountsClient, action: str, account: s.Login, role: str) -> None:
    """Add an account, or change the password of one."""
    if action == "add":
        server.add(account, role)
        click.echo(f"{account.name} has the role {role}: {accounts.PURPOSES[role]}")
    else:
        server.set_password(account)
        click.echo(f"{account.name} has a new password")


def _uri(settings: dict[str, str]) -> str:
    """Return the shared server's address: ``MLFLOW_TRACKING_URI``, else that of this machine."""
    record = read_json(s.folder() / "server.json").get("uri")
    default = f"http://127.0.0.1:{settings.get('MLFLOW_PORT') or 5000}"
    return str(os.environ.get("MLFLOW_TRACKING_URI") or record or default).rstrip("/")
