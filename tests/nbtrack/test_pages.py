"""Searches read all pages of an answer."""

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from nbtrack.mlflow_rest import MlflowRest

FOUND = {"experiments": 5, "runs": 7}  # entities on the server
PAGE = 2  # entities per answer


class Paged(http.server.BaseHTTPRequestHandler):
    """Answers a search with `PAGE` entities at a time."""

    def do_POST(self) -> None:
        key = self.path.split("/")[-2]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        first = int(body.get("page_token", 0))
        some = range(first, min(first + PAGE, FOUND[key]))
        of = {"asked": body.get("experiment_ids")}
        answer = {key: [{"experiment_id": str(number), "number": number} | of for number in some]}
        if first + PAGE < FOUND[key]:
            answer["next_page_token"] = str(first + PAGE)  # type: ignore[assignment]
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def rest() -> Iterator[MlflowRest]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Paged) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield MlflowRest(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
        thread.join()


def test_all_pages_are_read(rest: MlflowRest) -> None:
    numbers = [one["number"] for one in rest.pages("POST", "experiments/search", "experiments")]
    assert numbers == list(range(FOUND["experiments"]))


def test_runs_of_all_experiments_are_searched(rest: MlflowRest) -> None:
    runs = list(rest.search_runs("attributes.status = 'RUNNING'"))
    assert [run["number"] for run in runs] == list(range(FOUND["runs"]))
    assert runs[0]["asked"] == [str(number) for number in range(FOUND["experiments"])]
