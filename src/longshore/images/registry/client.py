"""One repository of a registry, over HTTP: its manifests, tags and blobs (OCI distribution specification)."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin

import msgspec

from longshore.errors import EngineError, System
from longshore.images.registry.auth import Authorizer, NoCredentials
from longshore.images.registry.endpoints import Endpoint, RegistrySettings
from longshore.images.registry.failures import (
    LONGEST_WAIT,
    Refused,
    RegistryError,
    UnexpectedStatus,
    Unreachable,
    may_try_again,
    named_refusal,
    refusal,
    wait_asked_for,
)
from longshore.images.registry.manifests import ACCEPTED
from longshore.images.registry.transport import (
    Cancellation,
    Transport,
    drain,
    named_failure,
    read_whole,
    same_host,
)
from longshore.layers.layerdb import DIGEST
from longshore.types.numbers import decimal
from longshore.types.registry import AuthConfig

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from longshore.images.registry.transport import Body

LONGEST_MANIFEST = 4 << 20
LONGEST_CONFIG = 16 << 20
_LONGEST_REFUSAL = 64 << 10
_MOST_TAGS, _MOST_PAGES = 1_000_000, 10_000
_PING_TIMEOUT = 15.0


class Fetched(NamedTuple):
    """A manifest as it came; `digest` is that of the very bytes."""

    content: bytes
    media_type: str
    digest: str


class RepositoryClient:
    """Blocking; use it in threads. Every method raises Unreachable, RegistryError, UnexpectedStatus."""

    def __init__(
        self,
        endpoint: Endpoint,
        path: str,
        settings: RegistrySettings,
        auth: AuthConfig,
        actions: str = "pull",
        cancellation: Cancellation | None = None,
    ) -> None:
        """`path` is the repository's name without the registry; `actions` is `pull` or `pull,push`."""
        self.endpoint = endpoint
        self.path = path
        self._settings = settings
        self._cancellation = cancellation or Cancellation()
        self._transport = Transport(endpoint, settings)
        self._scope = f"repository:{path}:{actions}"
        self._authorizer = Authorizer(self._transport, auth, (self._scope,) if path else ())
        self._base = f"{endpoint.url}/v2/{path}"

    def cancelled_by(self, cancellation: Cancellation) -> RepositoryClient:
        """The same repository, connections and tokens, for work that is cancelled on its own."""
        other = copy.copy(self)
        other._cancellation = cancellation
        return other

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def ping(self) -> None:
        """Make sure that a registry is there, and learn how it wants to be asked."""
        url = f"{self.endpoint.url}/v2/"
        answer = self._transport.request("GET", url, {}, read_timeout=_PING_TIMEOUT)
        with _read(answer):
            if answer.status == 401:
                self._authorizer.challenged(answer.headers.getlist("WWW-Authenticate"))
                drain(answer)
            elif answer.status >= 400 and answer.status != 404:
                raise refusal(answer.status, answer.reason or "", answer.headers, _some(answer))

    def log_in(self) -> str:
        """Have the credentials checked; an identity token, if the registry gives one, else "".

        Raises Unauthorized or RegistryError if they are not accepted.
        """
        url = f"{self.endpoint.url}/v2/"
        self.ping()
        headers = self._authorized("GET", url)
        answer = self._transport.request("GET", url, headers, read_timeout=_PING_TIMEOUT)
        with _read(answer):
            if answer.status != 200:
                raise UnexpectedStatus(
                    f"login attempt to {url} failed with status: {answer.status} {answer.reason}",
                    answer.status,
                )
            drain(answer)
        return self._authorizer.identity_token

    def manifest_digest(self, tag: str) -> str:
        """The digest of what the tag means now, "" if the registry does not say without sending it all."""
        answer = self.request("HEAD", f"{self._base}/manifests/{tag}", _accept(), accepted=range(600))
        with _read(answer):
            digest: str = answer.headers.get("Docker-Content-Digest", "")
            return digest if answer.status == 200 and DIGEST.fullmatch(digest) else ""

    def manifest(self, reference: str) -> Fetched:
        """By tag or digest. Raises Refused if it is not what the digest says."""
        url = f"{self._base}/manifests/{reference}"
        content, said = self._get(url, _accept(), LONGEST_MANIFEST)
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        if ":" in reference and reference != digest:
            raise Refused(f"manifest verification failed for digest {reference}")
        media_type = said.get("Content-Type", "").partition(";")[0].strip()
        return Fetched(content, media_type, digest)

    def put_manifest(self, tag: str, content: bytes, media_type: str) -> None:
        """Let the tag mean this manifest."""
        url = f"{self._base}/manifests/{tag}"
        answer = self.request("PUT", url, {"Content-Type": media_type}, content, accepted=range(200, 300))
        with _read(answer):
            drain(answer)

    def tags(self) -> list[str]:
        """Every tag, as the registry sorts them; what they are made of is not verified."""
        found: list[str] = []
        url, seen = f"{self._base}/tags/list", set[str]()
        while url not in seen and len(seen) < _MOST_PAGES:
            seen.add(url)
            content, said = self._get(url, {}, LONGEST_MANIFEST)
            page = _decoded(content)
            tags = page.get("tags") or []
            if not isinstance(tags, list) or len(found) + len(tags) > _MOST_TAGS:
                raise Refused("error parsing the registry's answer: malformed list of tags")
            found += map(str, tags)
            following = re.match(r'<([^>]+)>;\s*rel="?next', said.get("Link", ""))
            if following is None:
                break
            url = urljoin(url, following[1])
        return found

    def blob(self, digest: str, most: int = LONGEST_CONFIG) -> bytes:
        """A small blob. Raises Refused if it is not what the digest says, or longer than `most` bytes."""
        content, _ = self._get(self.blob_url(digest), {"Accept-Encoding": "identity"}, most)
        if "sha256:" + hashlib.sha256(content).hexdigest() != digest:
            raise Refused(f"image config verification failed for digest {digest}")
        return content

    def blob_url(self, digest: str) -> str:
        """Where the blob is."""
        return f"{self._base}/blobs/{digest}"

    def open_blob(self, digest: str, offset: int = 0) -> BaseHTTPResponse:
        """The answer that carries the blob from `offset` on, if its status is 206; else from the start.

        416 says that there is no such offset.
        """
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        accepted = (200, 206, 416) if offset else (200,)
        return self.request("GET", self.blob_url(digest), headers, accepted=accepted, retries=0)

    def blob_size(self, digest: str) -> int | None:
        """Bytes of a blob that the repository has, else None."""
        answer = self.request("HEAD", self.blob_url(digest), accepted=(200, 401, 403, 404, 405), retries=0)
        with _read(answer):
            length = answer.headers.get("Content-Length", "")
            return decimal(length) if answer.status == 200 else None

    def start_upload(self, mount: str = "", source: str = "") -> str:
        """The URL to upload a blob to; "" if it was mounted from the repository `source` instead."""
        url = f"{self._base}/blobs/uploads/"
        scopes: tuple[str, ...] = ()
        if mount:
            url += f"?mount={mount}&from={source}"
            scopes = (f"repository:{source}:pull",)
        answer = self.request("POST", url, {"Content-Length": "0"}, accepted=(201, 202), scopes=scopes)
        with _read(answer):
            drain(answer)
            return "" if answer.status == 201 else self._location(answer, url)

    def upload(self, url: str, body: Body, headers: Mapping[str, str] | None = None) -> str:
        """Send one part of a blob; the URL for what comes next."""
        answer = self.request(
            "PATCH", url, {"Content-Type": "application/octet-stream", **(headers or {})}, body, retries=0,
            accepted=(202, 204),
        )  # fmt: skip
        with _read(answer):
            drain(answer)
            return self._location(answer, url)

    def finish_upload(self, url: str, digest: str, content: bytes = b"") -> None:
        """The blob is whole, `content` its last or only part. Raises RegistryError if it came over wrong."""
        url += ("&" if "?" in url else "?") + f"digest={digest}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(content))}
        answer = self.request("PUT", url, headers, content, accepted=range(200, 300), retries=0)
        with _read(answer):
            drain(answer)

    def cancel_upload(self, url: str) -> None:
        """The blob will not come."""
        answer = self.request("DELETE", url, accepted=range(600), retries=0)
        with _read(answer):
            drain(answer)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        *,
        accepted: range | tuple[int, ...] = (200,),
        scopes: tuple[str, ...] = (),
        retries: int | None = None,
    ) -> BaseHTTPResponse:
        """An authorized request, made again while the registry is busy; raises for what is not accepted."""
        attempts = self._settings.max_download_attempts if retries is None else retries
        delay = self._settings.retry_delay
        while True:
            self._cancellation.check()
            try:
                return self._once(method, url, dict(headers or {}), body, accepted, scopes)
            except (UnexpectedStatus, Unreachable, RegistryError) as exc:
                if attempts <= 0 or not may_try_again(exc):
                    raise
                if isinstance(exc, Unreachable) and method not in ("GET", "HEAD"):
                    raise
                asked = wait_asked_for(exc)
                if isinstance(exc, RegistryError) and asked is None:
                    raise  # Docker Hub's "You have reached your pull rate limit": for hours, not seconds.
                self._cancellation.sleep(min(asked or delay, LONGEST_WAIT))
            attempts, delay = attempts - 1, delay * 2

    def _get(self, url: str, headers: Mapping[str, str], most: int) -> tuple[bytes, Mapping[str, str]]:
        """Content of at most so many bytes and headers, fetched again if the connection breaks meanwhile."""
        attempts, delay = self._settings.max_download_attempts, self._settings.retry_delay
        while True:
            answer = self.request("GET", url, headers)
            try:
                with _read(answer), named_failure("GET", url):
                    return read_whole(answer, most), answer.headers
            except Unreachable:
                attempts -= 1
                if attempts <= 0:
                    raise
                self._cancellation.sleep(delay)
                delay *= 2

    def _once(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: Body,
        accepted: range | tuple[int, ...],
        scopes: tuple[str, ...],
    ) -> BaseHTTPResponse:
        own = same_host(url, self.endpoint.url)
        authorization = self._authorized(method, url, scopes) if own else {}
        answer = self._transport.request(method, url, headers | authorization, body)
        if answer.status == 401 and own and isinstance(body, bytes | None):
            challenges = answer.headers.getlist("WWW-Authenticate")
            # A token may have expired on the way, or the ping was answered without asking for one.
            if challenges and not authorization.get("Authorization", "").startswith("Basic"):
                drain(answer)
                self._authorizer.challenged(challenges)
                self._authorizer.forget()
                authorization = self._authorized(method, url, scopes)
                answer = self._transport.request(method, url, headers | authorization, body)
        if answer.status in accepted:
            return answer
        with _read(answer):
            content = _some(answer)
        if answer.status < 400:
            raise UnexpectedStatus(
                f"received unexpected HTTP status: {answer.status} {answer.reason}", answer.status
            )
        raise refusal(answer.status, answer.reason or "", answer.headers, content)

    def _authorized(self, method: str, url: str, scopes: tuple[str, ...] = ()) -> dict[str, str]:
        try:
            return self._authorizer.header(*scopes)
        except (NoCredentials, RegistryError, UnexpectedStatus) as exc:
            raise named_refusal(method, url, exc) from exc

    def _location(self, answer: BaseHTTPResponse, url: str) -> str:
        location = answer.headers.get("Location")
        if not location:
            raise System("the registry did not say where to upload to")
        return urljoin(url, location)


@contextmanager
def _read(answer: BaseHTTPResponse) -> Iterator[None]:
    """The answer is done with at the end; its connection is kept only if it was read to its end."""
    try:
        yield
    finally:
        answer.close()


def _some(answer: BaseHTTPResponse) -> bytes:
    try:
        with named_failure("GET", ""):
            return answer.read(_LONGEST_REFUSAL)
    except EngineError:
        return b""


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except ValueError as exc:
        raise Refused(f"error parsing the registry's answer: {exc}") from None


def _accept() -> dict[str, str]:
    return {"Accept": ", ".join(ACCEPTED)}
