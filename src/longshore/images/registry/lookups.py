"""What can be asked of a registry without moving an image: log in, look at a name, search."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from longshore.errors import EngineError, Forbidden, InvalidParameter, NotFound, System, Unauthorized
from longshore.images.reference import DEFAULT_DOMAIN, Reference, parse
from longshore.images.registry.client import LONGEST_MANIFEST, Fetched, RepositoryClient
from longshore.images.registry.endpoints import Endpoint, login_domain, registry_endpoints
from longshore.images.registry.failures import RegistryError, UnexpectedStatus, may_try_elsewhere
from longshore.images.registry.manifests import DOCKER_MANIFEST, Index, parse_manifest
from longshore.images.registry.pull import call, try_endpoints
from longshore.images.registry.threads import in_thread
from longshore.images.registry.transport import Cancellation, named_failure, read_whole
from longshore.types.registry import (
    AuthConfig,
    DistributionInspect,
    OciDescriptor,
    OciPlatform,
    SearchResult,
)

if TYPE_CHECKING:
    from longshore.images.registry.service import RegistryService

_INDEX_HOST = "index.docker.io"
_STATUS: dict[str, type[EngineError]] = {
    "MANIFEST_UNKNOWN": NotFound,
    "NAME_UNKNOWN": NotFound,
    "UNAUTHORIZED": Unauthorized,
    "DENIED": Forbidden,
}
"""dockerd passes the registry's own status on."""


async def log_in(registry: RegistryService, auth: AuthConfig) -> str:
    """Have the credentials checked; an identity token to be used instead of the password, or "".

    Raises Unauthorized if they are not accepted, System if the registry cannot be asked.
    """
    domain = login_domain(auth.serveraddress)
    failure: EngineError = System(f"no endpoints found for {domain}")
    for endpoint in await in_thread(lambda _: registry_endpoints(domain, registry.settings()), abandon=True):
        try:
            return await in_thread(partial(_log_in, registry, endpoint, auth), abandon=True)
        except (Unauthorized, RegistryError):
            raise
        except EngineError as exc:
            failure = exc
            if isinstance(exc.__cause__, RegistryError) and exc.__cause__.code == "UNAUTHORIZED":
                raise Unauthorized(exc.message) from exc
            if not may_try_elsewhere(exc, mirror=False):
                break
    raise failure


async def inspect(registry: RegistryService, reference: Reference, auth: AuthConfig) -> DistributionInspect:
    """What the name means in its registry, without pulling it. Raises NotFound, System."""

    async def from_endpoint(client: RepositoryClient) -> DistributionInspect:
        named = reference.tagged
        digest = named.digest or await call(client, lambda client: client.manifest_digest(named.tag))
        top = await call(client, lambda client: client.manifest(digest or named.tag))
        found = parse_manifest(top.content, top.media_type, str(named))
        if isinstance(found, Index):
            platforms: list[OciPlatform] | None = [
                OciPlatform(each.architecture, each.os, variant=each.variant)
                for _, each in found.entries
                if each is not None
            ]
        else:
            config = await call(client, lambda client: client.blob(found.config.digest))
            platforms = _platforms(config)
        return DistributionInspect(OciDescriptor(_media_type(top), top.digest, len(top.content)), platforms)

    endpoints = await in_thread(
        lambda _: registry_endpoints(reference.domain, registry.settings()), abandon=True
    )
    try:
        return await try_endpoints(registry, endpoints, reference, auth, "pull", from_endpoint)
    except RegistryError as exc:
        raise _STATUS.get(exc.code, System)(exc.message) from exc


async def search(registry: RegistryService, term: str, limit: int, auth: AuthConfig) -> list[SearchResult]:
    """What the index has for the term, which may begin with a registry. Raises InvalidParameter, System."""
    if not 1 <= limit <= 100:
        raise InvalidParameter(f"limit {limit} is outside the range of [1, 100]")
    domain = parse(term).domain if "/" in term else DEFAULT_DOMAIN
    words = term.partition("/")[2] if domain != DEFAULT_DOMAIN else term
    endpoints = await in_thread(lambda _: registry_endpoints(domain, registry.settings()), abandon=True)
    if domain == DEFAULT_DOMAIN:
        endpoints = [Endpoint(f"https://{_INDEX_HOST}")]
    failure: EngineError = System(f"no endpoints found for {domain}")
    for endpoint in endpoints:
        try:
            return await in_thread(partial(_search, registry, endpoint, words, limit, auth), abandon=True)
        except EngineError as exc:
            failure = exc
            if isinstance(exc, UnexpectedStatus):
                break
    raise failure


def _log_in(registry: RegistryService, endpoint: Endpoint, auth: AuthConfig, _: Cancellation) -> str:
    client = RepositoryClient(endpoint, "", registry.settings(), auth)
    try:
        return client.log_in()
    finally:
        client.close()


def _search(
    registry: RegistryService, endpoint: Endpoint, words: str, limit: int, auth: AuthConfig, _: Cancellation
) -> list[SearchResult]:
    client = RepositoryClient(endpoint, "", registry.settings(), auth)
    url = f"{endpoint.url}/v1/search?{urlencode({'q': words, 'n': limit})}"
    try:
        answer = client.request("GET", url, accepted=range(600), retries=0)
        with closing(answer), named_failure("GET", url):
            content = read_whole(answer, LONGEST_MANIFEST)
        if answer.status != 200:
            raise UnexpectedStatus(f"Unexpected status code {answer.status}", answer.status)
        described = msgspec.json.decode(content, type=dict[str, Any])
        return msgspec.convert(described.get("results") or [], type=list[SearchResult], strict=False)
    except ValueError as exc:
        raise System(f"error decoding the index's answer: {exc}") from None
    finally:
        client.close()


def _media_type(manifest: Fetched) -> str:
    return manifest.media_type or DOCKER_MANIFEST


def _platforms(config: bytes) -> list[OciPlatform] | None:
    try:
        described = msgspec.json.decode(config, type=OciPlatform)
    except ValueError:
        return None
    return [described] if described.os or described.architecture else None
