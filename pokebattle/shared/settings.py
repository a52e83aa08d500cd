"""The shared server's settings: the environment, else `.env`. Standard library only, for machines with only Docker."""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pokebattle.places import project, state_dir

SECRETS = ("POSTGRES_PASSWORD", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_TEAM_PASSWORD",
           "MLFLOW_PROMOTER_PASSWORD", "JUPYTER_TOKEN")  # fmt: skip
MINIMUM = 12  # characters of a password, MLflow's own rule
KNOWN = {"password1234", "passwordpassword", "adminadminadmin", "changemechangeme", "change-me-please",
         "mlflowpassword", "mlflow_password", "mlflow-password", "postgrespassword"}  # fmt: skip
BOOT, BOOT_HEADER = "POKEBATTLE_BOOT", "X-Pokebattle-Boot"  # by which a server knows its own from another on its port
LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")


class SettingsError(RuntimeError):
    """A setting is missing or wrong; the message names it and says how to mend it."""


@dataclass(frozen=True)
class Login:
    """An account's name and password."""

    name: str
    password: str


def env_file() -> Path:
    """Return the file of the settings: ``POKEBATTLE_ENV_FILE``, else ``.env`` in the checkout."""
    named = os.environ.get("POKEBATTLE_ENV_FILE")
    return Path(named).absolute() if named else project() / ".env"


def folder() -> Path:
    """Return where the server without Docker keeps its database and artifacts."""
    return state_dir() / "shared"


def read_env(file: Path) -> dict[str, str]:
    """Return the settings in a file of ``NAME=value`` lines; empty where there is none."""
    if not file.is_file():
        return {}
    found = {}
    for line in file.read_text("utf-8").splitlines():
        if match := LINE.fullmatch(line):
            value = match[2].strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[match[1]] = value[1:-1] if quoted else re.sub(r"\s+#.*", "", value)
    return found


def load(file: Path | None = None) -> dict[str, str]:
    """Return the settings: the environment before the file, as in Compose."""
    return read_env(file or env_file()) | dict(os.environ)


def write_env(file: Path, example: Path) -> list[str]:
    """Write the file of the settings from the example, with a random value for every empty secret.

    What the file already says stays.

    Returns
    -------
    filled : list of str
        The names of the secrets that were made.
    """
    if not (file.is_file() or example.is_file()):
        raise SettingsError(f"{file} is not there, nor {example} to make it from: expected a checkout of pokebattle")
    text = (file if file.is_file() else example).read_text("utf-8")
    if not file.is_file() and os.getuid():  # Compose gives the containers the files of who calls it, never root's
        text = re.sub(r"(?m)^POKEBATTLE_UID=.*$", f"POKEBATTLE_UID={os.getuid()}", text)
        text = re.sub(r"(?m)^POKEBATTLE_GID=.*$", f"POKEBATTLE_GID={os.getgid()}", text)
    filled = []
    for name in SECRETS:
        empty = re.compile(rf"(?m)^{name}=[ \t]*$")
        if name not in {match[1] for line in text.splitlines() if (match := LINE.fullmatch(line))}:
            text = f"{text.rstrip()}\n{name}=\n"
        if empty.search(text):
            text = empty.sub(f"{name}={secrets.token_urlsafe(24)}", text)
            filled.append(name)
    if filled or not file.is_file():
        whole = file.with_name(f"{file.name}.new")
        handle = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as output:
            output.write(text)
        whole.replace(file)
    return filled


def need(settings: Mapping[str, str], name: str) -> str:
    """Return a setting that must be there."""
    if value := settings.get(name, "").strip():
        return value
    raise SettingsError(f"{name}: expected a value, got none; `make env` writes .env with random secrets")


def password(settings: Mapping[str, str], name: str) -> str:
    """Return a password, which must be long and none that examples use."""
    value = need(settings, name)
    try:
        check_password(value)
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from None
    return value


def check_password(value: str) -> None:
    """Refuse a password that is short, or known from examples."""
    if len(value) < MINIMUM:
        raise SettingsError(f"expected at least {MINIMUM} characters, got {len(value)}; `make env` makes random ones")
    if value.lower() in KNOWN or len(set(value)) < 4:
        raise SettingsError("expected a password of your own, got one that anybody guesses; `make env` makes one")


def check_name(value: str) -> None:
    """Refuse an account's name with a colon: it ends the name where it is sent, so that nobody could log in with it."""
    if ":" in value:
        raise SettingsError(f"expected an account's name without a colon, got {value!r}: nobody can log in with it")


def login(settings: Mapping[str, str], who: str) -> Login:
    """Return the account of ``ADMIN``, ``TEAM`` or ``PROMOTER``."""
    name = need(settings, f"MLFLOW_{who}_USERNAME")
    try:
        check_name(name)
    except SettingsError as error:
        raise SettingsError(f"MLFLOW_{who}_USERNAME: {error}") from None
    return Login(name, password(settings, f"MLFLOW_{who}_PASSWORD"))


def with_accounts(settings: Mapping[str, str]) -> bool:
    """Tell whether the server wants passwords: ``MLFLOW_ENABLE_AUTH``, which is on unless it is switched off."""
    value = settings.get("MLFLOW_ENABLE_AUTH", "true").strip().lower()
    if value in {"", "true", "1", "on", "yes"}:
        return True
    if value in {"false", "0", "off", "no"}:
        return False
    raise SettingsError(f"MLFLOW_ENABLE_AUTH: expected true or false, got {value!r}")


def number(settings: Mapping[str, str], name: str, default: int) -> int:
    """Return a positive whole number."""
    value = settings.get(name, "").strip() or str(default)
    if not value.isdigit() or not int(value):
        raise SettingsError(f"{name}: expected a positive whole number, got {value!r}")
    return int(value)


def database(settings: Mapping[str, str], host: str | None = None) -> str:
    """Return the address of MLflow's database: ``MLFLOW_BACKEND_STORE_URI``, else made from ``POSTGRES_*``.

    Parameters
    ----------
    settings : mapping of str to str
    host : str, optional
        The folder of PostgreSQL's socket; else ``POSTGRES_HOST`` and ``POSTGRES_PORT``.
    """
    if uri := settings.get("MLFLOW_BACKEND_STORE_URI", "").strip():
        if not uri.startswith("postgresql"):
            raise SettingsError(f"MLFLOW_BACKEND_STORE_URI: expected postgresql+psycopg2://…, got {uri.split(':')[0]}")
        return uri
    user, word, name = (quote(one, safe="") for one in (
        need(settings, "POSTGRES_USER"), password(settings, "POSTGRES_PASSWORD"), need(settings, "POSTGRES_DB")
    ))  # fmt: skip
    if host:
        return f"postgresql+psycopg2://{user}:{word}@/{name}?host={quote(host, safe='/')}"
    where = f"{settings.get('POSTGRES_HOST') or 'db'}:{settings.get('POSTGRES_PORT') or '5432'}"
    return f"postgresql+psycopg2://{user}:{word}@{where}/{name}"


def accounts_database(uri: str) -> str:
    """Return the address of the accounts' database, which stands beside MLflow's: its name with ``_auth``."""
    base, mark, query = uri.partition("?")
    return f"{base}_auth{mark}{query}"


def allowed_hosts(settings: Mapping[str, str]) -> str:
    """Return the Host headers that the server answers to: its own, the service's in Compose, and the public one."""
    names = ["localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*", "mlflow:5000"]
    return ",".join([*names, *settings.get("MLFLOW_PUBLIC_HOST", "").replace(",", " ").split()])
