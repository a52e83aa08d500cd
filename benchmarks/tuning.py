"""What it costs to track a search in MLflow, compared with Optuna's callback and nested runs, and what workers gain.

``python benchmarks/tuning.py [--trials 20] [--rounds 5] [--only NAME ...]`` starts a server of its own and prints the
median of each quantity, its 95 % bootstrap interval over n values, and its limit:

- *tracked*: wall time of a search in a kernel with tracking, over the wall time without.
- *blocking*: milliseconds that the end of a trial waits for tracking.
- *workers*: trials per minute of two workers, over those of one, for trials of `--seconds`.
- *resume*: seconds until a study of 1,000 trials continues.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jupyter_client
import mlflow
import optuna
from comparison import interval
from optuna.distributions import FloatDistribution
from optuna_integration.mlflow import MLflowCallback

from nbtrack import server
from pokebattle.params import load_params
from pokebattle.tuning import search as searches

SEARCH = """
import time
from types import SimpleNamespace
from tuning import Quick, opened
from pokebattle.tuning.trial_runs import TrialRuns
Quick.seconds = {seconds}
search = opened({url!r})
blocked = []
plain = TrialRuns.note
def note(self):
    began, known = time.perf_counter(), len(self._sent)
    plain(self)
    if len(self._sent) > known:
        blocked.append(1000 * (time.perf_counter() - began))
TrialRuns.note = note
began = time.perf_counter()
search.run({trials})
print(time.perf_counter() - began, *blocked)
"""


class Quick:
    """Computes instead of folds for a given time and reports ten intermediate values."""

    interval, seconds = 1, 0.0

    def __init__(self, params: Any, battles: Any) -> None:
        self.params, self.seconds = params, type(self).seconds

    def defaults(self) -> dict[str, Any]:
        """Return the parameters of the first trial."""
        return {"learning_rate": 0.1}

    def __call__(self, trial: optuna.Trial) -> float:
        """Return the value of a trial."""
        rate = trial.suggest_float("learning_rate", 0.01, 1.0, log=True)
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass
        for step in range(10):
            trial.report(rate + 1 / (step + 1), step)
        for name in ("rounds", "predict_us", "fit_seconds", "log_loss"):
            trial.set_user_attr(name, rate)
        return abs(rate - 0.2)


def opened(url: str) -> searches.Search:
    """Open a search with `Quick` instead of folds."""
    searches.InnerFolds = Quick  # type: ignore[misc]
    battles: Any = SimpleNamespace(digest="battles")
    return searches.open_search(load_params({"version": "sample"}), battles, url)


def tracked(uri: str, options: argparse.Namespace) -> None:
    """Compare searches in kernels with tracking on and off, in turns; then time the usual ways to track trials."""
    ratios, blocked = [], []
    for turn in range(options.rounds):
        seconds = {}
        for switch in ("on", "off") if turn % 2 else ("off", "on"):
            figures = _in_kernel(uri, switch, options)
            seconds[switch], waited = figures[0], figures[1:]
            blocked += waited
        ratios.append(seconds["on"] / seconds["off"])
    say("tracked over untracked, wall time", ratios, "at most 1.05", lambda value: value <= 1.05)
    say("blocking of a trial, ms", blocked, "at most 20", lambda value: value <= 20)
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("usual")
    say("  nested start_run instead, ms", list(_nested(options.trials)))
    say("  Optuna's MLflowCallback instead, ms", list(_callback(uri, options.trials)))


def _callback(uri: str, count: int) -> Iterable[float]:
    study = optuna.create_study()
    callback = MLflowCallback(uri, metric_name="log_loss", create_experiment=False, mlflow_kwargs={"nested": True})
    with mlflow.start_run():
        for _ in range(count):
            trial = study.ask()
            study.tell(trial, trial.suggest_float("learning_rate", 0.01, 1.0, log=True))
            began = time.perf_counter()
            callback(study, study.trials[-1])
            yield 1000 * (time.perf_counter() - began)


def _nested(count: int) -> Iterable[float]:
    with mlflow.start_run():
        for _ in range(count):
            began = time.perf_counter()
            with mlflow.start_run(nested=True):
                mlflow.log_params({"learning_rate": 0.1})
                mlflow.log_metrics(dict.fromkeys(["rounds", "predict_us", "fit_seconds", "log_loss"], 0.1))
            yield 1000 * (time.perf_counter() - began)


def _in_kernel(uri: str, switch: str, options: argparse.Namespace) -> list[float]:
    """Search in a new kernel; return its seconds, then the milliseconds for which tracking blocked each trial."""
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"POKEBATTLE_STATE": folder, "POKEBATTLE_TRACKING": switch, "MLFLOW_TRACKING_URI": uri}
        manager, client = jupyter_client.manager.start_new_kernel(env=env, cwd=str(Path(__file__).parent))
        url = f"sqlite:///{folder}/studies.db"
        texts: list[str] = []
        try:
            reply = client.execute_interactive(
                SEARCH.format(seconds=options.seconds, url=url, trials=options.trials),
                timeout=3600,
                output_hook=lambda message: texts.append(message["content"].get("text", "")),
            )
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(reply["content"]["evalue"])
    return [float(word) for word in "".join(texts).split()]


def workers(uri: str, options: argparse.Namespace) -> None:
    """Compare two workers with one: trials per time, from the start of the first trial to the end of the last."""
    Quick.seconds, gains = options.seconds, []
    for turn in range(options.rounds):
        rate = {}
        for count in (1, 2) if turn % 2 else (2, 1):
            with tempfile.TemporaryDirectory() as folder:
                search = opened(f"sqlite:///{folder}/studies.db")
                search.run(options.trials, workers=count)
                done = search.study.get_trials()
                starts = [one.datetime_start for one in done if one.datetime_start]
                ends = [one.datetime_complete for one in done if one.datetime_complete]
                rate[count] = len(ends) / (max(ends) - min(starts)).total_seconds()
        gains.append(rate[2] / rate[1])
    say(f"two workers over one, trials of {options.seconds} s", gains, "at least 1.6", lambda value: value >= 1.6)


def resume(uri: str, options: argparse.Namespace) -> None:
    """Measure how long it takes to continue a study of 1,000 trials."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/studies.db"
        study = opened(url).study
        space = {"learning_rate": FloatDistribution(0.01, 1.0, log=True)}
        study.add_trials(
            [
                optuna.create_trial(
                    value=n / 1000,
                    params={"learning_rate": 0.01 + n / 1100},
                    distributions=space,
                    intermediate_values=dict.fromkeys(range(10), 0.1),
                )
                for n in range(1000)
            ]
        )
        seconds = []
        for _ in range(options.rounds):
            began = time.perf_counter()
            opened(url).run(1000)
            seconds.append(time.perf_counter() - began)
    say("going on with 1,000 trials, s", seconds, "at most 5", lambda value: value <= 5)


def say(name: str, values: list[float], limit: str = "", met: Callable[[float], bool] = bool) -> None:
    """Print the median of ``values``, its interval, and whether it meets the limit."""
    value, (low, high) = statistics.median(values), interval(values)
    verdict = f", {limit}: {'yes' if met(value) else 'NO'}" if limit else ""
    sys.stdout.write(f"{name:<44} {value:.3g} [{low:.3g}, {high:.3g}], n {len(values)}{verdict}\n")
    sys.stdout.flush()


BENCHMARKS = {"tracked": tracked, "workers": workers, "resume": resume}


def main() -> None:
    """Run the chosen benchmarks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="that a trial computes")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that server and kernels are shut down
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # hundreds of runs would print theirs
    uri = ""
    if "tracked" in options.only:
        server.DEFAULT_URI, server.tracking_uri = "http://127.0.0.1:0", lambda: "http://127.0.0.1:9"
        uri, _ = server.start()
    try:
        for name in options.only:
            BENCHMARKS[name](uri, options)
    finally:
        if uri:
            server.stop()


if __name__ == "__main__":
    main()
