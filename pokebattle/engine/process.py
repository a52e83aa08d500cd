"""One engine process: it answers requests, one JSON line each, and ends when its input does."""

import json
import os
import subprocess
from contextlib import suppress
from functools import cache
from hashlib import sha256
from types import TracebackType
from typing import Any

from pokebattle.engine.installation import MOD, SOURCES, VERSION, EngineError, install, node

PROGRAMS = ("worker.js", "quick.js")

Request = dict[str, Any]
Answer = dict[str, Any]


class EngineStoppedError(EngineError):
    """The engine process ended before it answered: it was killed, or had no memory left."""


class EngineProcess:
    """One engine process. It cannot outlive the process that started it, because its input ends with that."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [node(), str(SOURCES / PROGRAMS[0]), MOD], cwd=install(), text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"NODE_OPTIONS": ""},
        )  # in a session of its own: Ctrl-C is for who asked

    def __enter__(self) -> "EngineProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        for pipe in filter(None, (self.process.stdin, self.process.stdout)):
            with suppress(OSError):  # of a request that was not read to its end
                pipe.close()

    def ask(self, request: Request) -> Answer:
        """Send one request and wait for its answer.

        Raises
        ------
        EngineStoppedError
            If the process has ended.
        EngineError
            If the engine refuses the request.
        """
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except (OSError, ValueError) as error:
            raise EngineStoppedError(f"the engine stopped: {error}") from error
        if not line.endswith("\n"):
            raise EngineStoppedError(f"the engine stopped with exit code {self.process.wait()}")
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise EngineError(f"the engine refused a battle: {answer['error']}")
        return answer


@cache
def fingerprint() -> str:
    """Return a hash of what decides a battle besides the request: the engine's version and the programs here."""
    parts = [VERSION, MOD, *((SOURCES / name).read_text(encoding="utf-8") for name in PROGRAMS)]
    return sha256("\n".join(parts).encode()).hexdigest()[:24]
