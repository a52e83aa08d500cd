"""How much longer fitting a model takes than XGBoost itself on the same matrix, and how much memory it needs.

``python benchmarks/training.py [--rounds 5]`` fits the models of v3 and v3_mechanics on their training part, and the
same trees with `xgboost.train` on the same feature matrix, in turns. It prints the median CPU seconds, the mean ratio
within a round with its interval, and the added peak memory of the process, without the matrix. The limit of the ratio
is 1.05.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import xgboost

from pokebattle.datasets import load_battles
from pokebattle.learning.features import matchup_features
from pokebattle.model import BattleWinner
from pokebattle.params import load_params

LIMIT = 1.05


def main() -> None:
    """Print time, ratio and memory for each version."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for version in ("v3", "v3_mechanics"):
        _say(*_compare(version, rounds))


def _compare(version: str, rounds: int) -> tuple[str, str]:
    params = load_params({"version": version})
    training = load_battles(params.dataset, params.protocol, params.max_matchups).training
    numbers = matchup_features(params.features).fit(training).both_orientations(training)
    wins, n = training["wins_a"].to_numpy(), training["n_battles"].to_numpy()
    model = BattleWinner.from_params(params)
    before = _peak()
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(_seconds(lambda: model.fit(numbers, wins, n)))
        bare.append(_seconds(lambda: _bare(model, numbers, wins / n, n)))
    ratios = np.array(ours) / np.array(bare)
    low, high = np.quantile(np.random.default_rng(0).choice(ratios, (2000, rounds)).mean(axis=1), [0.025, 0.975])
    first = (
        f"{version}: {numbers.shape[1]:,} matchups x {numbers.shape[2]} features from both sides, "
        f"{numbers.nbytes / 1e6:.0f} MB; peak of memory while fitting +{_peak() - before:.0f} MB"
    )
    second = (
        f"  model {np.median(ours):.2f} s, XGBoost alone {np.median(bare):.2f} s, ratio {ratios.mean():.3f} "
        f"[{low:.3f}, {high:.3f}], n {rounds}, limit {LIMIT}: {'yes' if ratios.mean() <= LIMIT else 'NO'}"
    )
    return first, second


def _bare(model: BattleWinner, numbers: np.ndarray, share: np.ndarray, n: np.ndarray) -> None:
    """Fit the same trees by calling XGBoost directly."""
    rows = xgboost.QuantileDMatrix(
        numbers.reshape(-1, numbers.shape[2]),
        label=np.append(share, 1 - share),
        weight=np.append(n, n),
        nthread=model.n_jobs,
    )
    settings = {name: value for name, value in model.get_params().items() if name not in {"features", "n_estimators"}}
    settings |= {
        "objective": "binary:logistic",
        "base_score": 0.5,
        "seed": settings.pop("random_state"),
        "nthread": settings.pop("n_jobs"),
    }
    xgboost.train(settings, rows, num_boost_round=model.n_estimators)


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
