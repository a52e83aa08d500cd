"""Accounts and roles of the shared server, managed through MLflow's REST API as its administrator."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbtrack.mlflow_rest import MlflowRest, ServerError
from nbtrack.team.settings import PASSWORDS, Login, SettingsError, check_name, check_password, login

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


class AccountsClient(MlflowRest):
    """A client of the shared server that logs in with one account, whatever the environment contains.

    Except for `logs_in`, the account has to be an administrator's.

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

    def apply(self, settings: Mapping[str, str]) -> list[str]:
        """Create missing roles and the accounts of ``MLFLOW_TEAM_*`` and ``MLFLOW_PROMOTER_*``.

        Existing accounts are not changed, except that one without a role gets its role.

        Parameters
        ----------
        settings : mapping
            As in ``.env``.

        Returns
        -------
        remarks : list of str
            What was created, and what does not agree with the settings.

        Raises
        ------
        SettingsError
            If a setting is missing or invalid, or the server refuses or does not answer.
        ServerError, OSError
            As `logs_in`.
        """
        self.update_roles()
        remarks, known = [], {account.name: account for account in self.listed()}
        for kind, role in (("TEAM", "team"), ("PROMOTER", "promoter")):
            wanted, variable = login(settings, kind), PASSWORDS[kind]
            if wanted.name not in known:
                self.add(wanted, role)
                remarks.append(f"created the account {wanted.name} ({role}); its password is {variable}")
            elif not known[wanted.name].roles:
                self.give_role(wanted.name, role)
                remarks.append(f"the account {wanted.name} has the role {role} now")
            elif not AccountsClient(self.uri, wanted).logs_in():
                remarks.append(f"the password of {wanted.name} differs from {variable} and was not changed")
        return remarks

    def update_roles(self) -> None:
        """Create missing roles, and give every role exactly the permissions in `ROLES`.

        Raises
        ------
        SettingsError
            If the server refuses or does not answer.
        """
        known = self._roles()
        for name, grants in ROLES.items():
            if name not in known:
                fields = {"name": name, "workspace": WORKSPACE, "description": PURPOSES[name]}
                known[name] = self._ask("POST", f"{API}roles/create", **fields)["role"]["id"]
            given = self._ask("GET", f"{API}roles/permissions/list", role_id=known[name])["role_permissions"]
            have = {(one["resource_type"], one["resource_pattern"], one["permission"]): one["id"] for one in given}
            want = {(kind, "*", permission) for kind, permission in grants.items()}
            for grant in have.keys() - want:
                self._ask("DELETE", f"{API}roles/permissions/remove", role_permission_id=have[grant])
            for kind, pattern, permission in sorted(want - have.keys()):
                fields = {"resource_type": kind, "resource_pattern": pattern, "permission": permission}
                self._ask("POST", f"{API}roles/permissions/add", role_id=known[name], **fields)

    def listed(self) -> list[Account]:
        """Return the server's accounts with their roles, sorted by name.

        Raises
        ------
        SettingsError
            If the server refuses or does not answer.
        """
        accounts = []
        for user in self._ask("GET", "users/list")["users"]:
            roles = sorted(role["name"] for role in user["roles"] if role["name"] in ROLES)
            accounts.append(Account(user["username"], user["is_admin"], roles))
        return sorted(accounts, key=lambda account: account.name)

    def add(self, account: Login, role: str) -> None:
        """Create an account with a role.

        Parameters
        ----------
        account : Login
        role : {"reader", "team", "promoter"}

        Raises
        ------
        SettingsError
            If an account of that name exists, the name, the password or the role is not allowed, or the server refuses
            or does not answer.
        """
        _check_role(role)
        check_name(account.name)
        check_password(account.password)
        if account.name in {known.name for known in self.listed()}:
            raise SettingsError(
                f"the account {account.name} exists already; `accounts role` and `accounts password` change it"
            )
        self._ask("POST", "users/create", username=account.name, password=account.password)
        self.give_role(account.name, role)

    def give_role(self, name: str, role: str) -> None:
        """Give an account a role and take away its other roles.

        Parameters
        ----------
        name : str
            The account.
        role : {"reader", "team", "promoter"}

        Raises
        ------
        SettingsError
            If the role is unknown, or the server refuses or does not answer.
        """
        _check_role(role)
        known = self._roles()
        if role not in known:
            self.update_roles()
            known = self._roles()
        held = self._ask("GET", f"{API}users/roles/list", username=name)["roles"]
        for one in held:
            if one["name"] in ROLES and one["name"] != role:
                self._ask("DELETE", f"{API}roles/unassign", username=name, role_id=one["id"])
        if role not in {one["name"] for one in held}:
            self._ask("POST", f"{API}roles/assign", username=name, role_id=known[role])

    def set_password(self, account: Login) -> None:
        """Change an account's password.

        Parameters
        ----------
        account : Login
            The account with its new password.

        Raises
        ------
        SettingsError
            If the password is not allowed, or the server refuses or does not answer.
        """
        check_password(account.password)
        proof = {"current_password": self.account.password} if account.name == self.account.name else {}
        self._ask("PATCH", "users/update-password", username=account.name, password=account.password, **proof)

    def remove(self, name: str) -> None:
        """Delete an account; what it wrote remains.

        Parameters
        ----------
        name : str

        Raises
        ------
        SettingsError
            If it is the account of this client, or the server refuses or does not answer.
        """
        if name == self.account.name:
            raise SettingsError(f"{name} is the administrator account of this command and cannot be removed")
        self._ask("DELETE", "users/delete", username=name)

    def logs_in(self) -> bool:
        """Return whether the server accepts the account's password; it need not be the administrator's.

        Raises
        ------
        ServerError, OSError
            As `MlflowRest.call`, except for status 401.
        """
        try:
            self.call("GET", "users/current")
            return True
        except ServerError as error:
            if error.status == 401:
                return False
            raise

    def _roles(self) -> dict[str, int]:
        """Return the ids of the server's roles by name."""
        roles = self._ask("GET", f"{API}roles/list")["roles"]
        return {one["name"]: one["id"] for one in roles if one["workspace"] == WORKSPACE}

    def _ask(self, method: str, path: str, /, **fields: Any) -> dict[str, Any]:
        """Call the server, and translate its errors into `SettingsError` with a message for the administrator."""
        try:
            return self.call(method, path, **fields)
        except ServerError as error:
            if error.status == 401:
                raise SettingsError(
                    f"{self.uri} refuses the password of {self.account.name}: MLFLOW_ADMIN_PASSWORD sets the password "
                    "at the first start only; after a change, write the new one into .env"
                ) from None
            if error.status == 403:
                raise SettingsError(f"{self.account.name} is no administrator of {self.uri}") from None
            if error.status == 404 and path == "users/list":
                raise SettingsError(f"{self.uri} has no accounts: MLFLOW_ENABLE_AUTH is off there") from None
            raise SettingsError(f"{self.uri}: {error.message or error}") from None
        except OSError as error:
            raise SettingsError(f"no MLflow server answers at {self.uri} ({error})") from None


def random_password() -> str:
    """Return a random password of 24 characters."""
    return secrets.token_urlsafe(18)


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise SettingsError(f"role: expected one of {', '.join(ROLES)}, got {role!r}")
