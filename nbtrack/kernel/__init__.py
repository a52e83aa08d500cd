"""The IPython extension inside kernels: it watches the cells and records events."""

from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """Start to watch ``shell``, unless it is not a kernel's or tracking is off.

    Parameters
    ----------
    shell : InteractiveShell
    """
    from nbtrack.kernel.extension import watch

    watch(shell)
