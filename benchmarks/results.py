"""The result tables of docs/results.md: every version, protocol and feature set, judged on the test part.

``python benchmarks/results.py [--version v3 ...] [--protocol pair ...]`` fits every feature set with the settings of
its version's file, under every protocol. It prints Markdown rows as soon as they are ready: all policies together, then
each policy. Intervals are over 1,000 resamples of the species, or of their families if the protocol has unseen species.
The whole takes about half an hour.
"""

import argparse
import sys
import time

import numpy as np
import pandas as pd

from pokebattle import evaluation
from pokebattle.datasets import BattleSet, load_battles, open_part, splits
from pokebattle.learning.baselines import baselines
from pokebattle.learning.features import matchup_features
from pokebattle.model import BattleWinner
from pokebattle.params import load_params

FITTED = {  # by version and feature set: the version whose file has the settings of the trees
    "v1": {"raw": "v1", "mechanics": "v1"},
    "v2": {"raw": "v2", "mechanics": "v2"},
    "v3": {"raw": "v3_raw", "mechanics": "v3_mechanics", "simulation": "v3"},
}
FIGURES = {
    "excess_percent": 1,
    "log_loss": 4,
    "brier": 4,
    "calibration_error": 4,
    "favourite_agreement": 3,
    "error_of_p": 3,
    "accuracy": 3,
}
HEAD = ("version", "protocol", "policy", "predictor", "matchups", *FIGURES)


def main() -> None:
    """Print the rows of the chosen versions and protocols."""
    options = _options()
    _say(HEAD)
    _say(["---"] * len(HEAD))
    for version in options.version:
        for protocol in options.protocol:
            predictions = {features: _predict(file, protocol, features) for features, file in FITTED[version].items()}
            battles = load_battles(load_params({"version": version}).dataset, protocol)
            test = evaluation.single_orientation(open_part(battles, "test"))
            _print(version, battles, test, predictions | baselines(battles.training, test))


def _predict(version: str, protocol: str, features: str) -> np.ndarray:
    """Fit a version's model under a protocol and on a feature set, and predict the test part."""
    params = load_params({"version": version}).model_copy(update={"features": features})
    began, battles = time.process_time(), load_battles(params.dataset, protocol, params.max_matchups)
    training = battles.training
    numbers = matchup_features(features).fit(training).both_orientations(training)
    described = time.process_time()
    model = BattleWinner.from_params(params).fit(numbers, training["wins_a"], training["n_battles"])
    sys.stderr.write(
        f"{version} {protocol} {features}: {numbers.shape}, features {described - began:.0f} s, "
        f"fit {time.process_time() - described:.0f} s of CPU\n"
    )
    return model.predict_proba(evaluation.single_orientation(open_part(battles, "test")))[:, 1]


def _print(version: str, battles: BattleSet, test: pd.DataFrame, predictions: dict[str, np.ndarray]) -> None:
    families = None if battles.protocol == "pair" else battles.families
    scores = evaluation.evaluate_policies(test, predictions, n_bootstrap=1000, random_state=42, families=families)
    for policy, part in scores.groupby("policy", sort=False):
        table = evaluation.result_table(part, FIGURES)
        for predictor, cells in table.iterrows():
            if policy == "all" or predictor in (*FITTED[version], evaluation.LIMIT):
                n = part.loc[part["predictor"] == predictor, "n_matchups"].iloc[0]
                _say([version, battles.protocol, policy, predictor, f"{n:,}", *cells])


def _say(cells: object) -> None:
    sys.stdout.write("| " + " | ".join(map(str, cells)) + " |\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--version", nargs="+", default=list(FITTED), choices=FITTED)
    parser.add_argument("--protocol", nargs="+", default=list(splits.PROTOCOLS), choices=splits.PROTOCOLS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
