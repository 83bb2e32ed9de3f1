"""The embedded resolver among people who mean no good, and servers that have a bad day."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from pathlib import Path
from threading import Thread

from network.machines import Machine, add
from network.test_resolver import Upstream, ask, exchange_with

from longshore.linux.namespaces import in_network_namespace

LARGE = 4000
"""Addresses in an answer that takes a TCP message almost as long as there can be."""


class TcpServer:
    """A name server that has much to say over TCP, and over UDP that it does not fit."""

    def __init__(self, namespace: Path, address: str) -> None:
        def bound() -> tuple[socket.socket, socket.socket]:
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind((address, 53))
            return udp, socket.create_server((address, 53))

        self._udp, self._tcp = in_network_namespace(namespace, bound)
        for serve in (self._serve_udp, self._serve_tcp):
            Thread(target=serve, daemon=True).start()

    def _serve_udp(self) -> None:
        with suppress(OSError):
            while True:
                message, peer = self._udp.recvfrom(600)
                if not message:
                    return
                self._udp.sendto(message[:2] + b"\x83\x80" + message[4:6] + bytes(6) + message[12:], peer)

    def _serve_tcp(self) -> None:
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4)
        with suppress(OSError):
            while True:
                connection, _ = self._tcp.accept()
                with connection:
                    (length,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
                    message = connection.recv(length, socket.MSG_WAITALL)
                    counts = struct.pack("!HHHH", 1, LARGE, 0, 0)
                    answers = b"".join(record + struct.pack("!I", number) for number in range(LARGE))
                    reply = message[:2] + b"\x81\x80" + counts + message[12:] + answers
                    connection.sendall(struct.pack("!H", len(reply)) + reply)

    def close(self) -> None:
        for one in (self._udp, self._tcp):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def raw(namespace: str, *messages: bytes) -> list[bytes]:
    """What comes back to datagrams within a moment, in any order."""

    def send() -> list[bytes]:
        found = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.connect(("127.0.0.11", 53))
            for message in messages:
                client.send(message)
            with suppress(TimeoutError):
                while True:
                    found.append(client.recv(5000))
        return found

    return in_network_namespace(namespace, send)


def test_nonsense_is_answered_and_does_no_harm(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await controller.create_network("app")
        long = "x" * 70
        web, first = await add(controller, "web", "app", dns_names=["web"])
        odd = await controller.create_sandbox("odd", web.options)
        from longshore.network.endpoint import EndpointOptions

        second = await odd.join(controller.network("app"), EndpointOptions(name=long, dns_names=[long]))
        header = struct.pack("!HHHHHH", 9, 0x0100, 1, 0, 0, 0)
        replies = await asyncio.to_thread(
            raw,
            web.key,
            header + b"\xc0\x0c\0\1\0\1",  # a name that is itself
            header + b"\x3fnothing",
            header[:4] + b"\0\2" + header[6:] + b"\3web\0\0\1\0\1" * 2,
            b"\0\x09\x28\0" + header[4:] + b"\3web\0\0\1\0\1",  # an update
            b"\0\x09\x81\0" + header[4:] + b"\3web\0\0\1\0\1",  # a reply
            b"",
            b"\0",
        )
        assert sorted(reply[3] & 15 for reply in replies) == [1, 1, 1, 4]
        # A name that no DNS message can hold has addresses, and they no name.
        reverse = ".".join(reversed(second.ipv4_address.split("."))) + ".in-addr.arpa"
        assert (await asyncio.to_thread(ask, web.key, reverse, 12))[::2] == (0, 0)
        for stream in (False, True):
            found = await asyncio.to_thread(ask, odd.key, "web", 1, stream=stream)
            assert found == (0, socket.inet_aton(first.ipv4_address), 1)

        # Connections that say nothing, or half of something, are their owner's loss.
        def idle() -> list[socket.socket]:
            opened = []
            for number in range(40):
                one = socket.create_connection(("127.0.0.11", 53), 2)
                one.send(b"\0\x40abc"[: number % 5])
                opened.append(one)
            return opened

        opened = await asyncio.to_thread(in_network_namespace, web.key, idle)
        assert (await asyncio.to_thread(ask, web.key, "web", 1, stream=True))[0] == 0
        for one in opened:
            one.close()
        await controller.stop(False)

    asyncio.run(run())


def test_long_answers_and_servers_that_are_gone(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await controller.create_network("app")
        web, _ = await add(controller, "web", "app")
        assert web.resolver
        server = await asyncio.to_thread(TcpServer, host.neighbour, "198.51.100.2")
        # Nobody listens at the first one; the second says that it is too much for a datagram.
        web.resolver._upstream = ["127.0.0.1", "198.51.100.2"]
        reply = await asyncio.to_thread(exchange_with, web.key, "much.example.org", 1)
        assert reply[2] & 2 and reply[3] & 15 == 0
        reply = await asyncio.to_thread(exchange_with, web.key, "much.example.org", 1, stream=True)
        assert struct.unpack_from("!H", reply, 6) == (LARGE,) and len(reply) > 64_000
        assert reply[-4:] == struct.pack("!I", LARGE - 1)
        server.close()
        # One that is on the machine's loopback, and is asked about addresses that nobody here has.
        local = Upstream("/proc/thread-self/ns/net", "127.0.0.53")
        web.resolver._upstream = ["127.0.0.53"]
        foreign = "9.2.0.192.in-addr.arpa"
        assert (await asyncio.to_thread(ask, web.key, foreign, 12))[::2] == (0, 1)
        assert len(local.asked) == 1
        # Of a name that is here nothing is asked there, whatever the type.
        for kind in (1, 28, 15, 16, 33, 64, 65, 255):
            assert (await asyncio.to_thread(ask, web.key, "web", kind))[0] == 0
        assert len(local.asked) == 1
        local.close()
        web.resolver._upstream = []
        assert (await asyncio.to_thread(ask, web.key, "example.org", 1))[0] == 2
        await controller.stop(False)

    asyncio.run(run())
