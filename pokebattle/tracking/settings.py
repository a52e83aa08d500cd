"""How tracking is switched, how much it may hold and which server it talks to.

Standard library only: the shipper runs without site-packages.
"""

import contextlib
import json
import os
import re
import time
from typing import Any

from pokebattle.places import state_dir

DEFAULT_URI = "http://127.0.0.1:5000"
START_SECONDS = 180.0  # that a local server may need to come up
OFF, ON = {"off", "0", "false", "no"}, {"on", "1", "true", "yes", ""}
NUMBERS = {"POKEBATTLE_SPOOL_MB": 4096.0, "POKEBATTLE_LINGER": 86400.0}  # settings and their defaults
SPOOL_RESERVE = 1 << 20  # bytes that an execution may always write, half of them only for what tells how it ended


def enabled() -> bool:
    """Tell whether executions are tracked: it is not switched off, and runs go to a server."""
    return switched_on() and is_served(tracking_uri())


def switched_on() -> bool:
    """Tell whether ``POKEBATTLE_TRACKING`` is not off."""
    return os.environ.get("POKEBATTLE_TRACKING", "on").strip().lower() not in OFF


def spool_limit() -> int:
    """Return the bytes that waiting executions may hold together: ``POKEBATTLE_SPOOL_MB``, else 4 GB."""
    return int(_number("POKEBATTLE_SPOOL_MB") * (1 << 20))


def linger() -> float:
    """Return the seconds that deliveries are tried for after a kernel's end: ``POKEBATTLE_LINGER``, else a day."""
    return _number("POKEBATTLE_LINGER")


def _number(name: str) -> float:
    """Return a number from the environment; its default where there is none, as nothing here may stop a notebook."""
    try:
        value = float(os.environ[name])
    except (KeyError, ValueError):
        return NUMBERS[name]
    return value if 0 <= value < float("inf") else NUMBERS[name]


def misread() -> list[str]:
    """Return a line for each setting in the environment that is none, and what holds instead."""
    found = []
    switch = os.environ.get("POKEBATTLE_TRACKING", "on")
    if switch.strip().lower() not in OFF | ON:
        found.append(f"POKEBATTLE_TRACKING: expected on or off, got {switch!r}: it is on")
    for name, default in NUMBERS.items():
        given = os.environ.get(name)
        with contextlib.suppress(ValueError):
            if given is None or 0 <= float(given) < float("inf"):
                continue
        found.append(f"{name}: expected a number from 0, got {given!r}: it is {default:g}")
    return found


def server_record() -> dict[str, Any]:
    """Return what ``make server`` wrote down (``uri``, ``pid``, ...), or an empty mapping."""
    try:
        record = json.loads((state_dir() / "server.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def tracking_uri() -> str:
    """Return the server's address: ``MLFLOW_TRACKING_URI``, else the recorded one, else port 5000."""
    return (os.environ.get("MLFLOW_TRACKING_URI") or server_record().get("uri") or DEFAULT_URI).rstrip("/")


def is_served(uri: str) -> bool:
    """Tell whether ``uri`` is a server's address: a file, a database or Databricks is left to mlflow alone."""
    return bool(re.match("https?://[^/]", uri.lower()))


def is_local(uri: str) -> bool:
    """Tell whether ``uri`` is the checkout's own server, which may come up at another port the next time."""
    return uri == server_record().get("uri") or (uri == DEFAULT_URI and not os.environ.get("MLFLOW_TRACKING_URI"))


def deliver_to(start: dict[str, Any]) -> str:
    """Return where an execution goes: the address that it began with, or the local server's present one."""
    if start.get("local_server") and (now := server_record().get("uri")):
        return str(now).rstrip("/")
    return str(start["uri"])


def server_is_starting(uri: str) -> bool:
    """Tell whether the recorded local server is a live process, started just now, that may still come up at ``uri``."""
    record = server_record()
    try:
        recent = abs(time.time() - float(record["created"])) < START_SECONDS
        os.kill(int(record["pid"]), 0)
    except (KeyError, OSError, ValueError):
        return False
    return recent and record.get("uri") == uri
