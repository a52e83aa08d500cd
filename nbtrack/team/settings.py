"""The shared server's settings: the environment, else `.env`. Standard library only, for machines with only Docker."""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from nbtrack.errors import UserError
from nbtrack.files import replacing
from nbtrack.paths import project, state_dir

# Names of the settings, in `.env` and in the environment
HOST, PORT, WORKERS = "MLFLOW_HOST", "MLFLOW_PORT", "MLFLOW_WORKERS"
PUBLIC_HOST, ALLOWED_HOSTS = "MLFLOW_PUBLIC_HOST", "MLFLOW_SERVER_ALLOWED_HOSTS"
BACKEND_STORE, ARTIFACT_ROOT = "MLFLOW_BACKEND_STORE_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT"
ENABLE_AUTH, FAIL_CLOSED = "MLFLOW_ENABLE_AUTH", "MLFLOW_BASIC_AUTH_FAIL_CLOSED"
AUTH_DATABASE, AUTH_CONFIG = "MLFLOW_AUTH_DATABASE_URI", "MLFLOW_AUTH_CONFIG_PATH"
AUTH_ADMIN_USERNAME = "MLFLOW_AUTH_ADMIN_USERNAME"
AUTH_ADMIN_PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"
SECRET_KEY = "MLFLOW_FLASK_SERVER_SECRET_KEY"
USERNAMES = {kind: f"MLFLOW_{kind}_USERNAME" for kind in ("ADMIN", "TEAM", "PROMOTER")}
PASSWORDS = {kind: f"MLFLOW_{kind}_PASSWORD" for kind in USERNAMES}
DATABASE_USER, DATABASE_PASSWORD, DATABASE_NAME = "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"
DATABASE_HOST, DATABASE_PORT = "POSTGRES_HOST", "POSTGRES_PORT"
S3 = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
JUPYTER_TOKEN = "JUPYTER_TOKEN"
ENV_FILE, UID, GID = "POKEBATTLE_ENV_FILE", "POKEBATTLE_UID", "POKEBATTLE_GID"
BOOT, BOOT_HEADER = "POKEBATTLE_BOOT", "X-Pokebattle-Boot"  # a started server's id: another may use its port

SECRETS = (DATABASE_PASSWORD, PASSWORDS["ADMIN"], SECRET_KEY, PASSWORDS["TEAM"], PASSWORDS["PROMOTER"], JUPYTER_TOKEN)
MINIMUM = 12  # characters of a password, MLflow's own rule
KNOWN = {
    "password1234",
    "passwordpassword",
    "adminadminadmin",
    "changemechangeme",
    "change-me-please",
    "mlflowpassword",
    "mlflow_password",
    "mlflow-password",
    "postgrespassword",
}
LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")


class SettingsError(UserError):
    """A setting is missing or invalid; the message names it and says how to fix it."""


@dataclass(frozen=True)
class Login:
    """An account's name and password."""

    name: str
    password: str


def env_file() -> Path:
    """Return the path of the settings file: ``POKEBATTLE_ENV_FILE``, else ``.env`` in the checkout."""
    named = os.environ.get(ENV_FILE)
    return Path(named).absolute() if named else project() / ".env"


def folder() -> Path:
    """Return the folder in which the server without Docker stores its database and artifacts."""
    return state_dir() / "shared"


def read_env(file: Path) -> dict[str, str]:
    """Return the settings in a file of ``NAME=value`` lines; an empty dict if there is no file.

    Parameters
    ----------
    file : Path
    """
    if not file.is_file():
        return {}
    settings = {}
    for line in file.read_text("utf-8").splitlines():
        if match := LINE.fullmatch(line):
            value = match[2].strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            settings[match[1]] = value[1:-1] if quoted else re.sub(r"\s+#.*", "", value)
    return settings


def load(file: Path | None = None) -> dict[str, str]:
    """Return the settings; as in Compose, the environment takes precedence over the file.

    Parameters
    ----------
    file : Path, optional
        By default, `env_file`.
    """
    return read_env(file or env_file()) | dict(os.environ)


def write_env(file: Path, example: Path) -> list[str]:
    """Write the settings file from the example, with a random value for every empty secret; existing values are kept.

    Parameters
    ----------
    file, example : Path

    Returns
    -------
    filled : list of str
        The names of the secrets that were generated.

    Raises
    ------
    SettingsError
        If neither file exists.
    """
    if not (file.is_file() or example.is_file()):
        raise SettingsError(f"neither {file} nor {example} exists: expected a checkout")
    text = (file if file.is_file() else example).read_text("utf-8")
    if not file.is_file() and os.getuid():  # Compose runs the containers with the caller's ids, but never as root
        text = re.sub(rf"(?m)^{UID}=.*$", f"{UID}={os.getuid()}", text)
        text = re.sub(rf"(?m)^{GID}=.*$", f"{GID}={os.getgid()}", text)
    filled = []
    for name in SECRETS:
        empty = re.compile(rf"(?m)^{name}=[ \t]*$")
        if name not in {match[1] for line in text.splitlines() if (match := LINE.fullmatch(line))}:
            text = f"{text.rstrip()}\n{name}=\n"
        if empty.search(text):
            text = empty.sub(f"{name}={secrets.token_urlsafe(24)}", text)
            filled.append(name)
    if filled or not file.is_file():
        with replacing(file, 0o600) as stream:
            stream.write(text.encode("utf-8"))
    return filled


def need(settings: Mapping[str, str], name: str) -> str:
    """Return a required setting.

    Parameters
    ----------
    settings : mapping of str to str
        As in ``.env``.
    name : str

    Raises
    ------
    SettingsError
        If it is missing or empty.
    """
    if value := settings.get(name, "").strip():
        return value
    raise SettingsError(f"{name}: expected a value, got none; `make env` writes .env with random secrets")


def password(settings: Mapping[str, str], name: str) -> str:
    """Return a password setting.

    Parameters
    ----------
    settings : mapping of str to str
        As in ``.env``.
    name : str

    Raises
    ------
    SettingsError
        If it is missing, or not allowed by `check_password`.
    """
    value = need(settings, name)
    try:
        check_password(value)
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from None
    return value


def check_password(value: str) -> None:
    """Check that a password is long enough and not known from examples.

    Parameters
    ----------
    value : str

    Raises
    ------
    SettingsError
        If it has fewer than `MINIMUM` characters, fewer than four different ones, or is a known example.
    """
    if len(value) < MINIMUM:
        raise SettingsError(f"expected at least {MINIMUM} characters, got {len(value)}; `make env` writes random ones")
    if value.lower() in KNOWN or len(set(value)) < 4:
        raise SettingsError(
            "expected a password of your own, got one that is easy to guess; `make env` writes a random one"
        )


def check_name(value: str) -> None:
    """Check that an account's name has no colon: basic authentication ends the name there.

    Parameters
    ----------
    value : str

    Raises
    ------
    SettingsError
        If it contains a colon.
    """
    if ":" in value:
        raise SettingsError(
            f"expected an account's name without a colon, got {value!r}: basic authentication does not allow a colon"
        )


def login(settings: Mapping[str, str], kind: str) -> Login:
    """Return name and password of an account in the settings.

    Parameters
    ----------
    settings : mapping of str to str
        As in ``.env``.
    kind : {"ADMIN", "TEAM", "PROMOTER"}

    Raises
    ------
    SettingsError
        If name or password is missing or not allowed.
    """
    name = need(settings, USERNAMES[kind])
    try:
        check_name(name)
    except SettingsError as error:
        raise SettingsError(f"{USERNAMES[kind]}: {error}") from None
    return Login(name, password(settings, PASSWORDS[kind]))


def with_accounts(settings: Mapping[str, str]) -> bool:
    """Return whether the server requires passwords: ``MLFLOW_ENABLE_AUTH``, on by default.

    Parameters
    ----------
    settings : mapping of str to str
        As in ``.env``.

    Raises
    ------
    SettingsError
        If the value is neither true nor false.
    """
    value = settings.get(ENABLE_AUTH, "true").strip().lower()
    if value in {"", "true", "1", "on", "yes"}:
        return True
    if value in {"false", "0", "off", "no"}:
        return False
    raise SettingsError(f"MLFLOW_ENABLE_AUTH: expected true or false, got {value!r}")


def number(settings: Mapping[str, str], name: str, default: int) -> int:
    """Return a setting that is a positive integer.

    Parameters
    ----------
    settings : mapping of str to str
        As in ``.env``.
    name : str
    default : int
        Used if the setting is missing or empty.

    Raises
    ------
    SettingsError
        If it is not a positive integer.
    """
    value = settings.get(name, "").strip() or str(default)
    if not value.isdigit() or not int(value):
        raise SettingsError(f"{name}: expected a positive whole number, got {value!r}")
    return int(value)


def database(settings: Mapping[str, str], host: str | None = None) -> str:
    """Return the address of MLflow's database: ``MLFLOW_BACKEND_STORE_URI``, else composed from ``POSTGRES_*``.

    Parameters
    ----------
    settings : mapping of str to str
        As in ``.env``.
    host : str, optional
        The folder of PostgreSQL's socket; by default, ``POSTGRES_HOST`` and ``POSTGRES_PORT`` are used.

    Raises
    ------
    SettingsError
        If a setting is missing or not allowed, or the address is not PostgreSQL's.
    """
    if uri := settings.get(BACKEND_STORE, "").strip():
        if not uri.startswith("postgresql"):
            raise SettingsError(f"MLFLOW_BACKEND_STORE_URI: expected postgresql+psycopg2://…, got {uri.split(':')[0]}")
        return uri
    user, word, name = (
        quote(one, safe="")
        for one in (need(settings, DATABASE_USER), password(settings, DATABASE_PASSWORD), need(settings, DATABASE_NAME))
    )
    if host:
        return f"postgresql+psycopg2://{user}:{word}@/{name}?host={quote(host, safe='/')}"
    where = f"{settings.get(DATABASE_HOST) or 'db'}:{settings.get(DATABASE_PORT) or '5432'}"
    return f"postgresql+psycopg2://{user}:{word}@{where}/{name}"


def accounts_database(uri: str) -> str:
    """Return the address of the accounts' database: beside MLflow's, with ``_auth`` appended to the name.

    Parameters
    ----------
    uri : str
        Address of MLflow's database.
    """
    base, mark, query = uri.partition("?")
    return f"{base}_auth{mark}{query}"


def allowed_hosts(settings: Mapping[str, str]) -> str:
    """Return the Host headers that the server accepts: local ones, the service's in Compose, ``MLFLOW_PUBLIC_HOST``.

    Parameters
    ----------
    settings : mapping of str to str
        As in ``.env``.

    Returns
    -------
    str
        Separated by commas.
    """
    names = ["localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*", "mlflow:5000"]
    return ",".join([*names, *settings.get(PUBLIC_HOST, "").replace(",", " ").split()])
