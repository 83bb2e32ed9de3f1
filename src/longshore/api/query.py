"""Query parameters and bodies, read as dockerd's httputils reads them."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from longshore.api.http import Request
from longshore.errors import InvalidParameter
from longshore.types.codec import convert
from longshore.types.filters import parse_filters

T = TypeVar("T")

MAX_JSON = 16 << 20
"""Bytes of a JSON body; no honest one comes near, and a body is held in memory whole."""


def string(request: Request, name: str, default: str = "") -> str:
    """The first value of a parameter."""
    return request.query.get(name, [default])[0]


def boolean(request: Request, name: str, default: bool = False) -> bool:
    """A parameter as Go's BoolValue reads it: absent is `default`, only a few words are false."""
    if name not in request.query:
        return default
    return string(request, name).strip().lower() not in ("", "0", "no", "false", "none")


def integer(request: Request, name: str, default: int | None = None) -> int | None:
    """A whole number; absent or empty is `default`. Raises InvalidParameter as strconv.Atoi words it."""
    text = string(request, name)
    if not text:
        return default
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax')
    digits = text.lstrip("+-").lstrip("0") or "0"
    # Python refuses to convert thousands of digits, Go says that they are too many.
    size = int(digits) if len(digits) < 20 else 1 << 64
    number = -size if text[0] == "-" else size
    if not -(1 << 63) <= number < 1 << 63:
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": value out of range')
    return number


def filters(request: Request) -> dict[str, list[str]]:
    """The `filters` parameter. Raises InvalidParameter."""
    return parse_filters(string(request, "filters"))


async def json_object(request: Request) -> dict[str, object] | None:
    """The body as a plain JSON object; None if there is none. Raises InvalidParameter, worded as dockerd."""
    check_content_type(request)
    if request.body.empty:
        return None
    raw = await request.body.read(MAX_JSON)
    if not raw.strip():
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    try:
        plain = msgspec.json.decode(raw)
    except msgspec.DecodeError as exc:
        if "trailing characters" in str(exc):
            raise InvalidParameter("unexpected content after JSON") from None
        raise InvalidParameter(f"invalid JSON: {_as_go(exc)}") from None
    except RecursionError:
        raise InvalidParameter("invalid JSON: exceeded max depth") from None
    if plain is None:
        return {}
    if not isinstance(plain, dict):
        raise InvalidParameter("invalid JSON: json: cannot unmarshal a value that is no object")
    return plain


async def json_body(request: Request, kind: type[T]) -> T:
    """The body as `kind`, which is all defaults if there is none. Raises InvalidParameter."""
    return convert(await json_object(request) or {}, kind)


def check_content_type(request: Request) -> None:
    """Raises InvalidParameter for a body that is not declared to be JSON."""
    content_type = request.headers.get("content-type", "")
    if not content_type:
        if request.body.empty:
            return
        raise InvalidParameter("malformed Content-Type header (): mime: no media type")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise InvalidParameter(
            f"unsupported Content-Type header ({content_type}): must be 'application/json'"
        )


def _as_go(exc: msgspec.DecodeError) -> str:
    return "unexpected EOF" if "truncated" in str(exc) else str(exc)
