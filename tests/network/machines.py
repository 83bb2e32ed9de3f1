"""A machine for each test: a network namespace of its own, with a neighbour on a wire of its own."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from longshore.linux.namespaces import (
    in_network_namespace,
)
from longshore.network.config import NetworkConfig
from longshore.network.controller import NetworkController, Sandbox
from longshore.network.endpoint import Endpoint, EndpointOptions
from longshore.network.sandbox_record import SandboxOptions

MACHINE, NEIGHBOUR = "198.51.100.1", "198.51.100.2"


@dataclass
class Machine:
    """The test's machine: this thread and those it starts are on it."""

    root: Path
    neighbour: Path

    def controller(self, **settings: object) -> NetworkController:
        """A controller on it; all controllers of a test share one data root."""
        values = {
            "data_root": self.root / "data",
            "exec_root": self.root / "run",
            "bridge_name": "test0",
            "warm_sandboxes": 0,
        }
        return NetworkController(NetworkConfig(**{**values, **settings}))  # type: ignore[arg-type]


class Server:
    """Answers every TCP connection or UDP datagram, in a namespace, with the peer's address."""

    def __init__(self, namespace: str | Path, port: int, kind: str = "tcp", address: str = "0.0.0.0") -> None:
        self._kind = kind
        self._socket = in_network_namespace(namespace, lambda: _listen(kind, address, port))
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                if self._kind == "udp":
                    _, peer = self._socket.recvfrom(100)
                    if peer is None:
                        return
                    self._socket.sendto(peer[0].encode(), peer)
                else:
                    connection, peer = self._socket.accept()
                    with connection:
                        connection.sendall(peer[0].encode())

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def reach(namespace: str | Path | None, address: str, port: int, kind: str = "tcp") -> str | None:
    """Who the server saw, or None when it cannot be reached within half a second."""

    def connect() -> str | None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as client:
            client.settimeout(0.5)
            try:
                client.connect((address, port))
                if kind == "udp":
                    client.send(b"?")
                return client.recv(100).decode() or None
            except OSError:
                return None

    return connect() if namespace is None else in_network_namespace(namespace, connect)


async def add(
    controller: NetworkController, id: str, network: str = "bridge", **options: object
) -> tuple[Sandbox, Endpoint]:
    """A sandbox with one endpoint, of whose options some are given."""
    sandbox = await controller.create_sandbox(id, SandboxOptions(hostname=id))
    endpoint = await sandbox.join(
        controller.network(network),
        EndpointOptions(name=id, **options),  # type: ignore[arg-type]
    )
    return sandbox, endpoint


async def die(controller: NetworkController) -> None:
    """What the end of its process does: sockets close, and nothing else happens."""
    controller.ports.close()
    controller.database.close()
    if controller._watch:
        await controller._watch.close()
    for sandbox in controller.sandboxes():
        if sandbox.resolver:
            await sandbox.resolver.close()


async def see(*arguments: object) -> str | None:
    """`reach`, in a thread."""
    return await asyncio.to_thread(reach, *arguments)  # type: ignore[arg-type]


def _listen(kind: str, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((address, port))
    if kind == "tcp":
        one.listen()
    return one
