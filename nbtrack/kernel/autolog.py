"""Record every fit of an XGBoost model or a scikit-learn predictor.

MLflow's own autologging imports MLflow into every kernel and resolves requirements in a subprocess at each fit; what
is done here costs well under a millisecond and needs no server.
"""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from nbtrack.kernel.import_hooks import after_import
from nbtrack.terminal import say_once

Emit = Callable[..., None]
_outer = threading.local()  # a fit inside a fit (a pipeline's step, a search's candidate) is not reported


def install(emit: Emit) -> None:
    """Report fits as ``fit`` events once the libraries are imported.

    Parameters
    ----------
    emit : callable
        Takes the event's kind and its fields.
    """
    after_import("sklearn.base", lambda module: _watch_sklearn(module, emit))
    after_import("xgboost.training", lambda module: _watch_xgboost(module, emit))


def _watch_sklearn(module: Any, emit: Emit) -> None:
    """Wrap the decorator that scikit-learn applies to every ``fit``."""
    plain = module._fit_context

    @functools.wraps(plain)
    def fit_context(*args: Any, **kwargs: Any) -> Any:
        decorate = plain(*args, **kwargs)

        def decorator(method: Any) -> Any:
            decorated = decorate(method)
            return _reporting_fit(decorated, emit) if method.__name__ == "fit" else decorated

        return decorator

    module._fit_context = fit_context


def _reporting_fit(fit: Callable[..., Any], emit: Emit) -> Callable[..., Any]:
    @functools.wraps(fit)
    def call(estimator: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(_outer, "busy", False) or not hasattr(type(estimator), "predict"):
            return fit(estimator, *args, **kwargs)
        _outer.busy, began = True, time.perf_counter()
        try:
            result = fit(estimator, *args, **kwargs)
        finally:
            _outer.busy = False
        data = args[0] if args else kwargs.get("X")
        seconds = round(time.perf_counter() - began, 6)
        _emit_fit(
            emit,
            lambda: {
                "model": type(estimator).__name__,
                "params": _plain_values(estimator.get_params()),
                "shape": list(getattr(data, "shape", ())),
                "seconds": seconds,
            },
        )
        return result

    return call


def _watch_xgboost(module: Any, emit: Emit) -> None:
    plain = module.train

    @functools.wraps(plain)
    def train(params: Any, dtrain: Any, num_boost_round: int = 10, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        history = kwargs.get("evals_result")
        if history is None and kwargs.get("evals"):
            history = kwargs["evals_result"] = {}
        booster = plain(params, dtrain, num_boost_round, *args, **kwargs)
        seconds = round(time.perf_counter() - began, 6)
        _emit_fit(
            emit,
            lambda: {
                "model": "xgboost",
                "params": _plain_values({**dict(params), "num_boost_round": num_boost_round}),
                "shape": [dtrain.num_row(), dtrain.num_col()],
                "seconds": seconds,
                "history": {
                    f"{data}-{metric}": list(map(float, values))
                    for data, metrics in (history or {}).items()
                    for metric, values in metrics.items()
                },
            },
        )
        return booster

    module.train = train


def _emit_fit(emit: Emit, describe: Callable[[], dict[str, Any]]) -> None:
    """Emit a ``fit`` event with the fields that ``describe`` returns; an error in it does not affect the fit."""
    try:
        emit("fit", **describe())
    except Exception as error:
        say_once(f"a fit was not recorded ({type(error).__name__}: {error})")


def _plain_values(params: dict[str, Any]) -> dict[str, Any]:
    """Return the values that can be compared between runs: numbers, strings and booleans."""
    return {name: value for name, value in params.items() if isinstance(value, str | int | float | bool)}
