"""The images that a build stands on: here already, or pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longshore.engine.pull import log_registry_event, pull_reference
from longshore.errors import NotFound
from longshore.images.reference import DEFAULT_DOMAIN, Reference
from longshore.images.store import Image
from longshore.types.registry import AuthConfig

if TYPE_CHECKING:
    from longshore.engine.builder.build import Build, Say


async def find_base(build: Build, name: str, platform: str, say: Say) -> str:
    """The id of the image called `name`, pulled if it is missing, not for `platform`, or asked to be.

    Raises NotFound, InvalidParameter, System.
    """
    engine = build.engine
    if not build.options.pull and (found := _here(build, name, platform)) is not None:
        return found.id
    from longshore.images.registry.platforms import parse_platform

    reference = pull_reference(name, "").tagged
    wanted = parse_platform(platform) if platform else None
    await engine.registry.pull(reference, wanted, await _credentials(build, reference), say)
    log_registry_event(engine, "pull", reference)
    found = _here(build, name, platform)
    if found is None:
        raise NotFound(f"image with reference {name} was found but does not provide the specified platform")
    return found.id


def _here(build: Build, name: str, platform: str) -> Image | None:
    try:
        image = build.engine.images.resolve(name)
    except NotFound:
        return None
    if platform:
        from longshore.images.registry.platforms import parse_platform

        wanted = parse_platform(platform)
        if (wanted.os, wanted.architecture) != (image.os, image.architecture):
            return None
        if wanted.variant and image.variant and wanted.variant != image.variant:
            return None
    return image


async def _credentials(build: Build, reference: Reference) -> AuthConfig:
    """What the client sent for the registry, or gives when asked. Raises System, Unavailable."""
    sent = _sent(build, reference)
    if sent is not None:
        return sent
    session = await build.session()
    if session is None:
        return AuthConfig()
    from longshore.buildkit.requests import credentials

    host = "registry-1.docker.io" if reference.domain == DEFAULT_DOMAIN else reference.domain
    given = await credentials(session, host)
    if given is None:
        return AuthConfig()
    user, secret = given
    return AuthConfig(username=user, password=secret) if user else AuthConfig(identitytoken=secret)


def _sent(build: Build, reference: Reference) -> AuthConfig | None:
    """What came with the request, under any of the names that clients use for the registry."""
    from longshore.images.registry.endpoints import INDEX_SERVER

    known = build.options.credentials
    names = [reference.domain]
    if reference.domain == DEFAULT_DOMAIN:
        names = [INDEX_SERVER, "docker.io", "index.docker.io", "registry-1.docker.io"]
    for name in names:
        for key, auth in known.items():
            host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
            if name in (key, host):
                return auth
    return None
