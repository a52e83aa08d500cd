"""Run a callback right after a module is imported, without importing the module."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from nbtrack.terminal import say

Callback = Callable[[Any], None]


def after_import(name: str, callback: Callback) -> None:
    """Call ``callback(module)`` once a module has been imported, or now if it already has been.

    Parameters
    ----------
    name : str
        The module's name.
    callback : callable
    """
    if name in sys.modules:
        callback(sys.modules[name])
        return
    _finder().callbacks[name] = callback


def before_first_package(callback: Callable[[], None]) -> None:
    """Call ``callback()`` before the next package that is not of the standard library is imported.

    An error in it is one line on the terminal: the user's import must not fail, and tracking continues.

    Parameters
    ----------
    callback : callable
    """
    _finder().before_package = callback


def replace(module: Any, name: str, value: Any) -> None:
    """Set an attribute of a module, also in modules of its package that have already imported it by that name.

    Parameters
    ----------
    module : module
    name : str
    value : object
    """
    plain, package = getattr(module, name), module.__name__.partition(".")[0]
    for other, loaded in list(sys.modules.items()):
        if other.partition(".")[0] == package and vars(loaded).get(name) is plain:
            setattr(loaded, name, value)


def _finder() -> "_Finder":
    installed = next((finder for finder in sys.meta_path if isinstance(finder, _Finder)), None)
    if installed is None:
        installed = _Finder()
        sys.meta_path.insert(0, installed)
    return installed


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self.callbacks: dict[str, Callback] = {}
        self.before_package: Callable[[], None] | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if "." not in name and name not in sys.stdlib_module_names:
            before_package, self.before_package = self.before_package, None
            try:
                if before_package:
                    before_package()
            except Exception as error:
                say(f"plugins are not started ({type(error).__name__}: {error})")
        callback = self.callbacks.pop(name, None)
        if callback is None:
            return None
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, callback)
        return spec


class _Loader(importlib.abc.Loader):
    """Runs the module's own loader, then the callback."""

    def __init__(self, loader: Any, callback: Callback) -> None:
        self._loader, self._callback = loader, callback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        try:
            self._callback(module)
        except Exception as error:  # the user's import must not fail
            say(f"{module.__name__} is not tracked ({type(error).__name__}: {error})")
