"""``python -m pokebattle.registry.probe FOLDER``: load a model in a process of its own and let it answer.

Matchups come as JSON records on the standard input; the output holds the answers, what they took, and the memory. Times
are the processor's: those of the clock tell what else the machine does.
"""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

REPEATS = 2  # answers to the same question; the quicker counts


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
        answers, ms (of the processor, for each), memory_mb, seconds (of the processor, until the first answer); or
        error alone, in one line.
    """
    command = [sys.executable, "-m", "pokebattle.registry.probe", str(folder)]
    try:
        done = subprocess.run(command, input=matchups.to_json(orient="records"), capture_output=True, text=True,
                              timeout=patience, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"the process that loads it had not answered after {patience:.0f} s"}
    if done.returncode == 0:
        return dict(json.loads(done.stdout))
    if done.returncode < 0:
        return {"error": f"the process that loads it was ended by {signal.Signals(-done.returncode).name}"}
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
    return {"error": f"the process that loads it failed: {last[:300]}"}


def main() -> None:
    """Load, answer one by one, tell."""
    import pandas as pd

    from pokebattle.model import BattleWinner

    matchups = pd.DataFrame(json.load(sys.stdin))
    model = BattleWinner.load(sys.argv[1])
    model.predict_proba(matchups.iloc[:1])
    ready, answers, took = time.process_time(), [], []
    for row in range(len(matchups)):
        seconds = []
        for _ in range(REPEATS):
            began = time.process_time()
            p = model.predict_proba(matchups.iloc[row : row + 1])[0, 1]
            seconds.append(time.process_time() - began)
        answers.append(float(p))
        took.append(min(seconds) * 1e3)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    sys.stdout.write(json.dumps({"answers": answers, "ms": took, "memory_mb": memory, "seconds": ready}))


if __name__ == "__main__":
    main()
