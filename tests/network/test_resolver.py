"""The embedded resolver, asked from inside sandboxes."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from network.machines import Machine, add

from longshore.linux.namespaces import in_network_namespace
from longshore.network.endpoint import EndpointOptions
from longshore.network.sandbox_record import SandboxOptions


def ask(namespace: str, name: str, kind: int, *, stream: bool = False) -> tuple[int, bytes, int]:
    """Ask 127.0.0.11: the reply's code, the data of its last record, how many there are."""
    reply = exchange_with(namespace, name, kind, stream=stream)
    _, flags, _, count, _, _ = struct.unpack_from("!HHHHHH", reply)
    return flags & 15, reply[-4:], count


def exchange_with(namespace: str, name: str, kind: int, *, stream: bool = False, size: int = 0) -> bytes:
    """The reply to a question; with a size, the client says by EDNS that it takes so many bytes."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    message = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, int(size > 0)) + labels + b"\0"
    message += struct.pack("!HH", kind, 1)
    if size:
        message += b"\0" + struct.pack("!HHIH", 41, size, 0, 0)

    def exchange() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.connect(("127.0.0.11", 53))
            if not stream:
                client.send(message)
                return client.recv(5000)
            client.send(struct.pack("!H", len(message)) + message)
            (length,) = struct.unpack("!H", client.recv(2))
            return client.recv(length, socket.MSG_WAITALL)

    reply = in_network_namespace(namespace, exchange)
    assert reply[:2] == b"\0\7" and reply[2] & 0x80
    return reply


class Upstream:
    """A name server in a namespace: it answers with one address, or with a code alone."""

    def __init__(self, namespace: str | Path, address: str, *, code: int = 0) -> None:
        self.asked: list[bytes] = []
        self._code = code

        def bound() -> socket.socket:
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((address, 53))
            return server

        self._socket = in_network_namespace(namespace, bound)
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, 9])
        with suppress(OSError):
            while True:
                message, peer = self._socket.recvfrom(600)
                if not message:
                    return
                self.asked.append(message)
                flags, records = bytes([0x81, 0x80 | self._code]), b"" if self._code else record
                counts = b"\0\1" + (b"\0\0" if self._code else b"\0\1") + bytes(4)
                self._socket.sendto(message[:2] + flags + counts + message[12:] + records, peer)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def test_names_on_user_defined_networks(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller(dns=["198.51.100.2"])
        await controller.start({})
        network = await controller.create_network("app")
        await controller.create_network("closed", internal=True)
        resolv = host.root / "resolv.conf"
        web = await controller.create_sandbox("web", SandboxOptions(resolv_conf_path=resolv))
        first = await web.join(
            network, EndpointOptions(name="web", aliases=["front"], dns_names=["web", "abc"])
        )
        client = await controller.create_sandbox("client", SandboxOptions())
        await client.join(network, EndpointOptions(name="client"))
        loner = await controller.create_sandbox("loner", SandboxOptions())
        await loner.join(controller.network("closed"), EndpointOptions(name="loner"))
        text = await asyncio.to_thread(resolv.read_text)
        assert "nameserver 127.0.0.11\n" in text and "options ndots:0" in text
        wanted = socket.inet_aton(first.ipv4_address)
        for name in ("web", "WEB", "front", "abc", "web.app"):
            for stream in (False, True):
                assert await asyncio.to_thread(ask, client.key, name, 1, stream=stream) == (0, wanted, 1)
        assert (await asyncio.to_thread(ask, client.key, "web", 28))[::2] == (0, 0)
        reverse = ".".join(reversed(first.ipv4_address.split("."))) + ".in-addr.arpa"
        assert (await asyncio.to_thread(ask, client.key, reverse, 12))[::2] == (0, 1)
        # No names across networks, and nothing beyond an internal one.
        assert (await asyncio.to_thread(ask, loner.key, "web", 1))[0] == 2
        await client.join(controller.network("closed"), EndpointOptions(name="client"))
        assert (await asyncio.to_thread(ask, loner.key, "client", 1))[0] == 0

        # Everything else goes to the machine's servers.
        server = Upstream(host.neighbour, "0.0.0.0")
        assert await asyncio.to_thread(ask, client.key, "example.org", 1) == (0, bytes([192, 0, 2, 9]), 1)
        server.close()
        await controller.stop(False)

    asyncio.run(run())


def test_many_answers_take_turns_and_fit(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await controller.create_network("app")
        made = [
            (await add(controller, f"c{i}", "app", aliases=["all"], dns_names=["all"]))[1] for i in range(100)
        ]
        key = controller.sandbox("c0").key  # type: ignore[union-attr]

        async def answers(**how: Any) -> tuple[bool, list[bytes]]:
            reply = await asyncio.to_thread(exchange_with, key, "all", 1, **how)
            count = struct.unpack_from("!H", reply, 6)[0]
            first = 12 + len("all") + 6
            return bool(reply[2] & 2), [
                reply[first + 16 * i + 12 : first + 16 * i + 16] for i in range(count)
            ]

        wanted = {socket.inet_aton(endpoint.ipv4_address) for endpoint in made}
        cut, found = await answers()
        assert cut and 20 < len(found) < 100 and wanted > set(found)
        for how in ({"size": 4096}, {"stream": True}):
            cut, found = await answers(**how)
            assert not cut and set(found) == wanted and len(found) == 100
        assert len({(await answers(size=4096))[1][0] for _ in range(20)}) > 1
        for i in range(1, 100):
            await controller.sandbox_destroy(f"c{i}")
        assert (await answers())[1] == [socket.inet_aton(made[0].ipv4_address)]
        await controller.stop(False)

    asyncio.run(run())


def test_names_of_ones_own_and_other_questions(host: Machine) -> None:
    async def run() -> None:
        upstream = Upstream(host.neighbour, "0.0.0.0")
        refusing = Upstream("/proc/thread-self/ns/net", "127.0.0.1", code=5)
        controller = host.controller()
        await controller.start({})
        await controller.create_network("app")
        web, first = await add(controller, "web", "app")
        client, _ = await add(controller, "client", "app", links={"db": "web"})
        wanted = socket.inet_aton(first.ipv4_address)
        assert await asyncio.to_thread(ask, client.key, "db", 1) == (0, wanted, 1)
        assert client.resolver and web.resolver
        # The machine's own servers, be they on its loopback; the next one where one refuses.
        client.resolver._upstream = ["127.0.0.1", "198.51.100.2"]
        for kind in (15, 33):
            assert (await asyncio.to_thread(ask, client.key, "web", kind))[::2] == (0, 0)
            assert (await asyncio.to_thread(ask, client.key, "_x._tcp.web", kind))[::2] == (0, 1)
        assert len(upstream.asked) == len(refusing.asked) == 2
        client.resolver._upstream = ["127.0.0.1"]
        assert (await asyncio.to_thread(ask, client.key, "example.org", 1))[::2] == (5, 0)
        # Renamed, it is found by its new name alone.
        await web.rename("web", "site", {})
        assert (await asyncio.to_thread(ask, client.key, "site", 1))[1] == wanted
        assert (await asyncio.to_thread(ask, client.key, "web", 1))[::2] == (5, 0)
        refusing.close()
        upstream.close()
        await controller.stop(False)

    asyncio.run(run())


def test_servers_that_a_user_names_are_asked_from_inside(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        network = await controller.create_network("app")
        box = await controller.create_sandbox("box", SandboxOptions(dns=["127.0.0.1"]))
        await box.join(network, EndpointOptions(name="box"))
        inside = await asyncio.to_thread(Upstream, box.key, "127.0.0.1")
        assert await asyncio.to_thread(ask, box.key, "example.org", 1) == (0, bytes([192, 0, 2, 9]), 1)
        inside.close()
        await controller.stop(False)

    asyncio.run(run())


def test_files_are_dockers(host: Machine, tmp_path: Path) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        options = SandboxOptions(
            hostname="box",
            domainname="example.org",
            hosts_path=tmp_path / "hosts",
            resolv_conf_path=tmp_path / "resolv.conf",
            extra_hosts=["db:10.0.0.9", "gw:host-gateway"],
            links=[("other", "alias", "172.17.0.9")],
            dns=["9.9.9.9"],
        )
        box = await controller.create_sandbox("box", options)
        await box.join(controller.network("bridge"), EndpointOptions(name="box"))
        hosts = await asyncio.to_thread((tmp_path / "hosts").read_text)
        assert hosts.startswith("127.0.0.1\tlocalhost\n")
        assert "10.0.0.9\tdb\n172.17.0.1\tgw\n172.17.0.9\talias other\n" in hosts
        assert hosts.endswith("172.17.0.2\tbox.example.org box\n")
        resolv = await asyncio.to_thread((tmp_path / "resolv.conf").read_text)
        assert resolv.startswith("# Generated by Docker Engine.\n") and "nameserver 9.9.9.9\n" in resolv
        assert resolv.endswith("# Overrides: [nameservers]\n")
        await controller.stop(False)

    asyncio.run(run())
