"""What is known of blobs in registries: `image/<driver>/distribution`, as dockerd keeps it.

`diffid-by-digest` tells which layer a compressed blob holds, so that it need not be fetched again.
`v2metadata-by-diffid` tells in which repositories a layer lies as which blob, so that a push can skip or
mount it. All of it is hints: losing a file costs time only.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from pathlib import Path

import msgspec

from longshore.layers.layerdb import DIGEST
from longshore.linux.files import write_atomically
from longshore.types.registry import AuthConfig

_MOST_SOURCES = 50


class BlobSource(msgspec.Struct, frozen=True):
    """A layer as a blob of a repository. `HMAC` tells whether the same user pushed it."""

    Digest: str
    SourceRepository: str
    HMAC: str = ""


class DistributionMetadata:
    """Every method may be called in threads."""

    def __init__(self, image_root: Path) -> None:
        """`image_root` is `image/<driver>` below the data root."""
        self._by_digest = image_root / "distribution" / "diffid-by-digest" / "sha256"
        self._by_diff_id = image_root / "distribution" / "v2metadata-by-diffid" / "sha256"
        self._lock = threading.Lock()

    def diff_id(self, digest: str) -> str:
        """The layer in the blob, "" if unknown."""
        try:
            found = (self._by_digest / _hex(digest)).read_text().strip()
        except OSError:
            return ""
        return found if DIGEST.fullmatch(found) else ""

    def sources(self, diff_id: str) -> list[BlobSource]:
        """Where the layer lies, oldest knowledge first."""
        try:
            content = (self._by_diff_id / _hex(diff_id)).read_bytes()
            return msgspec.json.decode(content, type=list[BlobSource])
        except (OSError, ValueError):
            return []

    def add(self, diff_id: str, source: BlobSource) -> None:
        """The layer was pulled from there, or pushed to there."""
        with self._lock:
            known = [each for each in self.sources(diff_id) if each != source]
            kept = [*known, source][-_MOST_SOURCES:]
            _write(self._by_diff_id / _hex(diff_id), msgspec.json.encode(kept))
            _write(self._by_digest / _hex(source.Digest), diff_id.encode())

    def remove(self, diff_id: str, source: BlobSource) -> None:
        """The layer does not lie there any more."""
        with self._lock:
            kept = [each for each in self.sources(diff_id) if each != source]
            _write(self._by_diff_id / _hex(diff_id), msgspec.json.encode(kept))


def source_of(digest: str, repository: str, auth: AuthConfig | None) -> BlobSource:
    """A blob source with the user's mark on it, as dockerd computes it."""
    if auth is None:
        return BlobSource(digest, repository)
    key = {
        "username": auth.username,
        "password": auth.password,
        "auth": auth.auth,
        "identitytoken": auth.identitytoken,
        "registrytoken": auth.registrytoken,
    }
    given = msgspec.json.encode({name: value for name, value in key.items() if value})
    secret = f"sha256:{hashlib.sha256(given).hexdigest()}".encode()
    mark = hmac.new(secret, (digest + repository).encode(), hashlib.sha256).hexdigest()
    return BlobSource(digest, repository, mark)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, content, 0o644)


def _hex(digest: str) -> str:
    if not DIGEST.fullmatch(digest):
        raise ValueError(f"no sha256 digest: {digest}")
    return digest[7:]
