"""The shapes of answer that handlers give."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from longshore.api.errors import status_of
from longshore.api.http import Response
from longshore.errors import Abandoned
from longshore.types.codec import encode

log = logging.getLogger(__name__)

JSON = {"Content-Type": "application/json"}


def json_response(value: object, status: int = 200) -> Response:
    """`value` as JSON, ended by a newline as Go's encoder does."""
    return Response(status, encode(value) + b"\n", dict(JSON))


def no_content() -> Response:
    """204."""
    return Response(204)


async def progress_response(
    lines: AsyncIterator[bytes | dict[str, object]], errors_in_stream: bool = False
) -> Response:
    """A stream of progress messages, JSON objects each ended by CR and LF.

    An error before the first message is an ordinary one and raised; later ones, when the status is sent
    already, become the stream's last message, which is where clients look for them. `errors_in_stream`: so
    does one before the first message, as clients that load an image expect.
    """
    if errors_in_stream:
        return Response(200, _progress(None, lines), dict(JSON))
    try:
        first = await anext(lines)
    except StopAsyncIteration:
        return Response(200, b"", dict(JSON))
    return Response(200, _progress(first, lines), dict(JSON))


async def _progress(
    first: bytes | dict[str, object] | None, lines: AsyncIterator[bytes | dict[str, object]]
) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield _line(first)
        async for line in lines:
            yield _line(line)
    except (ConnectionError, Abandoned):
        raise
    except Exception as exc:
        if status_of(exc) >= 500:
            log.error("a stream of progress broke off: %s", exc, exc_info=exc)
        yield _line({"errorDetail": {"message": str(exc)}, "error": str(exc)})
    finally:
        close = getattr(lines, "aclose", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):
                await close()


def _line(message: bytes | dict[str, object]) -> bytes:
    return message if isinstance(message, bytes) else encode(message) + b"\r\n"
