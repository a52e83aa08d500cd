"""Accounts of the shared server and what each role may do, by MLflow's REST API as its administrator."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pokebattle.shared.settings import Login, SettingsError, check_name, check_password, login
from pokebattle.tracking.shipping.rest import MlflowRest, ServerError

# What a role is granted of everything of a kind. The server's own rules (see app.py) take MANAGE of all versions for
# the right to promote; a role that holds no grant of a kind has no access to it.
ROLES = {
    "reader": {"experiment": "READ", "registered_model": "READ", "prompt": "READ"},
    "team": {"experiment": "EDIT", "registered_model": "EDIT", "registered_model_version": "EDIT", "prompt": "EDIT"},
    "promoter": {"experiment": "EDIT", "registered_model": "MANAGE", "registered_model_version": "MANAGE",
                 "prompt": "EDIT"},
}  # fmt: skip
PURPOSES = {
    "reader": "sees everything, writes nothing",
    "team": "writes runs in every experiment and registers model versions",
    "promoter": "team, and moves versions between stages",
}
API = "/api/3.0/mlflow/"
WORKSPACE = "default"


class Server(MlflowRest):
    """The shared server, asked as one account, whatever the environment says."""

    def __init__(self, uri: str, account: Login, timeout: float = 30.0) -> None:
        super().__init__(uri, timeout)
        self.account = account
        word = base64.b64encode(f"{account.name}:{account.password}".encode()).decode()
        self._login = {"Authorization": f"Basic {word}"}

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> bytes:
        """Send one request as the account."""
        return super().request(method, path, body, **self._login, **headers)


@dataclass(frozen=True)
class Account:
    """An account as the server tells it."""

    name: str
    admin: bool
    roles: list[str]


def apply(server: Server, settings: Mapping[str, str]) -> list[str]:
    """See to the roles and to the accounts of ``MLFLOW_TEAM_*`` and ``MLFLOW_PROMOTER_*``; what is there stays.

    Returns
    -------
    remarks : list of str
        What was made, and what does not agree with the settings.
    """
    see_to_roles(server)
    remarks, known = [], {account.name: account for account in listed(server)}
    for who, role in (("TEAM", "team"), ("PROMOTER", "promoter")):
        wanted = login(settings, who)
        if wanted.name not in known:
            add(server, wanted, role)
            remarks.append(f"made the account {wanted.name} ({role}), its password is MLFLOW_{who}_PASSWORD")
        elif not known[wanted.name].roles:
            give_role(server, wanted.name, role)
            remarks.append(f"the account {wanted.name} has the role {role} now")
        elif not logs_in(Server(server.uri, wanted)):
            remarks.append(f"the account {wanted.name} has another password than MLFLOW_{who}_PASSWORD, and keeps it")
    return remarks


def see_to_roles(server: Server) -> None:
    """Make the roles that are missing, and give every role the grants that this module names, no more and no fewer."""
    known = _roles(server)
    for name, grants in ROLES.items():
        if name not in known:
            fields = {"name": name, "workspace": WORKSPACE, "description": PURPOSES[name]}
            known[name] = _call(server, "POST", f"{API}roles/create", **fields)["role"]["id"]
        given = server.call("GET", f"{API}roles/permissions/list", role_id=known[name])["role_permissions"]
        have = {(one["resource_type"], one["resource_pattern"], one["permission"]): one["id"] for one in given}
        want = {(kind, "*", permission) for kind, permission in grants.items()}
        for grant in have.keys() - want:
            server.call("DELETE", f"{API}roles/permissions/remove", role_permission_id=have[grant])
        for kind, pattern, permission in sorted(want - have.keys()):
            server.call("POST", f"{API}roles/permissions/add", role_id=known[name], resource_type=kind,
                        resource_pattern=pattern, permission=permission)  # fmt: skip


def listed(server: Server) -> list[Account]:
    """Return the server's accounts with their roles, by name."""
    users = _call(server, "GET", "users/list")["users"]
    return sorted(
        (Account(one["username"], one["is_admin"], sorted(r["name"] for r in one["roles"] if r["name"] in ROLES))
         for one in users), key=lambda account: account.name,
    )  # fmt: skip


def add(server: Server, account: Login, role: str) -> None:
    """Make an account with a role; raises SettingsError where there is one of that name."""
    check_name(account.name)
    check_password(account.password)
    if account.name in {known.name for known in listed(server)}:
        raise SettingsError(f"{account.name} has an account: `accounts role` and `accounts password` change it")
    _call(server, "POST", "users/create", username=account.name, password=account.password)
    give_role(server, account.name, role)


def give_role(server: Server, name: str, role: str) -> None:
    """Give an account a role instead of those that it has."""
    known = _roles(server)
    if role not in known:
        see_to_roles(server)
        known = _roles(server)
    held = _call(server, "GET", f"{API}users/roles/list", username=name)["roles"]
    for one in held:
        if one["name"] in ROLES and one["name"] != role:
            server.call("DELETE", f"{API}roles/unassign", username=name, role_id=one["id"])
    if role not in {one["name"] for one in held}:
        server.call("POST", f"{API}roles/assign", username=name, role_id=known[role])


def set_password(server: Server, account: Login) -> None:
    """Give an account another password."""
    check_password(account.password)
    own = {"current_password": server.account.password} if account.name == server.account.name else {}
    _call(server, "PATCH", "users/update-password", username=account.name, password=account.password, **own)


def remove(server: Server, name: str) -> None:
    """Remove an account; what it wrote stays."""
    if name == server.account.name:
        raise SettingsError(f"{name} is the administrator that this command logs in as, and stays")
    _call(server, "DELETE", "users/delete", username=name)


def logs_in(server: Server) -> bool:
    """Tell whether the server takes the account's password."""
    try:
        server.call("GET", "users/current")
        return True
    except ServerError as error:
        if error.status == 401:
            return False
        raise


def random_password() -> str:
    """Return a password that nobody guesses."""
    return secrets.token_urlsafe(18)


def _roles(server: Server) -> dict[str, int]:
    found = _call(server, "GET", f"{API}roles/list")["roles"]
    return {one["name"]: one["id"] for one in found if one["workspace"] == WORKSPACE}


def _call(server: Server, method: str, path: str, /, **fields: Any) -> dict[str, Any]:
    """Call the server, and say what its refusals mean here."""
    try:
        return server.call(method, path, **fields)
    except ServerError as error:
        if error.status == 401:
            raise SettingsError(
                f"{server.uri} refuses the password of {server.account.name}: MLFLOW_ADMIN_PASSWORD makes the account "
                "at the first start only, and has to follow a change"
            ) from None
        if error.status == 403:
            raise SettingsError(f"{server.account.name} is no administrator of {server.uri}") from None
        if error.status == 404 and path == "users/list":
            raise SettingsError(f"{server.uri} has no accounts: MLFLOW_ENABLE_AUTH is off there") from None
        raise SettingsError(f"{server.uri}: {error.message or error}") from None
    except OSError as error:
        raise SettingsError(f"no MLflow server answers at {server.uri} ({error})") from None
