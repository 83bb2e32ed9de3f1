"""The small family of errors that a Docker client can meet.

Raised where the fact is known; `longshore.api` maps each to an HTTP status in one place. The message is
shown to the user as it stands: it says what is wrong and, where possible, what to do.
"""


class EngineError(Exception):
    """An error that is meant for the user. Anything else that escapes is a bug and answered with 500."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidParameter(EngineError):
    """The request cannot be right whatever the state of the engine (400)."""


class Unauthorized(EngineError):
    """Credentials are missing or wrong (401)."""


class Forbidden(EngineError):
    """The request is understood and refused (403)."""


class NotFound(EngineError):
    """The named object does not exist (404)."""


class Conflict(EngineError):
    """The object's present state, or another object, stands in the way (409)."""


class NotModified(EngineError):
    """The object already is as asked (304, sent without a body)."""


class System(EngineError):
    """The machine or a program below the engine failed (500)."""


class NotImplementedHere(EngineError):
    """Docker has no such ability on this platform, or not as asked (501)."""


class Unavailable(EngineError):
    """The engine or a service it needs cannot answer now (503)."""


class Abandoned(EngineError):
    """The client left in the middle of what it sent or was sent: nobody is there to be told."""
