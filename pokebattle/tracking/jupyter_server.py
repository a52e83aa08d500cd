"""An extension of Jupyter's server, which outlives its kernels: it sees to what they and their shippers have left."""

import asyncio
from typing import Any

from pokebattle.tracking.settings import enabled
from pokebattle.tracking.shipping import spool

PERIOD = 60.0  # seconds between two looks


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Begin to look, once the server runs."""
    if enabled():
        app.io_loop.add_callback(_look_again_and_again)


async def _look_again_and_again() -> None:
    while True:
        await asyncio.to_thread(spool.call_drainer)
        await asyncio.sleep(PERIOD)
