"""What 1,000 published ports cost inside the daemon: milliseconds, and resident memory while they are there.

Run as root: PYTHONPATH=src python bench/ports_micro.py
"""

import asyncio
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from longshore.linux.namespaces import unshare_network
from longshore.network.config import NetworkConfig
from longshore.network.controller import NetworkController
from longshore.network.endpoint import EndpointOptions, PortBinding
from longshore.network.sandbox_record import SandboxOptions

MANY = 1000
FIRST = 20000
KINDS: dict[str, Callable[[int], PortBinding]] = {
    "range": lambda i: PortBinding("tcp", FIRST + i, "", FIRST + i, FIRST + i),
    "range of IPv4 alone": lambda i: PortBinding("tcp", FIRST + i, "0.0.0.0", FIRST + i, FIRST + i),
    "on other numbers": lambda i: PortBinding("tcp", FIRST + i, "", FIRST + 5000 + i, FIRST + 5000 + i),
    "ephemeral": lambda i: PortBinding("tcp", FIRST + i),
}


def resident() -> int:
    """KiB."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


@contextmanager
def timed(times: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    times[name] = (time.perf_counter() - began) * 1000


async def measure(kind: str, root: Path) -> None:
    config = NetworkConfig(root / "data", root / "run", bridge_name="bench0", warm_sandboxes=0)
    controller = NetworkController(config)
    await controller.start({})
    bindings = [KINDS[kind](i) for i in range(MANY)]
    grown = 0
    for attempt in range(3):  # Memory is that of the first, which has none to take again; times the last's.
        times: dict[str, float] = {}
        if attempt == 0:
            await controller.create_sandbox("warm", SandboxOptions())
            await controller.sandbox_destroy("warm")
        before = resident()
        sandbox = await controller.create_sandbox(f"box{attempt}", SandboxOptions())
        options = EndpointOptions(name="box", port_bindings=bindings)
        with timed(times, "join"):
            endpoint = await sandbox.join(controller.network("bridge"), options)
        grown = grown or resident() - before
        assert controller.machine.firewall
        with timed(times, "firewall: remove"):
            controller.machine.firewall.unpublish(endpoint.id)
        with timed(times, "firewall: publish"):
            controller.machine.firewall.publish(endpoint.id, endpoint.ports)
        with timed(times, "sockets: release"):
            controller.ports.release(endpoint.ports)
        with timed(times, "sockets: take"):
            controller.ports.restore(endpoint.ports)
        with timed(times, "destroy"):
            await controller.sandbox_destroy(f"box{attempt}")
        await controller.settled()
    await controller.stop(False)
    print(f"{kind:22}{grown:7} KiB", *(f"{name} {took:6.1f}" for name, took in times.items()), sep="  ")


def main() -> None:
    """Measure each kind by itself."""
    unshare_network()
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000\t60000")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as root:
            asyncio.run(measure(kind, Path(root)))


if __name__ == "__main__":
    main()
