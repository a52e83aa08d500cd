"""How a request to an MLflow server can end other than well, and what that means. Standard library only."""

PASSING = {408, 425, 429}  # client errors that the next attempt may not meet


class UnsentError(ConnectionError):
    """Nobody took the connection, so that nothing can have been carried out."""


class ServerError(Exception):
    """The server answered, and refused: ``status`` and ``code`` say how."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"HTTP {status} {code}: {message}".replace(" :", ":"))
        self.status, self.code, self.message = status, code, message

    @property
    def denied(self) -> bool:
        """The server wants other credentials."""
        return self.status in {401, 403}

    @property
    def permanent(self) -> bool:
        """MLflow itself will never take this request (a 404 without a code came from another program)."""
        return 400 <= self.status < 500 and self.status not in PASSING and (bool(self.code) or self.status != 404)

    @property
    def missing(self) -> bool:
        """What was named is not there; a server with accounts says 403 without a code then."""
        return self.code == "RESOURCE_DOES_NOT_EXIST" or (self.status == 403 and not self.code)


def is_unclear(error: OSError | ServerError) -> bool:
    """Tell whether a request that ended like this may have been carried out."""
    if isinstance(error, ServerError):
        return error.status >= 500 or error.status == 408
    return not isinstance(error, UnsentError)
