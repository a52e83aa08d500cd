"""Jupyter Server extension: deliver executions that still wait after their kernel and sender have ended."""

import asyncio
from typing import Any

from nbtrack import spool
from nbtrack.settings import enabled

PERIOD = 60.0  # seconds between two checks


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Start the periodic check once the server runs."""
    if enabled():
        app.io_loop.add_callback(_look_again_and_again)


async def _look_again_and_again() -> None:
    while True:
        await asyncio.to_thread(spool.call_drainer)
        await asyncio.sleep(PERIOD)
