"""What can go wrong between us and a registry, in the words that Docker has for it."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from longshore.errors import EngineError, InvalidParameter, NotFound, System
from longshore.images.reference import Reference

_MESSAGES = {
    "UNAUTHORIZED": "authentication required",
    "DENIED": "requested access to the resource is denied",
    "TOOMANYREQUESTS": "too many requests",
}
LONGEST_WAIT = 60.0
"""Seconds: whoever asks for more is not asked again."""
_BY_STATUS = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}


class Unreachable(System):
    """No answer came: the connection failed, or broke."""


class Cancelled(System):
    """Nobody waits for the result any more."""

    def __init__(self) -> None:
        super().__init__("context canceled")


class RegistryError(System):
    """The registry's own refusal: a code of the distribution protocol, and what it says about it."""

    def __init__(self, code: str, message: str, wait: float | None = None) -> None:
        super().__init__(f"{code.lower().replace('_', ' ')}: {message}")
        self.code = code
        self.retry_after = wait
        """As of UnexpectedStatus."""


class UnexpectedStatus(System):
    """An answer that is no part of the protocol."""

    def __init__(self, message: str, status: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        """Seconds the registry asks us to stay away."""


class Refused(System):
    """Another registry, or another attempt, would not help: what we got is wrong, or not for us."""


def refusal(status: int, reason: str, headers: Any, body: bytes) -> System:
    """The error that an answer of 400 or more is."""
    if status >= 500:
        return UnexpectedStatus(
            f"received unexpected HTTP status: {status} {reason}", status, retry_after(headers)
        )
    for challenge in headers.getlist("WWW-Authenticate"):
        if 'error="insufficient_scope"' in challenge:
            return RegistryError("DENIED", _description(challenge) or _MESSAGES["DENIED"])
        if 'error="invalid_token"' in challenge:
            return RegistryError("UNAUTHORIZED", _description(challenge) or _MESSAGES["UNAUTHORIZED"])
    try:
        described = msgspec.json.decode(body)
    except msgspec.DecodeError:
        described = None
    if isinstance(described, dict):
        errors = described.get("errors")
        if isinstance(errors, list) and errors and isinstance(errors[0], dict):
            code = str(errors[0].get("code") or "UNKNOWN")
            message = str(errors[0].get("message") or _MESSAGES.get(code, "unknown error"))
            return RegistryError(code, message, retry_after(headers))
        if status in _BY_STATUS and isinstance(described.get("details"), str):
            return RegistryError(_BY_STATUS[status], described["details"])
    if status == 401:
        return RegistryError("UNAUTHORIZED", _MESSAGES["UNAUTHORIZED"])
    if status == 429:
        return UnexpectedStatus("toomanyrequests: too many requests", status, retry_after(headers))
    text = body[:512].decode(errors="replace").replace('"', '\\"').replace("\n", "\\n")
    return UnexpectedStatus(f'error parsing HTTP {status} response body: invalid character: "{text}"', status)


def renamed(error: EngineError, message: str) -> EngineError:
    """The same failure with more words; what was a refusal of one thing is none of the whole."""
    if isinstance(error, UnexpectedStatus):
        return UnexpectedStatus(message, error.status, error.retry_after)
    if isinstance(error, Unreachable | Cancelled):
        return error
    return Refused(message)


def named_refusal(method: str, url: str, error: EngineError) -> EngineError:
    """A failure to get hold of credentials, told as one of the request that needed them."""
    return renamed(error, f'{method.capitalize()} "{url}": {error}')


def translated(error: EngineError, reference: Reference) -> EngineError:
    """A failed pull, told to the user as dockerd does."""
    if isinstance(error, RegistryError):
        if error.code == "DENIED":
            return NotFound(
                f"pull access denied for {reference.familiar_name}, repository does not exist "
                f"or may require 'docker login': {error}"
            )
        if error.code == "MANIFEST_UNKNOWN":
            return NotFound(f"manifest for {reference.familiar} not found: {error}")
        if error.code == "NAME_UNKNOWN":
            return NotFound(f"repository {reference.familiar_name} not found: {error}")
    return error


def may_try_elsewhere(error: EngineError, mirror: bool) -> bool:
    """Whether the next endpoint may know better than the one that failed."""
    if isinstance(error, RegistryError | Refused):
        return mirror
    return not isinstance(error, Cancelled | InvalidParameter)


def may_try_again(error: BaseException) -> bool:
    """Whether the same request may succeed soon."""
    if (wait_asked_for(error) or 0) > LONGEST_WAIT:
        return False
    if isinstance(error, UnexpectedStatus):
        return error.status >= 500 or error.status in (408, 429)
    return isinstance(error, Unreachable) or (
        isinstance(error, RegistryError) and error.code == "TOOMANYREQUESTS"
    )


def wait_asked_for(error: BaseException) -> float | None:
    """Seconds that the registry asks us to stay away, None if it does not say."""
    return error.retry_after if isinstance(error, UnexpectedStatus | RegistryError) else None


def retry_after(headers: Any) -> float | None:
    """Seconds, from a Retry-After header: a number of them, or a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0)
    except (ValueError, OverflowError):
        return None


def _description(challenge: str) -> str:
    found = re.search(r'error_description="([^"]*)"', challenge)
    return found[1] if found else ""
