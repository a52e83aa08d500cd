"""pytest's plugin that lets mlflow's own tests talk to the server ``FOREIGN_SERVER`` instead of SQLite files.

mlflow's tests give each test a fresh SQLite store. Here they share a server's, so that a test that counts what there is
in the whole store fails, with the product as without it.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def on_server(request: Any) -> Iterator[None]:
    """Turn to the server after mlflow's own fixture has turned to SQLite."""
    names = request.fixturenames
    if "tracking_uri_mock" not in names or "notrackingurimock" in request.keywords or "tmp_sqlite_uri" in names:
        yield
        return
    request.getfixturevalue("tracking_uri_mock")
    import mlflow

    mlflow.set_tracking_uri(os.environ["FOREIGN_SERVER"])
    yield
