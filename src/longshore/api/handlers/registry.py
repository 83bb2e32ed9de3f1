"""/auth, /distribution, /images/search, and /images/{name}/push"""

from __future__ import annotations

from typing import TYPE_CHECKING

from longshore.api.http import Request
from longshore.errors import InvalidParameter
from longshore.types.registry import AuthConfig, decode_auth

if TYPE_CHECKING:
    pass


def lenient_auth(request: Request) -> AuthConfig:
    """The credentials sent along; none if they cannot be read, which a public image does not need anyway."""
    try:
        return decode_auth(request.headers.get("x-registry-auth", ""))
    except InvalidParameter:
        return AuthConfig()
