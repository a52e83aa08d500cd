"""The kernel extension."""


def load_ipython_extension(shell: object) -> None:
    """Start tracking in this kernel."""
