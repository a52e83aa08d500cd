"""Back up both databases and the artifacts to one file, and restore them, which replaces everything or nothing."""

import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from nbtrack.files import replacing
from nbtrack.team import postgres
from nbtrack.team.serve import ensure_database, plain
from nbtrack.team.settings import SettingsError, accounts_database

FORMAT = 1
MANIFEST = "manifest.json"  # the last member: a file without it is incomplete
DATABASES = ("mlflow", "accounts")


@dataclass(frozen=True)
class Place:
    """Where a shared server stores its data.

    Attributes
    ----------
    uri : str
        Address of MLflow's database; the accounts' database is on the same server.
    artifacts : str
        A folder, or an S3 address, which this module does not back up.
    """

    uri: str
    artifacts: str

    @property
    def folder(self) -> Path | None:
        """The artifacts' folder, if they are in one."""
        return Path(self.artifacts) if self.artifacts.startswith("/") else None

    @property
    def near(self) -> Path | None:
        """A folder on the artifacts' disk, which is the large one; None if they are in S3."""
        if self.folder is None:
            return None
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return self.folder.parent

    def databases(self) -> dict[str, str]:
        """Return the addresses of both databases by name."""
        return dict(zip(DATABASES, (self.uri, accounts_database(self.uri)), strict=True))


def backup(place: Place, target: Path) -> dict[str, Any]:
    """Write all data of the server to a file; the server may be running.

    Parameters
    ----------
    place : Place
    target : Path

    Returns
    -------
    manifest : dict
        The file's content with digests, and when it was made.

    Raises
    ------
    SettingsError
        If the database or the folder cannot be read, or ``target`` cannot be written; no partial file is left.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, 0o600, sync=True) as output:
            return write(place, output)
    except OSError as error:
        raise SettingsError(f"{target} was not written: {error}") from None


def write(place: Place, output: IO[bytes]) -> dict[str, Any]:
    """Write all data of the server to a stream.

    The databases are dumped before the artifacts are read, so that no run in the backup lacks a file that it had.

    Parameters
    ----------
    place : Place
    output : binary stream

    Returns
    -------
    manifest : dict
        The stream's content with digests, and when it was made.

    Raises
    ------
    SettingsError
        If a database cannot be read.
    OSError
        If the stream cannot be written or a file cannot be read.
    """
    files: dict[str, str] = {}
    with tarfile.open(fileobj=output, mode="w|") as archive:
        with tempfile.TemporaryDirectory(dir=place.near) as staging:
            for name, uri in place.databases().items():
                dump = Path(staging) / f"{name}.dump"
                _dump(uri, dump)
                files[dump.name] = _add(archive, dump, dump.name)
        for file in sorted(place.folder.rglob("*")) if place.folder else []:
            name = f"artifacts/{file.relative_to(place.folder or file)}"
            if file.is_file() and (digest := _add(archive, file, name)):
                files[name] = digest
        manifest = {
            "format": FORMAT,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "mlflow": version("mlflow"),
            "artifacts": "in this file" if place.folder else place.artifacts,
            "files": files,
        }
        _add_text(archive, MANIFEST, json.dumps(manifest, indent=1))
    return manifest


def restore(place: Place, source: str, stream: IO[bytes], overwrite: bool = False) -> dict[str, Any]:
    """Replace the server's data by a backup; nothing is changed before the whole backup is read and checked.

    Parameters
    ----------
    place : Place
        Of a server that is not running.
    source : str
        The backup's name in messages.
    stream : binary stream
        What ``backup`` wrote.
    overwrite : bool
        Also replace a server that has runs; otherwise this is refused.

    Returns
    -------
    manifest : dict

    Raises
    ------
    SettingsError
        If the backup is damaged or from another MLflow version, the server has runs, or the database is still in use.
    """
    with tempfile.TemporaryDirectory(dir=place.near) as staging:
        manifest = _unpack(source, stream, Path(staging))
        _check(place, manifest, source)
        ensure_database(place.uri, *place.databases().values())
        if not overwrite and (runs := _runs(place.uri)):
            raise SettingsError(
                f"the server has runs ({runs}), which this replaces: back them up, then use `--overwrite` (OVERWRITE=1)"
            )
        drafts: dict[str, str] = {}
        try:
            for name, uri in place.databases().items():
                drafts[_name(uri)] = f"{_name(uri)}_restored_{os.getpid()}"
                _load(uri, drafts[_name(uri)], Path(staging) / f"{name}.dump")
            with _replaced(place.folder, Path(staging) / "artifacts"):
                _swap(place.uri, drafts)
        finally:
            _drop(place.uri, drafts.values())
    return manifest


def _check(place: Place, manifest: dict[str, Any], source: str) -> None:
    """Refuse a backup that this server cannot use."""
    if manifest["mlflow"].split(".")[:2] != version("mlflow").split(".")[:2]:
        raise SettingsError(
            f"{source} was written by MLflow {manifest['mlflow']}, this is {version('mlflow')}: "
            f"restore it with {manifest['mlflow']}"
        )
    current = "in this file" if place.folder else place.artifacts
    if manifest["artifacts"] != current:
        raise SettingsError(
            f"{source} comes from a server with artifacts {manifest['artifacts']}; here they are in {place.artifacts}"
        )


def _dump(uri: str, target: Path) -> None:
    """Write one database with PostgreSQL's own program, which gets the password from the environment."""
    address, how = _without_password(uri)
    with _as_settings_error("the database could not be read"):
        postgres.program("pg_dump", "--format=custom", "--no-owner", f"--file={target}", f"--dbname={address}", env=how)


def _load(uri: str, draft: str, dump: Path) -> None:
    """Load a dump into a new database beside the one at ``uri``."""
    ensure_database(uri, _renamed(uri, draft))
    address, how = _without_password(_renamed(uri, draft))
    with _as_settings_error("the backup's database could not be loaded"):
        postgres.program("pg_restore", "--exit-on-error", "--no-owner", f"--dbname={address}", str(dump), env=how)


def _swap(uri: str, drafts: dict[str, str]) -> None:
    """Exchange databases with their drafts in one transaction."""
    import psycopg2
    from psycopg2 import sql

    try:
        with postgres.cursor(plain(_renamed(uri, "postgres")), autocommit=False) as cursor:
            for name, draft in drafts.items():
                for old, new in ((name, f"{draft}_former"), (draft, name), (f"{draft}_former", draft)):
                    names = sql.Identifier(old), sql.Identifier(new)
                    cursor.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*names))
    except psycopg2.Error as error:
        raise SettingsError(f"the databases were not replaced: {str(error).strip().splitlines()[0]}") from None


def _drop(uri: str, names: Iterable[str]) -> None:
    from psycopg2 import sql

    with postgres.cursor(plain(_renamed(uri, "postgres"))) as cursor:
        for name in names:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


@contextlib.contextmanager
def _replaced(folder: Path | None, new: Path) -> Iterator[None]:
    """Replace the content of ``folder`` by that of ``new``; undo it if the ``with`` block fails."""
    if folder is None:
        yield
        return
    new.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True, mode=0o700)
    former = new.with_name("former")
    former.mkdir()
    _move(folder, former)
    _move(new, folder)
    try:
        yield
    except BaseException:
        _move(folder, new)
        _move(former, folder)
        raise


def _move(source: Path, target: Path) -> None:
    for file in list(source.iterdir()):
        file.rename(target / file.name)


def _unpack(source: str, stream: IO[bytes], target: Path) -> dict[str, Any]:
    """Unpack a backup and compare every file with its digest; return the manifest."""
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            archive.extractall(target, filter="data")
        manifest = json.loads((target / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{source} is incomplete: it has no manifest") from None
    except (OSError, tarfile.TarError, ValueError) as error:
        raise SettingsError(f"{source} is not a backup, or is damaged: {error}") from None
    if manifest.get("format") != FORMAT:
        raise SettingsError(f"{source}: expected a backup of format {FORMAT}, got {manifest.get('format')!r}")
    for name, digest in manifest["files"].items():
        file = target / name
        if not file.is_file() or _digest(file) != digest:
            raise SettingsError(f"{source} is damaged: {name} does not match its digest")
    return dict(manifest)


def _add(archive: tarfile.TarFile, file: Path, name: str) -> str:
    """Add a file with its current size, and return its digest; empty if the file was deleted meanwhile."""
    try:
        with file.open("rb") as stream:
            info = archive.gettarinfo(arcname=name, fileobj=stream)
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            digest = hashlib.sha256()
            archive.addfile(info, _Digesting(stream, digest))
            return digest.hexdigest()
    except FileNotFoundError:
        return ""


class _Digesting(io.RawIOBase):
    """A stream that updates a digest with the bytes that are read."""

    def __init__(self, stream: IO[bytes], digest: Any) -> None:
        self._stream, self._digest = stream, digest

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self._digest.update(piece)
        return piece


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
    archive.addfile(info, io.BytesIO(data))


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _runs(uri: str) -> int:
    """Return the number of runs in a database; 0 if MLflow has never written to it."""
    with postgres.cursor(plain(uri)) as cursor:
        cursor.execute("SELECT to_regclass('runs') IS NOT NULL")
        if cursor.fetchone() == (False,):
            return 0
        cursor.execute("SELECT count(*) FROM runs")
        return int(cursor.fetchone()[0])


def _name(uri: str) -> str:
    return re.sub(r"\?.*", "", uri).rpartition("/")[2]


def _renamed(uri: str, name: str) -> str:
    base, mark, query = uri.partition("?")
    return f"{base.rpartition('/')[0]}/{name}{mark}{query}"


def _without_password(uri: str) -> tuple[str, dict[str, str]]:
    """Return an address without password, and an environment with it: other users see a process's arguments."""
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    address = plain(url.set(password=None).render_as_string(hide_password=False))
    return address, dict(os.environ) | {"PGPASSWORD": str(url.password or ""), "PGCONNECT_TIMEOUT": "10"}


@contextlib.contextmanager
def _as_settings_error(what: str) -> Iterator[None]:
    """Raise a failure of PostgreSQL's program as `SettingsError` with its first line."""
    try:
        yield
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr or error).strip().splitlines()
        raise SettingsError(f"{what}: {lines[0] if lines else error}") from None
