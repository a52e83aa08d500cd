"""What runs inside kernels: it watches the cells and writes down what happens. IPython loads it as an extension."""

from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """Begin to watch ``shell``, unless it is no kernel or tracking is off."""
    from pokebattle.tracking.kernel.extension import watch

    watch(shell)
