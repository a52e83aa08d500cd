"""Tracking's settings: whether it is on, how much disk space it may use and which server it sends to.

Standard library only: the sender runs without site-packages.
"""

import contextlib
import json
import os
import re
import time
from typing import Any

from nbtrack import env_vars
from nbtrack.paths import state_dir

DEFAULT_URI = "http://127.0.0.1:5000"
PROMOTIONS = (
    "promotions"  # prefix of the experiments that are tickets of a promotion lock; the team's server protects them
)
START_SECONDS = 180.0  # timeout for the start of a local server
OFF, ON = {"off", "0", "false", "no"}, {"on", "1", "true", "yes", ""}
NUMBERS = {env_vars.SPOOL_MB: 4096.0, env_vars.LINGER: 86400.0}  # settings and their defaults
SPOOL_RESERVE = 1 << 20  # bytes that an execution may always write; half of them only for events that show how it ended


def enabled() -> bool:
    """Return whether executions are tracked: tracking is not switched off, and the address is an http(s) server's."""
    return switched_on() and is_served(tracking_uri())


def switched_on() -> bool:
    """Return whether ``POKEBATTLE_TRACKING`` is not off."""
    return os.environ.get(env_vars.TRACKING, "on").strip().lower() not in OFF


def spool_limit() -> int:
    """Return the maximum size of all waiting executions in bytes: ``POKEBATTLE_SPOOL_MB``, by default 4 GB."""
    return int(_number(env_vars.SPOOL_MB) * (1 << 20))


def linger() -> float:
    """Return how many seconds after a kernel's end delivery is retried: ``POKEBATTLE_LINGER``, by default a day."""
    return _number(env_vars.LINGER)


def _number(name: str) -> float:
    """Return a number from the environment; its default if it is missing or invalid.

    An invalid setting raises nothing because tracking must never stop a notebook.
    """
    try:
        value = float(os.environ[name])
    except (KeyError, ValueError):
        return NUMBERS[name]
    return value if 0 <= value < float("inf") else NUMBERS[name]


def invalid_settings() -> list[str]:
    """Return one line per invalid setting in the environment, with the default that is used instead."""
    messages = []
    switch = os.environ.get(env_vars.TRACKING, "on")
    if switch.strip().lower() not in OFF | ON:
        messages.append(f"POKEBATTLE_TRACKING: expected on or off, got {switch!r}; using on")
    for name, default in NUMBERS.items():
        given = os.environ.get(name)
        with contextlib.suppress(ValueError):
            if given is None or 0 <= float(given) < float("inf"):
                continue
        messages.append(f"{name}: expected a number from 0, got {given!r}; using {default:g}")
    return messages


def server_record() -> dict[str, Any]:
    """Return the record that ``make server`` wrote (``uri``, ``pid``, ...), or an empty dict."""
    try:
        record = json.loads((state_dir() / "server.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def tracking_uri() -> str:
    """Return the server's address: ``MLFLOW_TRACKING_URI``, else the recorded one, else port 5000."""
    return (os.environ.get(env_vars.TRACKING_URI) or server_record().get("uri") or DEFAULT_URI).rstrip("/")


def is_served(uri: str) -> bool:
    """Return whether ``uri`` is an http(s) address.

    Files, databases and Databricks are not tracked; ``mlflow`` handles them alone.

    Parameters
    ----------
    uri : str
    """
    return bool(re.match("https?://[^/]", uri.lower()))


def is_local(uri: str) -> bool:
    """Return whether ``uri`` is the checkout's own server, which may use another port at its next start.

    Parameters
    ----------
    uri : str
    """
    return uri == server_record().get("uri") or (uri == DEFAULT_URI and not os.environ.get(env_vars.TRACKING_URI))


def destination_of(start: dict[str, Any]) -> str:
    """Return the address that an execution is delivered to.

    Parameters
    ----------
    start : dict
        The journal's first event.

    Returns
    -------
    str
        The address at which the execution began; for the local server, its current address.
    """
    if start.get("local_server") and (now := server_record().get("uri")):
        return str(now).rstrip("/")
    return str(start["uri"])


def server_is_starting(uri: str) -> bool:
    """Return whether the recorded local server is a live, recently started process that may still come up at ``uri``.

    Parameters
    ----------
    uri : str
    """
    record = server_record()
    try:
        recent = abs(time.time() - float(record["created"])) < START_SECONDS
        os.kill(int(record["pid"]), 0)
    except (KeyError, OSError, ValueError):
        return False
    return recent and record.get("uri") == uri
