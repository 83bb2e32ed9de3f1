"""Check a user's credentials for a registry."""

from __future__ import annotations

from longshore.engine.engine import Engine
from longshore.types.registry import AuthConfig, AuthResponse


async def authenticate(engine: Engine, auth: AuthConfig) -> AuthResponse:
    """POST /auth. Raises Unauthorized if the registry refuses them, System if it cannot be asked."""
    token = await engine.registry.log_in(auth)
    return AuthResponse("Login Succeeded", token)
