"""The embedded resolver, asked from inside sandboxes."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

from network.machines import Machine

from longshore.linux.namespaces import in_network_namespace
from longshore.network.endpoint import EndpointOptions
from longshore.network.sandbox_record import SandboxOptions


def ask(namespace: str, name: str, kind: int, *, stream: bool = False) -> tuple[int, bytes, int]:
    """Ask 127.0.0.11: the reply's code, the data of its last record, how many there are."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    message = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)

    def exchange() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.connect(("127.0.0.11", 53))
            if not stream:
                client.send(message)
                return client.recv(600)
            client.send(struct.pack("!H", len(message)) + message)
            return client.recv(600)[2:]

    reply = in_network_namespace(namespace, exchange)
    id, flags, _, count, _, _ = struct.unpack_from("!HHHHHH", reply)
    assert id == 7 and flags & 0x8000
    return flags & 15, reply[-4:], count


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
        def upstream() -> socket.socket:
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind(("0.0.0.0", 53))
            return server

        server = await asyncio.to_thread(in_network_namespace, host.neighbour, upstream)

        def serve() -> None:
            message, peer = server.recvfrom(600)
            record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, 9])
            server.sendto(message[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + message[12:] + record, peer)

        answering = asyncio.create_task(asyncio.to_thread(serve))
        assert await asyncio.to_thread(ask, client.key, "example.org", 1) == (0, bytes([192, 0, 2, 9]), 1)
        await answering
        server.close()
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
