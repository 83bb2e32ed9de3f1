"""URLs that carry a user and a password, which are nobody's to read but the server's."""

from __future__ import annotations

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


def credentials(url: str) -> str | None:
    """`user:password` for HTTP's basic authentication; None if there is neither."""
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    name, _, password = user.partition(":")
    return f"{unquote(name)}:{unquote(password)}" if at else None
