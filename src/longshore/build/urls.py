"""URLs that carry a user and a password, which are nobody's to read but the server's."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import unquote, urlsplit

_MASK = "xxxxx"


def redacted(url: str) -> str:
    """`url` as it may be shown, in BuildKit's way; what is no URL stays as it is."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url
    name, colon, _ = user.partition(":")
    masked = f"{_MASK if name else ''}{colon}{_MASK if colon else ''}"
    return parts._replace(netloc=f"{masked}@{host}").geturl()


def authorization(url: str) -> dict[str, str]:
    """The header of HTTP's basic authentication (RFC 7617) for a URL's user and password, if it has any."""
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    name, _, password = user.partition(":")
    told = f"{unquote(name)}:{unquote(password)}".encode("utf-8", "surrogateescape")
    return {"Authorization": f"Basic {b64encode(told).decode()}"} if at else {}
