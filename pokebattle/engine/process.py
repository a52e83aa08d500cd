"""One engine process: it answers requests, one line of JSON each, and ends when its standard input is closed."""

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
    """The engine process ended before it answered, for example because it was killed or ran out of memory."""


class EngineProcess:
    """One engine process. It ends with the process that started it, because its standard input is then closed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [node(), str(SOURCES / PROGRAMS[0]), MOD],
            cwd=install(),
            text=True,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"NODE_OPTIONS": ""},
        )  # in a new session, so that Ctrl-C reaches only the caller

    def __enter__(self) -> "EngineProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill the process, even during a request."""
        self.process.kill()
        self.process.wait()
        for pipe in filter(None, (self.process.stdin, self.process.stdout)):
            with suppress(OSError):  # the pipe may contain a request that the process never read
                pipe.close()

    def ask(self, request: Request) -> Answer:
        """Send one request and wait for its answer.

        Parameters
        ----------
        request : dict

        Returns
        -------
        dict

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
    """Return a hash of what determines a battle besides the request: the engine's version and our own programs."""
    parts = [VERSION, MOD, *((SOURCES / name).read_text(encoding="utf-8") for name in PROGRAMS)]
    return sha256("\n".join(parts).encode()).hexdigest()[:24]
