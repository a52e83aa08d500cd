"""What tracking costs: the same work with tracking on and off, in turns, against real servers.

``python benchmarks/tracking.py [--pairs 30] [--only NAME ...] [--json FILE]`` prints one table:

- *without* and *with* are the medians of the untracked and the tracked side. For the 10,000th run they are those of 100
  and of 10,000 runs; in "its added / ours" they are the seconds added by our tracking and by the usual way.
- *median of* names the quantity: paired differences (added), paired ratios, or plain values. The median has a 95 %
  bootstrap interval over n rounds.
- *met* shows whether the median meets the target.

The usual way is ``mlflow.autolog()`` with its defaults in the first cell of an otherwise untracked notebook. It is
measured in every fifth round. All benchmarks with 30 pairs take about two hours on two free cores.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import history
import kernels
import volume
from comparison import DECIMALS, Figure

BENCHMARKS: dict[str, Callable[[int], list[Figure]]] = {
    "kernel-ready": kernels.ready,
    "trivial": commands.trivial,
    "train-v3": commands.train,
    "small-fit": kernels.fits,
    "cell": kernels.cells,
    "mlflow-calls": kernels.calls,
    "memory": kernels.memory,
    "10000th-run": history.compare,
    "big-notebook": volume.compare,
}
BUSY = 0.5  # above this load average the machine is not quiet
HEAD = (
    f"{'':<35} {'without':>9} {'with':>9} {'':<2} {'median of':<9} {'':>9} {'95 % interval':>20} {'n':>3}  "
    f"{'target':<9} met"
)


def main() -> int:
    """Run the chosen benchmarks and print each line as soon as it is ready; return 1 if a benchmark failed."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and kernels are shut down
    record: dict[str, Any] = {"machine": _machine(), "pairs": options.pairs, "figures": [], "failures": {}}
    _say(_describe(record["machine"]))
    _say(HEAD)
    for name in options.only or BENCHMARKS:
        began = time.monotonic()
        try:
            figures = BENCHMARKS[name](options.pairs)
        except Exception as error:  # the other benchmarks still run
            record["failures"][name] = f"{type(error).__name__}: {error}"
            _say(f"{name:<35} failed: {record['failures'][name]}")
            figures = []
        for figure in figures:
            _say(line(figure))
        record["figures"] += [_plain(name, figure) for figure in figures]
        record.setdefault("seconds", {})[name] = round(time.monotonic() - began, 1)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return 1 if record["failures"] else 0


def line(figure: Figure) -> str:
    """Return one line of the table."""
    digits = DECIMALS[figure.unit]
    unit = "" if figure.kind == "ratio" else figure.unit
    sign = "+" if figure.kind == "added" else ""
    value, low, high = (f"{number:{sign}.{digits}f}" for number in (figure.value, figure.low, figure.high))
    without, tracked = (f"{side:.{digits}f}" for side in figure.sides) if figure.sides else ("", "")
    target, met = ("", "") if figure.target is None else (str(figure.target), "yes" if figure.met else "NO")
    return (
        f"{figure.name:<35} {without:>9} {tracked:>9} {figure.unit if figure.sides else '':<2} "
        f"{figure.kind if figure.kind != 'median' else 'values':<9} {value:>9} {f'[{low}, {high}]':>20} {figure.n:>3}  "
        f"{f'{target} {unit}' if target else '':<9} {met}"
    ).rstrip()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=30, help="rounds that count (default 30)")
    parser.add_argument("--only", nargs="+", metavar="NAME", type=_key, choices=BENCHMARKS, help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single value here")
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error("--pairs must be at least 1")
    return options


def _key(name: str) -> str:
    return name.replace(" ", "-").replace(",", "")


def _machine() -> dict[str, Any]:
    load = os.getloadavg()[0]
    return {"cores": os.cpu_count(), "load": round(load, 2), "system": platform.platform(), "began": time.time()}


def _describe(machine: dict[str, Any]) -> str:
    text = f"{machine['cores']} cores, load average {machine['load']:.2f} before the start, {machine['system']}"
    if machine["load"] > BUSY:
        text += f"\nWARNING: the machine is not quiet (load average above {BUSY}); do not trust these numbers"
    return text


def _plain(benchmark: str, figure: Figure) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "name": figure.name,
        "unit": figure.unit,
        "kind": figure.kind,
        "median": figure.value,
        "interval": [figure.low, figure.high],
        "n": figure.n,
        "sides": figure.sides,
        "target": str(figure.target) if figure.target else None,
        "met": figure.met,
        "values": figure.raw,
    }


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
