"""``python -m pokebattle.registry.smoke_test FOLDER``: load a model in a separate process and measure its predictions.

The standard input contains matchups as JSON records. The output contains the predictions, their times, and the memory.
Times are processor times, because wall-clock times also depend on what else the machine does.
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

REPEATS = 2  # each prediction is timed this often; the fastest counts


def ask(folder: Path, matchups: "pd.DataFrame", patience: float) -> dict[str, Any]:
    """Load a model in a fresh process, predict, and return the measurements.

    Parameters
    ----------
    folder : Path
        Contains the model's files.
    matchups : DataFrame
        Predicted one row at a time.
    patience : float
        Seconds after which the process is killed.

    Returns
    -------
    dict
        answers (P(A wins) of each matchup), ms (processor milliseconds of each prediction), memory_mb (peak memory, in
        10^6 bytes), seconds (processor seconds from the start to the first prediction). If the process failed: only
        error, in one line.
    """
    command = [sys.executable, "-m", "pokebattle.registry.smoke_test", str(folder)]
    try:
        done = subprocess.run(
            command,
            input=matchups.to_json(orient="records"),
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"the process that loads it did not answer within {patience:.0f} s"}
    if done.returncode == 0:
        return dict(json.loads(done.stdout))
    if done.returncode < 0:
        return {"error": f"the process that loads it was killed by {signal.Signals(-done.returncode).name}"}
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
    return {"error": f"the process that loads it failed: {last[:300]}"}


def main() -> None:
    """Load the model, predict each matchup, and write the measurements to the standard output."""
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
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in kilobytes elsewhere
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    sys.stdout.write(json.dumps({"answers": answers, "ms": took, "memory_mb": memory, "seconds": ready}))


if __name__ == "__main__":
    main()
