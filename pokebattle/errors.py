"""The base of the errors that a user can correct, and the suggestion at the end of their messages."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches


class UserError(Exception):
    """An error that a user can correct; separate from `nbtrack.errors.UserError`: served models run without nbtrack.

    The message is one line; the command line and notebooks show it without a traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Return only the message; IPython calls this and shows it in a notebook instead of the traceback."""
        return [f"{type(self).__name__}: {self}"]


class UnavailableError(UserError, ConnectionError):
    """A server or a database does not answer, or refuses this account."""


def did_you_mean(got: object, names: Iterable[str], cutoff: float = 0.6, plain: Callable[[str], str] = str) -> str:
    """Suggest the valid name that is most similar to an invalid one; "" if none is similar enough.

    Parameters
    ----------
    got : object
        The invalid name.
    names : iterable of str
        The valid names. Empty names are ignored.
    cutoff : float, default 0.6
        Similarity that a name needs, 0 to 1, as in `difflib.get_close_matches`.
    plain : callable, default str
        Normalises names before they are compared. The suggestion is the original name.
    """
    known = {plain(str(name)): name for name in names if name}
    near = get_close_matches(plain(str(got)), list(known), 1, cutoff)
    return f"; did you mean {known[near[0]]}?" if near else ""
