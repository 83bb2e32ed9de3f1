"""From the engine's errors to HTTP's; the only place that knows both."""

from __future__ import annotations

import logging

from longshore import errors
from longshore.api.http import ProtocolError, Response
from longshore.types.codec import encode

log = logging.getLogger(__name__)

STATUS: dict[type[errors.EngineError], int] = {
    errors.InvalidParameter: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.System: 500,
    errors.NotImplementedHere: 501,
    errors.Unavailable: 503,
}


def status_of(exc: BaseException) -> int:
    """The status that answers `exc`: its class's in STATUS, or its nearest base's; 500 for anything else."""
    for kind in type(exc).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return exc.status if isinstance(exc, ProtocolError) else 500


def error_response(exc: Exception, what: str) -> Response:
    """The answer to the request described by `what`, which failed. Bugs are logged with their traceback."""
    status = status_of(exc)
    if status == 304:
        return Response(304)
    if not isinstance(exc, errors.EngineError | ProtocolError):
        log.error("Handler for %s returned error: %s", what, exc, exc_info=exc)
    elif status >= 500 and not isinstance(exc, errors.Abandoned):
        log.error("Handler for %s returned error: %s", what, exc)
    else:
        log.debug("Handler for %s returned error: %s", what, exc)
    body = encode({"message": str(exc) or type(exc).__name__}) + b"\n"
    return Response(status, body, {"Content-Type": "application/json"})
