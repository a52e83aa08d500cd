"""The base of the errors that a user can correct, and the hint that their messages end with."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """The message is one line; the command line shows it without a traceback."""


def did_you_mean(got: object, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return a hint at the name that is most similar to an invalid one; "" if none is.

    Parameters
    ----------
    got : object
        What was given.
    names : iterable of str
        The valid names.
    cutoff : float, default 0.6
        Similarity that a name needs, 0 to 1, as in `difflib.get_close_matches`.
    """
    near = get_close_matches(str(got), list(names), 1, cutoff)
    return f"; did you mean {near[0]}?" if near else ""
