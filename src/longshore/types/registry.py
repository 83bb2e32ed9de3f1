"""Registries, as the Engine API describes them (api/types/registry of Docker 28)."""

from __future__ import annotations

import base64
import binascii

import msgspec

from longshore.errors import InvalidParameter
from longshore.types.codec import ApiStruct, names


class AuthConfig(msgspec.Struct, omit_defaults=True, frozen=True):
    """Credentials for a registry: a name with a password, or one of the tokens."""

    username: str = ""
    password: str = ""
    auth: str = ""
    """`username:password` in base64, for clients that send it so."""
    serveraddress: str = ""
    identitytoken: str = ""
    """Lets the registry's token server give out tokens without a password (OAuth 2's refresh token)."""
    registrytoken: str = ""
    """Sent to the registry as it is."""

    @property
    def basic(self) -> tuple[str, str]:
        """Name and password, "" if there are none."""
        if not self.username and self.auth:
            try:
                name, _, password = base64.b64decode(self.auth).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return "", ""
            return name, password.rstrip("\0")
        return self.username, self.password


def decode_auth(header: str) -> AuthConfig:
    """The X-Registry-Auth header: JSON in base64url. Raises InvalidParameter."""
    if not header:
        return AuthConfig()
    try:
        text = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        return msgspec.json.decode(text, type=AuthConfig)
    except (binascii.Error, ValueError) as exc:  # msgspec's errors are ValueErrors
        raise InvalidParameter(f"invalid X-Registry-Auth header: {exc}") from None


class AuthResponse(ApiStruct):
    """Answer to POST /auth."""

    Status: str = ""
    IdentityToken: str = ""


class OciPlatform(ApiStruct):
    """What an image runs on."""

    _omitempty = names("os_version os_features variant")
    architecture: str = ""
    os: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: list[str] | None = msgspec.field(default=None, name="os.features")
    variant: str = ""


class OciDescriptor(ApiStruct):
    """What lies behind a digest. `size` in bytes."""

    mediaType: str = ""
    digest: str = ""
    size: int = 0


class DistributionInspect(ApiStruct):
    """Answer to GET /distribution/{name}/json."""

    Descriptor: OciDescriptor
    Platforms: list[OciPlatform] | None = None


class SearchResult(ApiStruct):
    """One line of `docker search`."""

    star_count: int = 0
    is_official: bool = False
    name: str = ""
    is_automated: bool = False
    description: str = ""
