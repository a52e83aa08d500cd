"""How much CPU time and memory the features of v2's battles cost.

``python benchmarks/features.py`` computes each feature set in a process of its own and prints one line per set, with
limits: CPU seconds (user and system), and the peak of the added memory, in multiples of the size of the matrix.
"""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

from pokebattle.datasets import formula_battles
from pokebattle.learning.features import matchup_features

LIMITS = {"raw": 3.0, "mechanics": 10.0}  # CPU seconds
PEAK = 1.5  # times the size of the matrix
STATUS = Path("/proc/self/status")


def megabytes(field: str) -> float:
    """Return a field of this process's status: VmRSS (memory held now) or VmHWM (its peak)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure(name: str) -> str:
    """Compute a feature set of v2 and return a line with its CPU time and peak memory."""
    matchups = formula_battles.battles("v2")[["species_a", "species_b", "move_a", "move_b"]]
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak (VmHWM)
    held, used = megabytes("VmRSS"), time.process_time()
    X = matchup_features(name).fit_transform(matchups)
    used = time.process_time() - used
    size = X.nbytes / 2**20
    peak = (megabytes("VmHWM") - held) / size
    return (
        f"{name}: {len(X)} rows x {X.shape[1]}, {used:.1f} CPU s (limit {LIMITS[name]:g}), {size:.0f} MB, "
        f"peak {peak:.2f} matrices (limit {PEAK:g})\n"
    )


def main() -> None:
    """Print one line per feature set, each measured in a process of its own."""
    for name in LIMITS:
        subprocess.run([sys.executable, __file__, name], check=True, env=os.environ)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(measure(sys.argv[1]))
    else:
        main()
