"""The errors of this package: how a request to an MLflow server can fail, and what a user can correct.

Standard library only.
"""

PASSING = {408, 425, 429}  # client errors that may not occur at the next attempt


class UserError(Exception):
    """An error that a user can correct. The message is one line; the command line shows it without a traceback."""


class UnsentError(ConnectionError):
    """No connection could be opened, so the request was certainly not carried out."""


class ServerError(Exception):
    """The server answered with an error.

    Parameters
    ----------
    status : int
        HTTP status.
    code : str
        MLflow's error code; empty if the answer has none.
    message : str
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"HTTP {status} {code}: {message}".replace(" :", ":"))
        self.status, self.code, self.message = status, code, message

    @property
    def denied(self) -> bool:
        """Whether the server requires other credentials."""
        return self.status in {401, 403}

    @property
    def permanent(self) -> bool:
        """Whether MLflow will never accept this request (a 404 without a code is from another program)."""
        return 400 <= self.status < 500 and self.status not in PASSING and (bool(self.code) or self.status != 404)

    @property
    def missing(self) -> bool:
        """Whether a named entity does not exist; a server with accounts then answers 403 without a code."""
        return self.code == "RESOURCE_DOES_NOT_EXIST" or (self.status == 403 and not self.code)


def is_unclear(error: OSError | ServerError) -> bool:
    """Return whether a request that failed with this error may have been carried out.

    Parameters
    ----------
    error : OSError or ServerError
    """
    if isinstance(error, ServerError):
        return error.status >= 500 or error.status == 408
    return not isinstance(error, UnsentError)
