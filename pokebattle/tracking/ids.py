"""Ids that this side gives to what no server knows yet."""

import hashlib
import random
import re
import uuid

LOCAL_ID = "pokebattle.local_id"  # the tag under which the server's entity carries it
MARKS = (b"10ca1", b"1020111")  # how local ids begin
LOCAL = re.compile(r"(mlflow-artifacts:/)?((?:m-)?10ca1[0-9a-f]{27}|\b1020111\d{11}\b)")


def new_local_id() -> str:
    """Return an id of the shape of MLflow's that tells that no server gave it."""
    return "10ca1" + uuid.uuid4().hex[:27]


def new_local_version() -> str:
    """Return such a number of a version of a registered model, which MLflow wants to be an integer."""
    return f"1020111{random.SystemRandom().randrange(10**11):011}"


def local_ids(name: str) -> tuple[str, str]:
    """Return such an id of a run and one of its artifact folder that follow from a name, whoever delivers it when."""
    run, root = ("10ca1" + hashlib.sha256(f"{name} {what}".encode()).hexdigest()[:27] for what in ("run", "root"))
    return run, root
