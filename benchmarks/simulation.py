"""How fast the simulator is, and how close its chances are to the engine's.

For every policy, ``python benchmarks/simulation.py`` prints the simulated battles per CPU second (user and system time,
with tables and data frames). Then it draws new matchups, lets the engine fight them, and prints the excess of the
simulated chances: how much higher their log-loss is than the Bayes limit, by number of simulated battles, with its
95 % interval over resamples of the species.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pokebattle import engine
from pokebattle.evaluation import evaluate
from pokebattle.game import matchups as battles
from pokebattle.paths import state_dir
from pokebattle.simulation import simulate

POLICIES = {"best_move": 300, "given_move": 300, "random_move": 100}  # matchups that the engine fights
N_ENGINE = 200  # battles per matchup
N_SIMULATED = (256, 1024, 4096, 16384)
N_TIMED = 1000


def speed(matchups: pd.DataFrame) -> float:
    """Return the simulated battles per CPU second."""
    simulate(matchups.head(1), 1)  # compile, or load the compiled code
    began = time.process_time()
    simulate(matchups, N_TIMED)
    return len(matchups) * N_TIMED / (time.process_time() - began)


def chances(matchups: pd.DataFrame, n: int) -> np.ndarray:
    """Return simulated chances, smoothed so that they are never 0 or 1."""
    wins = np.round(simulate(matchups, n)["win_probability"].to_numpy() * n)
    return (wins + 0.5) / (n + 1)


def measure(policy: str, n_matchups: int, cache: Path, n_bootstrap: int) -> None:
    """Print the speed and the excesses of a policy."""
    drawn = battles.matchups(policy).sample(n_matchups, random_state=0).reset_index(drop=True)
    sys.stdout.write(f"{policy}: {speed(drawn) / 1e6:.1f} million battles a CPU second\n")
    fought = engine.fight(drawn, N_ENGINE, stream="training", cache=cache)
    predictions = {str(n): chances(fought, n) for n in N_SIMULATED}
    scores = evaluate(fought, predictions, n_bootstrap=n_bootstrap, random_state=0)
    for row in scores[scores["metric"] == "excess_percent"].iloc[:-1].itertuples():
        sys.stdout.write(
            f"  {row.predictor:>5} simulated: excess {row.value:.2f} % [{row.low:.2f}, {row.high:.2f}], "
            f"{n_matchups} matchups x {N_ENGINE}\n"
        )


def main() -> None:
    """Print the speed and the excesses of every policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=state_dir() / "battles", help="folder of fought chunks")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples of the species")
    options = parser.parse_args()
    for policy, n_matchups in POLICIES.items():
        measure(policy, n_matchups, options.cache, options.bootstrap)


if __name__ == "__main__":
    main()
