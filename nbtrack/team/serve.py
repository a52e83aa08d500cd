"""Run the MLflow server in this process, configured by settings, for the image and for `make shared`."""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbtrack import env_vars
from nbtrack.team import postgres
from nbtrack.team import settings as s

CACHE_SECONDS = 60  # seconds for which a checked password is cached; hashing it takes 0.4 s of CPU per request
DATABASE_SECONDS = 60.0  # timeout for a database that starts


def serve(settings: Mapping[str, str]) -> None:
    """Run the server until it is stopped.

    Parameters
    ----------
    settings : mapping of str to str
        ``MLFLOW_*`` and ``POSTGRES_*`` as in ``.env``; it listens on ``MLFLOW_HOST`` and ``MLFLOW_PORT``.

    Raises
    ------
    SettingsError
        If a setting is missing, a password is too short or easy to guess, or the database does not answer.
    """
    uri, argv = s.database(settings), command(settings)
    environment(settings, uri)
    if s.with_accounts(settings):
        account = s.login(settings, "ADMIN")
        accounts = settings.get(s.AUTH_DATABASE) or s.accounts_database(uri)
        ensure_database(uri, accounts)
        os.environ[s.AUTH_CONFIG] = _auth_config(accounts, settings.get(s.AUTH_CONFIG))
        os.environ[s.AUTH_ADMIN_USERNAME] = account.name
        os.environ[s.AUTH_ADMIN_PASSWORD] = account.password
        os.environ[s.SECRET_KEY] = s.need(settings, s.SECRET_KEY)
        argv += ["--app-name", "nbtrack"]
        _first_account()
    else:
        sys.stderr.write("Warning: MLFLOW_ENABLE_AUTH is off: anyone who reaches the port has full access\n")
        ensure_database(uri)
    from mlflow.cli import cli

    cli(["server", *argv], prog_name="mlflow")


def command(settings: Mapping[str, str]) -> list[str]:
    """Return the options of ``mlflow server``; settings with passwords are passed in the environment instead.

    Parameters
    ----------
    settings : mapping of str to str
        As in ``.env``.

    Raises
    ------
    SettingsError
        If the artifact folder, the port or the number of workers is invalid.
    """
    artifacts = settings.get(s.ARTIFACT_ROOT, "").strip()
    if not artifacts.startswith(("/", "s3://")):
        raise s.SettingsError(
            f"MLFLOW_DEFAULT_ARTIFACT_ROOT: expected an absolute folder or s3://bucket/folder, got {artifacts!r}"
        )
    port, workers = s.number(settings, s.PORT, 5000), s.number(settings, s.WORKERS, 2)
    return [
        "--host",
        settings.get(s.HOST) or "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        str(workers),
        "--artifacts-destination",
        artifacts,
    ]


def environment(settings: Mapping[str, str], uri: str) -> None:
    """Set the variables that MLflow reads from this process's environment.

    Clients get artifacts only through the server, so MLflow's variable for their own artifact folder is not passed on.

    Parameters
    ----------
    settings : mapping of str to str
        As in ``.env``.
    uri : str
        Address of MLflow's database.
    """
    client = (env_vars.TRACKING_URI, env_vars.USERNAME, env_vars.PASSWORD, env_vars.RUN_ID)
    for name in (s.ARTIFACT_ROOT, *client):
        os.environ.pop(name, None)
    for name in s.S3:
        if settings.get(name):
            os.environ[name] = settings[name]
    variables = {s.BACKEND_STORE: uri, s.ALLOWED_HOSTS: s.allowed_hosts(settings), s.FAIL_CLOSED: "true"}
    os.environ |= variables | env_vars.SERVER_SWITCHES


def ensure_database(uri: str, *more: str) -> None:
    """Wait until PostgreSQL answers at ``uri``, and create missing databases there.

    Parameters
    ----------
    uri : str
        SQLAlchemy address of an existing database.
    *more : str
        Addresses of the databases to create.

    Raises
    ------
    SettingsError
        If the password is refused, or no database answers at ``uri`` within a minute.
    """
    import psycopg2
    from psycopg2 import sql
    from sqlalchemy.engine import make_url

    where = make_url(uri).render_as_string()  # without the password
    deadline = time.monotonic() + DATABASE_SECONDS
    while True:
        try:
            with postgres.cursor(plain(uri)) as cursor:
                for name in (make_url(one).database for one in more):
                    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                    if cursor.fetchone() is None:
                        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            return
        except psycopg2.OperationalError as error:
            message = str(error).strip().splitlines()[-1]
            if "password authentication failed" in message:
                raise s.SettingsError(
                    f"the database at {where} refuses POSTGRES_PASSWORD: it still has the password of its first start"
                ) from None
            if "does not exist" in message or time.monotonic() > deadline:
                raise s.SettingsError(f"no database answers at {where} ({message})") from None
        time.sleep(0.5)


def plain(uri: str) -> str:
    """Return an SQLAlchemy address in the form that PostgreSQL's own library accepts.

    Parameters
    ----------
    uri : str
    """
    scheme, _, rest = uri.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


def _auth_config(database: str, file: str | None) -> str:
    """Write the configuration of MLflow's accounts, which only a file can contain, readable for this user only."""
    file = file or str(Path(tempfile.mkdtemp(prefix="pokebattle-")) / "auth.ini")
    values: dict[str, Any] = {
        "default_permission": "NO_PERMISSIONS",
        "database_uri": database.replace("%", "%%"),
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": CACHE_SECONDS,
    }
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as output:
        output.write("[mlflow]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()))
    return file


def _first_account() -> None:
    """Create the accounts' tables and the administrator once, before several workers would do it at the same time."""
    from mlflow.server import auth

    auth.get_flask_server_secret_key()
    auth.bootstrap_admin_user()
