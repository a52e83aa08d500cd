"""Local ids: ids for runs, models and versions that the server does not know yet."""

import hashlib
import random
import re
import uuid

ID, VERSION = "10ca1", "1020111"  # prefixes of local ids and of local version numbers
MARKS = (ID.encode(), VERSION.encode())
# With more digits behind it, it is a part of a digest. In JSON, the letter of an escape such as "\n" may be before it.
LOCAL = re.compile(rf"(mlflow-artifacts:/)?((?:m-)?{ID}[0-9a-f]{{27}}(?![0-9a-f])|(?<!\d){VERSION}\d{{11}}(?!\d))")


def new_local_id() -> str:
    """Return a random id in the format of MLflow's ids, recognisable as a local one."""
    return ID + uuid.uuid4().hex[:27]


def new_local_version() -> str:
    """Return a random local number for a version of a registered model, for which MLflow expects an integer."""
    return f"{VERSION}{random.SystemRandom().randrange(10**11):011}"


def local_ids(name: str) -> tuple[str, str]:
    """Return the deterministic local ids (run, artifact root) of a name, so that any process derives the same ones.

    Parameters
    ----------
    name : str

    Returns
    -------
    run : str
    root : str
    """
    run, root = (ID + hashlib.sha256(f"{name} {what}".encode()).hexdigest()[:27] for what in ("run", "root"))
    return run, root


def is_local_id(text: str) -> bool:
    """Return whether a text is a local id or a local version number.

    Parameters
    ----------
    text : str
    """
    return bool(LOCAL.fullmatch(text))
