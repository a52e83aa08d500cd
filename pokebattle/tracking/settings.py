"""How tracking is switched, how much it may hold and which server it talks to.

Standard library only: the shipper runs without site-packages.
"""

import json
import os
import re
import time
from typing import Any

from pokebattle.places import state_dir

DEFAULT_URI = "http://127.0.0.1:5000"
START_SECONDS = 180.0  # that a local server may need to come up
SPOOL_RESERVE = 1 << 20  # bytes that an execution may always write, half of them only for what tells how it ended


def enabled() -> bool:
    """Tell whether executions are tracked: it is not switched off, and runs go to a server."""
    return switched_on() and is_served(tracking_uri())


def switched_on() -> bool:
    """Tell whether ``POKEBATTLE_TRACKING`` is not off."""
    return os.environ.get("POKEBATTLE_TRACKING", "on").strip().lower() not in {"off", "0", "false", "no"}


def spool_limit() -> int:
    """Return the bytes that waiting executions may hold together: ``POKEBATTLE_SPOOL_MB``, else 4 GB."""
    try:
        return int(float(os.environ.get("POKEBATTLE_SPOOL_MB", "4096")) * (1 << 20))
    except ValueError:
        return 1 << 32


def linger() -> float:
    """Return the seconds that deliveries are tried for after a kernel's end: ``POKEBATTLE_LINGER``, else a day."""
    try:
        return float(os.environ.get("POKEBATTLE_LINGER", "86400"))
    except ValueError:
        return 86400.0


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
