"""``python -m pokebattle.registry.probe FOLDER``: load a model in a process of its own and let it answer.

Matchups come as JSON records on the standard input. The first line of the output says that the first answer is there,
the second holds the answers, their milliseconds and the memory that it took.
"""

import json
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

REPEATS = 3  # answers to the same question; the quickest counts


def ask(folder: Path, matchups: "pd.DataFrame", patience: float) -> dict[str, Any]:
    """Let a fresh process load a model and answer; return what it tells.

    Parameters
    ----------
    folder : Path
        With the model's files.
    matchups : DataFrame
        What is asked, one row after the other.
    patience : float
        Seconds after which the process is ended.

    Returns
    -------
    dict
        answers, ms (of each), memory_mb, seconds (until the first answer); or error alone, in one line.
    """
    command = [sys.executable, "-m", "pokebattle.registry.probe", str(folder)]
    with tempfile.TemporaryFile("w+") as said:
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True)
        assert process.stdin and process.stdout
        timer = threading.Timer(patience, process.kill)
        timer.start()
        try:
            process.stdin.write(matchups.to_json(orient="records"))
            process.stdin.close()
            process.stdout.readline()
            seconds = time.monotonic() - began
            told = process.stdout.read()
        except BrokenPipeError:
            told = ""
        finally:
            code = process.wait()
            timer.cancel()
            process.stdout.close()
        if code == 0:
            return {**json.loads(told), "seconds": seconds}
        said.seek(0)
        last = next((line for line in reversed(said.read().splitlines()) if line.strip()), "")
    if code < 0:
        late = f" after {patience:.0f} s" if code == -signal.SIGKILL else ""
        return {"error": f"the process that loads it was ended by {signal.Signals(-code).name}{late}"}
    return {"error": f"the process that loads it failed: {last[:300]}"}


def main() -> None:
    """Load, answer one by one, tell."""
    import pandas as pd

    from pokebattle.model import BattleWinner

    matchups = pd.DataFrame(json.load(sys.stdin))
    model = BattleWinner.load(sys.argv[1])
    model.predict_proba(matchups.iloc[:1])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    answers, took = [], []
    for row in range(len(matchups)):
        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            p = model.predict_proba(matchups.iloc[row : row + 1])[0, 1]
            seconds.append(time.perf_counter() - began)
        answers.append(float(p))
        took.append(min(seconds) * 1e3)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    sys.stdout.write(json.dumps({"answers": answers, "ms": took, "memory_mb": memory}) + "\n")


if __name__ == "__main__":
    main()
