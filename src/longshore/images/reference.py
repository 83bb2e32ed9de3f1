"""Names of images: parsing and Docker's normalisation (github.com/distribution/reference)."""

from __future__ import annotations

import re
from typing import NamedTuple

from longshore.errors import InvalidParameter

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN_NAME = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_DOMAIN_NAME}(?:\.{_DOMAIN_NAME})*|\[(?:[a-fA-F0-9:]+)\])"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_REFERENCE = re.compile(
    rf"(?P<domain>{_HOST}(?::[0-9]+)?)/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)
_TAG_ONLY = re.compile(_TAG)
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_LONGEST_NAME = 255


class Reference(NamedTuple):
    """A normalised name: `docker.io/library/busybox`, with a tag, a digest, both or neither ("")."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as users write it: `busybox`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        return self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path

    @property
    def familiar(self) -> str:
        """Name, tag and digest as users write them."""
        return self.familiar_name + self._suffix

    def __str__(self) -> str:
        return self.name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def tagged(self) -> Reference:
        """With `latest`, unless there is a tag or a digest."""
        return self if self.tag or self.digest else self._replace(tag=DEFAULT_TAG)

    @property
    def untagged(self) -> Reference:
        """The name only."""
        return Reference(self.domain, self.path)


def parse(text: str) -> Reference:
    """Parse what a user wrote. Raises InvalidParameter with Docker's words."""
    if _IDENTIFIER.fullmatch(text):
        raise InvalidParameter(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    domain, remainder = _split_domain(text)
    remote = remainder.split("@", 1)[0]
    remote = remote[: remote.index(":")] if ":" in remote else remote
    if remote != remote.lower():
        raise InvalidParameter(f"invalid reference format: repository name ({remote}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if match is None:
        raise InvalidParameter("invalid reference format")
    reference = Reference(match["domain"], match["path"], match["tag"] or "", match["digest"] or "")
    if len(reference.path) > _LONGEST_NAME:
        raise InvalidParameter("repository name must not be more than 255 characters")
    if reference.digest.startswith("sha256:") and not _SHA256.fullmatch(reference.digest):
        raise InvalidParameter("invalid checksum digest length")
    return reference


def parse_any(text: str) -> Reference | str:
    """A reference, or the digest if `text` is a full image id, with or without `sha256:`."""
    if _IDENTIFIER.fullmatch(text):
        return f"sha256:{text}"
    if _SHA256.fullmatch(text):
        return text
    return parse(text)


def with_tag(reference: Reference, tag: str) -> Reference:
    """The same name with a tag of its own. Raises InvalidParameter."""
    if not _TAG_ONLY.fullmatch(tag):
        raise InvalidParameter("invalid tag format")
    return reference._replace(tag=tag)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or (
        "." not in first and ":" not in first and first != "localhost" and first.lower() == first
    ):
        domain, remainder = DEFAULT_DOMAIN, text
    else:
        domain, remainder = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = f"library/{remainder}"
    return domain, remainder
