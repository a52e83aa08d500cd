"""``python -m nbtrack accounts``: who may log in to the shared server, and as what."""

import argparse
import os
import sys

from nbtrack.files import read_json
from nbtrack.team import accounts
from nbtrack.team import settings as s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "action",
        choices=["list", "apply", "add", "role", "password", "remove"],
        nargs="?",
        default="list",
        help="apply sees to the roles and the accounts that .env names; the others need NAME",
    )
    parser.add_argument("name", nargs="?", help="the account")
    parser.add_argument("--role", choices=list(accounts.ROLES), default="team", help="what it may do (default: team)")
    parser.add_argument("--password-stdin", action="store_true", help="read the password; else a random one is shown")


def run(arguments: argparse.Namespace) -> int:
    """Do it as the administrator; 1 when a setting or the server refuses it."""
    say = sys.stdout.write
    if arguments.action not in {"list", "apply"} and not arguments.name:
        raise s.SettingsError(f"accounts {arguments.action}: expected the account's name, got none")
    settings = s.load()
    server = accounts.Server(_uri(settings), s.login(settings, "ADMIN"))
    if arguments.action == "apply":
        for remark in accounts.apply(server, settings) or ["roles and accounts are as .env says"]:
            say(f"{remark}\n")
    elif arguments.action == "list":
        for account in accounts.listed(server):
            say(f"{account.name:<24} {'admin' if account.admin else ', '.join(account.roles) or 'no role'}\n")
    elif arguments.action == "role":
        accounts.give_role(server, arguments.name, arguments.role)
        say(f"{arguments.name} has the role {arguments.role}: {accounts.PURPOSES[arguments.role]}\n")
    elif arguments.action == "remove":
        accounts.remove(server, arguments.name)
        say(f"{arguments.name} cannot log in any more\n")
    else:
        _set(arguments, server)
    return 0


def _set(arguments: argparse.Namespace, server: accounts.Server) -> None:
    """Make an account, or give one another password, and show a random one."""
    word = sys.stdin.readline().rstrip("\n") if arguments.password_stdin else accounts.random_password()
    account = s.Login(arguments.name, word)
    if arguments.action == "add":
        accounts.add(server, account, arguments.role)
        text = f"{account.name} has the role {arguments.role}: {accounts.PURPOSES[arguments.role]}\n"
    else:
        accounts.set_password(server, account)
        text = f"{account.name} has another password\n"
    sys.stdout.write(text if arguments.password_stdin else f"{text}password: {word}\n")


def _uri(settings: dict[str, str]) -> str:
    """Return the shared server's address: ``MLFLOW_TRACKING_URI``, else that of this machine."""
    record = read_json(s.folder() / "server.json").get("uri")
    here = f"http://127.0.0.1:{settings.get('MLFLOW_PORT') or 5000}"
    return str(os.environ.get("MLFLOW_TRACKING_URI") or record or here).rstrip("/")
