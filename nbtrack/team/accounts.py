"""Accounts and roles of the shared server, managed through MLflow's REST API as its administrator."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbtrack.mlflow_rest import MlflowRest, ServerError
from nbtrack.team.settings import Login, SettingsError, check_name, check_password, login

# Permission by kind of resource, for all resources of that kind. The server's own rules (see app.py) treat MANAGE of
# all versions as the right to promote; a role without a permission for a kind has no access to it.
ROLES = {
    "reader": {"experiment": "READ", "registered_model": "READ", "prompt": "READ"},
    "team": {"experiment": "EDIT", "registered_model": "EDIT", "registered_model_version": "EDIT", "prompt": "EDIT"},
    "promoter": {
        "experiment": "EDIT",
        "registered_model": "MANAGE",
        "registered_model_version": "MANAGE",
        "prompt": "EDIT",
    },
}
PURPOSES = {
    "reader": "sees everything, writes nothing",
    "team": "writes runs in every experiment and registers model versions",
    "promoter": "team, and moves versions between stages",
}
API = "/api/3.0/mlflow/"
WORKSPACE = "default"


class Server(MlflowRest):
    """A client of the shared server that logs in with one account, whatever the environment contains.

    Parameters
    ----------
    uri : str
    account : Login
    timeout : float
        Seconds without a byte after which a call fails.
    """

    def __init__(self, uri: str, account: Login, timeout: float = 30.0) -> None:
        super().__init__(uri, timeout)
        self.account = account
        word = base64.b64encode(f"{account.name}:{account.password}".encode()).decode()
        self._login = {"Authorization": f"Basic {word}"}

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> bytes:
        """Send one request with the account's credentials.

        Parameters
        ----------
        method, path, body, **headers
            As `MlflowRest.request`, which also describes the errors.
        """
        return super().request(method, path, body, **self._login, **headers)


@dataclass(frozen=True)
class Account:
    """An account as the server returns it.

    Attributes
    ----------
    name : str
    admin : bool
    roles : list of str
        Of those in `ROLES`.
    """

    name: str
    admin: bool
    roles: list[str]


def apply(server: Server, settings: Mapping[str, str]) -> list[str]:
    """Create missing roles and the accounts of ``MLFLOW_TEAM_*`` and ``MLFLOW_PROMOTER_*``; existing accounts are kept.

    Parameters
    ----------
    server : Server
        Logged in as administrator.
    settings : mapping
        As in ``.env``.

    Returns
    -------
    remarks : list of str
        What was created, and what does not agree with the settings.

    Raises
    ------
    SettingsError
        If a setting is missing or invalid, or the server refuses.
    ServerError, OSError
        As `MlflowRest.call`.
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
    """Create missing roles, and give every role exactly the permissions in `ROLES`.

    Parameters
    ----------
    server : Server
        Logged in as administrator.

    Raises
    ------
    SettingsError
        If the server refuses to list or create roles, or does not answer.
    ServerError, OSError
        As `MlflowRest.call`.
    """
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
            server.call(
                "POST",
                f"{API}roles/permissions/add",
                role_id=known[name],
                resource_type=kind,
                resource_pattern=pattern,
                permission=permission,
            )


def listed(server: Server) -> list[Account]:
    """Return the server's accounts with their roles, sorted by name.

    Parameters
    ----------
    server : Server
        Logged in as administrator.

    Raises
    ------
    SettingsError
        If the server refuses or does not answer.
    """
    users = _call(server, "GET", "users/list")["users"]
    return sorted(
        (
            Account(one["username"], one["is_admin"], sorted(r["name"] for r in one["roles"] if r["name"] in ROLES))
            for one in users
        ),
        key=lambda account: account.name,
    )


def add(server: Server, account: Login, role: str) -> None:
    """Create an account with a role.

    Parameters
    ----------
    server : Server
        Logged in as administrator.
    account : Login
    role : {"reader", "team", "promoter"}

    Raises
    ------
    SettingsError
        If an account of that name exists, name or password are not allowed, or the server refuses.
    KeyError
        If the role is unknown; the account exists then.
    ServerError, OSError
        As `MlflowRest.call`.
    """
    check_name(account.name)
    check_password(account.password)
    if account.name in {known.name for known in listed(server)}:
        raise SettingsError(f"{account.name} has an account: `accounts role` and `accounts password` change it")
    _call(server, "POST", "users/create", username=account.name, password=account.password)
    give_role(server, account.name, role)


def give_role(server: Server, name: str, role: str) -> None:
    """Give an account a role and take away its other roles.

    Parameters
    ----------
    server : Server
        Logged in as administrator.
    name : str
        The account.
    role : {"reader", "team", "promoter"}

    Raises
    ------
    SettingsError
        If the server refuses or does not answer.
    KeyError
        If the role is unknown.
    ServerError, OSError
        As `MlflowRest.call`.
    """
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
    """Change an account's password.

    Parameters
    ----------
    server : Server
        Logged in as administrator.
    account : Login
        The account with its new password.

    Raises
    ------
    SettingsError
        If the password is not allowed, or the server refuses.
    """
    check_password(account.password)
    own = {"current_password": server.account.password} if account.name == server.account.name else {}
    _call(server, "PATCH", "users/update-password", username=account.name, password=account.password, **own)


def remove(server: Server, name: str) -> None:
    """Delete an account; what it wrote remains.

    Parameters
    ----------
    server : Server
        Logged in as administrator.
    name : str

    Raises
    ------
    SettingsError
        If it is the account that ``server`` is logged in with, or the server refuses.
    """
    if name == server.account.name:
        raise SettingsError(f"{name} is the administrator that this command logs in as, and stays")
    _call(server, "DELETE", "users/delete", username=name)


def logs_in(server: Server) -> bool:
    """Return whether the server accepts the account's password.

    Parameters
    ----------
    server : Server
        With the account.

    Raises
    ------
    ServerError, OSError
        As `MlflowRest.call`, except for status 401.
    """
    try:
        server.call("GET", "users/current")
        return True
    except ServerError as error:
        if error.status == 401:
            return False
        raise


def random_password() -> str:
    """Return a random password of 24 characters."""
    return secrets.token_urlsafe(18)


def _roles(server: Server) -> dict[str, int]:
    found = _call(server, "GET", f"{API}roles/list")["roles"]
    return {one["name"]: one["id"] for one in found if one["workspace"] == WORKSPACE}


def _call(server: Server, method: str, path: str, /, **fields: Any) -> dict[str, Any]:
    """Call the server, and translate its errors into `SettingsError` with a message for the administrator."""
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
