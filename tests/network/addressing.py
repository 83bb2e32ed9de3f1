"""A plug-in that manages addresses, as somebody might write one."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from longshore.errors import System


class Addressing:
    """A plug-in that keeps pools, and gives the highest free address of each."""

    kind = "IpamDriver"
    complaint = "Error"

    def __init__(self, *offers: str, **capabilities: bool) -> None:
        """`offers` are the pools that it has for who asks for none; capabilities are told as they are."""
        self.offers = [ip_network(one) for one in offers]
        self.capabilities = capabilities
        self.calls: list[tuple[str, Any]] = []
        self.pools: dict[str, IPv4Network | IPv6Network] = {}
        self.taken: dict[str, set[str]] = {}
        self.data: dict[str, str] = {}
        self.failing: dict[str, int] = {}
        """Methods that fail, and how often they work before."""

    def call(self, method: str, arguments: Any = None) -> dict[str, Any]:
        method = method.removeprefix("IpamDriver.")
        self.calls.append((method, arguments))
        left = self.failing.get(method)
        if left is not None:
            self.failing[method] = left - 1
            if left <= 0:
                raise System("no more paper")
        answer: dict[str, Any] = getattr(self, f"_{method.lower()}")(arguments)
        return answer

    def asked(self, method: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.calls if name == method]

    def _getcapabilities(self, arguments: object) -> dict[str, Any]:
        return self.capabilities

    def _getdefaultaddressspaces(self, arguments: object) -> dict[str, Any]:
        return {"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "there"}

    def _requestpool(self, asked: dict[str, Any]) -> dict[str, Any]:
        version = 6 if asked["V6"] else 4
        free = (one for one in self.offers if one.version == version and one not in self.pools.values())
        pool = ip_network(asked["Pool"]) if asked["Pool"] else next(free, None)
        if pool is None:
            raise System("no pools left")
        id = f"{asked['AddressSpace']}-{pool}"
        if id in self.pools:
            raise System(f"{id} is taken")
        self.pools[id], self.taken[id] = pool, set()
        return {"PoolID": id, "Pool": str(pool), "Data": self.data}

    def _releasepool(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self.taken.pop(asked["PoolID"]):
            raise System("addresses of it are in use")
        del self.pools[asked["PoolID"]]
        return {}

    def _requestaddress(self, asked: dict[str, Any]) -> dict[str, Any]:
        pool, taken = self.pools[asked["PoolID"]], self.taken[asked["PoolID"]]
        last = int(pool.broadcast_address) - (pool.version == 4)
        address = asked["Address"]
        while not address or (not asked["Address"] and address in taken):
            address, last = str(ip_address(last)), last - 1
        if address in taken:
            raise System(f"{address} is taken")
        taken.add(address)
        return {"Address": f"{address}/{pool.prefixlen}"}

    def _releaseaddress(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.taken[asked["PoolID"]].remove(asked["Address"])
        return {}
