"""The model registry: publish and load models, judge versions by gates, and move them to Production.

The names in `__all__` are imported lazily, so that importing this package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pokebattle.registry.loading import load_registered, load_version, registered_versions
    from pokebattle.registry.publication import Published, keep, log_model, metadata, publish, requirements

__all__ = [
    "Published",
    "keep",
    "load_registered",
    "load_version",
    "log_model",
    "metadata",
    "publish",
    "registered_versions",
    "requirements",
]
LOADING = {"load_registered", "load_version", "registered_versions"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'loading' if name in LOADING else 'publication'}"), name)
