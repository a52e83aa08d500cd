"""What a project adds to tracking, through the entry-point group `nbtrack.plugins`.

An entry point names a module that has some of the functions of `Plugin`::

    [project.entry-points."nbtrack.plugins"]
    pokebattle = "pokebattle.plugin"
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

GROUP = "nbtrack.plugins"


class Plugin(Protocol):
    """The functions that a plugin may have; it may lack any of them."""

    def start_kernel(self) -> None:
        """Prepare a tracked kernel, before its cells import their first package."""

    def check_parameters(
        self, notebook: str, metadata: Mapping[str, Any], source: str, given: Mapping[str, Any]
    ) -> None:
        """Check papermill's parameters before a kernel starts.

        Parameters
        ----------
        notebook : str
            Name of the notebook in error messages.
        metadata : mapping
            The notebook's own ``pokebattle`` metadata.
        source : str
            Source of the cell tagged ``parameters``; "" without one.
        given : mapping
            Values of ``-p``, ``-f`` and ``-y`` by name.

        Raises
        ------
        ValueError
            If a parameter is invalid; papermill ends with this message.
        """

    def parameters_for_run_name(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return rejected parameters in a form from which the run's name can be built."""

    def model_logger(self, model: Any) -> Callable[..., Any] | None:
        """Return the function that logs a model of the project's own type; None for another model.

        The function is called as ``log(model, name=..., **options)``.
        """

    def after_sync(self) -> list[str]:
        """Deliver the project's own records after ``sync``, and return lines that say what was done.

        Raises
        ------
        OSError, ServerError
            If the server does not answer, or refuses a request.
        """

    def requirements(self) -> list[str]:
        """Return the pinned requirements of logged models; without it, MLflow infers them."""


@functools.cache
def plugins() -> tuple[Any, ...]:
    """Return the loaded plugins of this environment."""
    from importlib.metadata import entry_points  # takes 0.1 s, so only when it is needed

    return tuple(entry.load() for entry in entry_points(group=GROUP))


def functions(name: str) -> list[Callable[..., Any]]:
    """Return the functions of a name that the plugins have.

    Parameters
    ----------
    name : str
        A function of `Plugin`.
    """
    return [getattr(plugin, name) for plugin in plugins() if hasattr(plugin, name)]
