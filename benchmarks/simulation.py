"""How fast the simulator is, and how near its chances are to the engine's.

``python benchmarks/simulation.py`` prints a line a policy: simulated battles a CPU second (user and system, tables and
frames included); then, on matchups that are drawn anew and fought here, the excess of the log-loss of the simulated
chances over the Bayes limit, by battles simulated, with its 95 % interval over resamples of the species.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pokebattle import battles, engine
from pokebattle.evaluation import evaluate
from pokebattle.places import state_dir
from pokebattle.simulation import simulate

POLICIES = {"best_move": 300, "given_move": 300, "random_move": 100}  # matchups that the engine fights
N_ENGINE = 200  # battles of each
N_SIMULATED = (256, 1024, 4096, 16384)
N_TIMED = 1000


def speed(matchups: pd.DataFrame) -> float:
    """Return battles a CPU second."""
    simulate(matchups.head(1), 1)  # compiles, or loads what was compiled
    began = time.process_time()
    simulate(matchups, N_TIMED)
    return len(matchups) * N_TIMED / (time.process_time() - began)


def chances(matchups: pd.DataFrame, n: int) -> np.ndarray:
    """Return simulated chances that are never 0 or 1."""
    wins = np.round(simulate(matchups, n)["win_probability"].to_numpy() * n)
    return (wins + 0.5) / (n + 1)


def measure(policy: str, n_matchups: int, cache: Path, n_bootstrap: int) -> None:
    """Print the lines of a policy."""
    drawn = battles.matchups(policy).sample(n_matchups, random_state=0).reset_index(drop=True)
    sys.stdout.write(f"{policy}: {speed(drawn) / 1e6:.1f} million battles a CPU second\n")
    fought = engine.fight(drawn, N_ENGINE, stream="training", cache=cache)
    predictions = {str(n): chances(fought, n) for n in N_SIMULATED}
    scores = evaluate(fought, predictions, n_bootstrap=n_bootstrap, random_state=0)
    for row in scores[scores["figure"] == "excess_percent"].iloc[:-1].itertuples():
        sys.stdout.write(f"  {row.predictor:>5} simulated: excess {row.value:.2f} % [{row.low:.2f}, {row.high:.2f}], "
                         f"{n_matchups} matchups x {N_ENGINE}\n")


def main() -> None:
    """Print the lines of every policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=state_dir() / "battles", help="folder of fought chunks")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples of the species")
    options = parser.parse_args()
    for policy, n_matchups in POLICIES.items():
        measure(policy, n_matchups, options.cache, options.bootstrap)


if __name__ == "__main__":
    main()
