"""A network plug-in, as somebody might write one."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Any

from harness.plugin import MISSING, VolumePlugin
from network.addressing import Addressing

from longshore.errors import System


class Cabling:
    """A plug-in that puts every endpoint on a bridge of its own."""

    kind = "NetworkDriver"
    complaint = "Err"

    def __init__(self, *where: str) -> None:
        """`where` is a command that runs others where the links are to be."""
        self.where = where
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.failing = ""
        self.capabilities: dict[str, Any] = {"Scope": "local", "ConnectivityScope": "local"}
        self.joined: dict[str, Any] = {"Gateway": "10.90.0.1"}
        self.created: dict[str, Any] = {}
        self.skipping: dict[str, Any] = {}
        self.lacking: set[str] = set()
        self._lock = threading.Lock()

    def call(self, method: str, arguments: Any = None) -> dict[str, Any]:
        method = method.removeprefix("NetworkDriver.")
        self.calls.append((method, arguments))
        if method in self.lacking:
            raise LookupError(method)
        if method == self.failing:
            raise System("no more cables")
        run = f"_{method.lower()}"
        with self._lock:
            return getattr(self, run)(arguments) if hasattr(self, run) else {}

    def ip(self, command: str) -> None:
        command = "; ".join(f"ip {one}" for one in command.split("; "))
        subprocess.run([*self.where, "sh", "-ec", command], capture_output=True, text=True, check=True)

    def asked(self, method: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.calls if name == method]

    def _getcapabilities(self, arguments: object) -> dict[str, Any]:
        return self.capabilities

    def _gwalloccheck(self, arguments: object) -> dict[str, Any]:
        return self.skipping

    def _createnetwork(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.ip("link show cabling0 || ip link add cabling0 type bridge; link set cabling0 up")
        if gateway := arguments["IPv4Data"][0].get("Gateway"):
            self.ip(f"addr add {gateway} dev cabling0")
        return {}

    def _deletenetwork(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.ip("link del cabling0 || true")  # It is the bridge of all its networks.
        return {}

    def _createendpoint(self, arguments: dict[str, Any]) -> dict[str, Any]:
        mac = {} if arguments["Interface"]["MacAddress"] else {"MacAddress": "02:00:00:00:0c:ab"}
        return {"Interface": {**mac, **self.created}}

    def _join(self, arguments: dict[str, Any]) -> dict[str, Any]:
        end = arguments["EndpointID"][:8]
        self.ip(
            f"link add c{end} type veth peer name p{end}; link set c{end} master cabling0 up; "
            f"link set p{end} up"
        )
        routes = [{"Destination": "203.0.113.0/24", "RouteType": 1}]
        return {
            "InterfaceName": {"SrcName": f"p{end}", "DstPrefix": "lan"},
            "StaticRoutes": routes,
            **self.joined,
        }


class Served(VolumePlugin):
    """Plug-ins of several kinds behind one socket, whose name is theirs."""

    def __init__(self, socket: Path, *plugins: Cabling | Addressing) -> None:
        self._plugins = {plugin.kind: plugin for plugin in plugins}
        super().__init__(socket.stem, socket.parent, socket)

    def answer(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        if method == "Plugin.Activate":
            return {"Implements": list(self._plugins)}
        self.asked.append((method, given))
        if gate := self.held.get(method):
            assert gate.wait(60)
        plugin = self._plugins[method.partition(".")[0]]
        try:
            return plugin.call(method, given)
        except System as exc:
            return {plugin.complaint: exc.message}
        except LookupError:
            return {"Err": MISSING}
