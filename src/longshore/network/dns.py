"""The embedded resolver."""

from __future__ import annotations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController
    from longshore.network.sandbox import Sandbox


class Resolver:
    def __init__(self, controller: NetworkController, sandbox: Sandbox) -> None: ...
    async def start(self) -> None: ...
    async def close(self) -> None: ...
