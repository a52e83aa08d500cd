"""Ids that this side gives to what no server knows yet."""

import hashlib
import random
import re
import uuid

LOCAL_ID = "pokebattle.local_id"  # the tag under which the server's entity carries it
ID, VERSION = "10ca1", "1020111"  # how local ids, and local numbers of versions, begin
MARKS = (ID.encode(), VERSION.encode())
LOCAL = re.compile(rf"(mlflow-artifacts:/)?((?:m-)?{ID}[0-9a-f]{{27}}|\b{VERSION}\d{{11}}\b)")


def new_local_id() -> str:
    """Return an id of the shape of MLflow's that tells that no server gave it."""
    return ID + uuid.uuid4().hex[:27]


def new_local_version() -> str:
    """Return such a number of a version of a registered model, which MLflow wants to be an integer."""
    return f"{VERSION}{random.SystemRandom().randrange(10**11):011}"


def local_ids(name: str) -> tuple[str, str]:
    """Return such an id of a run and one of its artifact folder that follow from a name, whoever delivers it when."""
    run, root = (ID + hashlib.sha256(f"{name} {what}".encode()).hexdigest()[:27] for what in ("run", "root"))
    return run, root
