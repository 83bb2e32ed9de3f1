"""Conversations that go on while the engine ends, crashes and comes back, and relays under pressure."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from network.machines import MACHINE, NEIGHBOUR, Machine, Server, add, die, see

from longshore.errors import System
from longshore.linux.namespaces import in_network_namespace
from longshore.network.endpoint import PortBinding
from longshore.network.relay import DatagramRelay, Room, StreamRelay

Serve = Callable[..., Server]


class Echo:
    """One conversation: a client that says numbers without a pause to a server that says them back."""

    def __init__(self, kind: int, inside: str, outside: str | Path, target: tuple[str, int]) -> None:
        self.said = self.heard = 0
        self.failure: OSError | None = None
        self._kind, self._ending = kind, threading.Event()
        self._server = in_network_namespace(inside, self._listen)
        threading.Thread(target=self._answer, daemon=True).start()
        self._client = in_network_namespace(outside, lambda: socket.socket(socket.AF_INET, kind))
        self._client.settimeout(3)
        self._client.connect(target)
        self._speaker = threading.Thread(target=self._speak, daemon=True)
        self._speaker.start()

    async def goes_on(self) -> None:
        """Return once twenty more answers have come."""
        target = self.heard + 20
        while self.heard < target:
            assert self._speaker.is_alive(), self.failure
            await asyncio.sleep(0.005)

    def close(self) -> None:
        self._ending.set()
        self._speaker.join()
        for one in (self._client, self._server):
            one.close()
        assert self.failure is None and self.said == self.heard

    def _listen(self) -> socket.socket:
        server = socket.socket(socket.AF_INET, self._kind)
        server.bind(("0.0.0.0", 80))
        if self._kind == socket.SOCK_STREAM:
            server.listen()
        return server

    def _answer(self) -> None:
        with suppress(OSError):
            if self._kind == socket.SOCK_DGRAM:
                while True:
                    data, peer = self._server.recvfrom(100)
                    self._server.sendto(data, peer)
            connection, _ = self._server.accept()
            with connection:
                while data := connection.recv(100):
                    connection.sendall(data)

    def _speak(self) -> None:
        try:
            while not self._ending.wait(0.001):
                number = struct.pack("!I", self.said)
                self._client.send(number)
                self.said += 1
                assert self._client.recv(100) == number
                self.heard += 1
        except OSError as exc:
            self.failure = exc


@pytest.mark.parametrize("crash", [False, True])
def test_conversations_outlive_the_engine(host: Machine, crash: bool) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        echoes = []
        for kind, protocol, port in ((socket.SOCK_STREAM, "tcp", 8080), (socket.SOCK_DGRAM, "udp", 8081)):
            box, _ = await add(
                controller, protocol, port_bindings=[PortBinding(protocol, 80, "", port, port)]
            )
            target = (MACHINE, port)
            echoes.append(await asyncio.to_thread(Echo, kind, box.key, host.neighbour, target))
        keys = {one.container_id: one.key for one in controller.sandboxes()}
        for _ in range(2):
            for echo in echoes:
                await echo.goes_on()
            if crash:
                await die(controller)
            else:
                await controller.stop(True)
            for echo in echoes:
                await echo.goes_on()
            controller = host.controller()
            await controller.start(keys)
        for echo in echoes:
            await echo.goes_on()
            await asyncio.to_thread(echo.close)
        await controller.stop(False)

    asyncio.run(run())


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to be")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def relayed(room: Room) -> Iterator[tuple[socket.socket, tuple[str, int], StreamRelay]]:
    """A listening server, and where a relay to it is reached."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        holder = socket.socket()
        holder.bind(("127.0.0.1", 0))
        where = holder.getsockname()
        relay = StreamRelay(holder, server.getsockname(), room)
        yield server, where, relay
        relay.close()


async def pair(server: socket.socket, where: tuple[str, int]) -> tuple[socket.socket, socket.socket]:
    client = await asyncio.to_thread(socket.create_connection, where, 10)
    far, _ = await asyncio.to_thread(server.accept)
    far.settimeout(10)
    return client, far


def test_a_reset_is_passed_on_each_way() -> None:
    async def run() -> None:
        with relayed(Room()) as (server, where, _):
            for ends in (0, 1):
                both = await pair(server, where)
                one, other = both[ends], both[1 - ends]
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()
                with pytest.raises(ConnectionResetError):
                    await asyncio.to_thread(other.recv, 1)
                other.close()
            server.close()
            with socket.socket() as client:
                client.settimeout(10)
                await asyncio.to_thread(client.connect, where)
                with pytest.raises(ConnectionResetError):  # Nobody listens there.
                    await asyncio.to_thread(client.recv, 1)

    asyncio.run(run())


def test_peers_that_do_not_read_cost_little() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    async def run() -> None:
        room = Room()
        with relayed(room) as (server, where, _), ExitStack() as stack:
            everybody = []
            for _ in range(80):
                for end in await pair(server, where):
                    everybody.append(stack.enter_context(end))
                    end.setblocking(False)
            before, block = resident(), bytes(1 << 20)
            for _ in range(3):
                for end in everybody:
                    with suppress(BlockingIOError):
                        while end.send(block):
                            pass
                await asyncio.sleep(0.1)
            assert room.taken == 80 and resident() - before < 20 << 20

    asyncio.run(run())


def test_relays_leave_descriptors_to_the_engine() -> None:
    async def run() -> None:
        room = Room()
        room.limit = 6  # half of it for one port
        with relayed(room) as (server, where, _), ExitStack() as stack:
            for _ in range(3):
                for end in await pair(server, where):
                    stack.enter_context(end)
            waiting = await asyncio.to_thread(socket.create_connection, where, 10)
            server.settimeout(0.4)
            with pytest.raises(TimeoutError):  # It has to wait until somebody goes.
                await asyncio.to_thread(server.accept)
            stack.pop_all().close()
            server.settimeout(10)
            with waiting, (await asyncio.to_thread(server.accept))[0]:  # Now it is its turn.
                assert 1 <= room.taken <= 3
        await eventually(lambda: room.taken == 0)

    asyncio.run(run())


def test_each_port_has_its_share_of_the_relays() -> None:
    async def run() -> None:
        room = Room()
        room.limit = 20
        with ExitStack() as stack:
            greedy, where, _ = stack.enter_context(relayed(room))
            for _ in range(30):
                stack.enter_context(await asyncio.to_thread(socket.create_connection, where, 10))
            await eventually(lambda: room.taken == 10)
            for _ in range(3):  # Others come to theirs, with the backlog of the first as full as it is.
                server, place, _ = stack.enter_context(relayed(room))
                for end in await pair(server, place):
                    stack.enter_context(end)
            assert room.taken == 13
            greedy.close()
        await eventually(lambda: room.taken == 0)

    asyncio.run(run())


def test_udp_clients_beyond_the_limit_push_out_the_silent() -> None:
    async def run() -> None:
        room, before = Room(), descriptors()
        room.limit = 8  # half of it for one port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(10)
            holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            holder.bind(("127.0.0.1", 0))
            where = holder.getsockname()
            relay = DatagramRelay(holder, server.getsockname(), room)
            for _ in range(20):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.settimeout(10)
                    client.sendto(b"?", where)
                    _, peer = await asyncio.to_thread(server.recvfrom, 10)
                    server.sendto(b"!", peer)
                    assert await asyncio.to_thread(client.recv, 10) == b"!"
            assert room.taken == 4
            relay.close()
        assert room.taken == 0 and descriptors() <= before + 3  # the loop's own

    asyncio.run(run())


@pytest.mark.parametrize("version", [4, 6])
def test_udp_answers_come_from_the_address_that_was_asked(host: Machine, serve: Serve, version: int) -> None:
    addresses = {4: [MACHINE, "198.51.100.7"], 6: ["2001:db8::1", "2001:db8::7"]}[version]
    there = ["nsenter", f"--net={host.neighbour}"]
    for where, address in (
        ([], addresses[1]),
        *([([], addresses[0]), (there, "2001:db8::2")] if version == 6 else []),
    ):
        dad = ["nodad"] if version == 6 else []
        length = 64 if version == 6 else 24
        command = [*where, "ip", "addr", "add", f"{address}/{length}", "dev", "wire0", *dad]
        subprocess.run(command, check=True)

    async def run() -> None:
        controller = host.controller(firewall=version == 6)  # without it, all is relayed
        await controller.start({})
        box, endpoint = await add(controller, "box", port_bindings=[PortBinding("udp", 80, "", 8080, 8080)])
        serve(box.key, 80, "udp")
        for address in addresses:
            seen = [await see(host.neighbour, address, 8080, "udp") for _ in range(4)]
            assert endpoint.ipv4_gateway in seen, address  # the wire may take a while to find neighbours
        await controller.stop(False)

    asyncio.run(run())


def test_ports_for_the_machine_alone(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await controller.create_network("other")
        local = [PortBinding("tcp", 80, "127.0.0.1", 8080, 8080)]
        web, endpoint = await add(controller, "web", port_bindings=local)
        mate, _ = await add(controller, "mate")
        away, far = await add(controller, "away", "other")
        serve(web.key, 80)
        assert await see(None, "127.0.0.1", 8080) == endpoint.ipv4_gateway
        for box, gateway in ((mate, endpoint.ipv4_gateway), (away, far.ipv4_gateway), (web, MACHINE)):
            for address in (gateway, MACHINE):
                assert await see(box.key, address, 8080) is None
        assert await see(host.neighbour, MACHINE, 8080) is None
        serve(host.neighbour, 7000)
        assert await see(away.key, NEIGHBOUR, 7000) == MACHINE
        await controller.stop(False)

    asyncio.run(run())


def test_ephemeral_ports_are_of_the_machines_range(host: Machine) -> None:
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40003")
    chosen = [PortBinding("tcp", 80)]

    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        with socket.create_server(("0.0.0.0", 40001)):
            made = [
                (await add(controller, f"c{i}", port_bindings=[PortBinding("tcp", 80)]))[1] for i in range(3)
            ]
            assert sorted(one.ports[0].host_port for one in made) == [40000, 40002, 40003]
            with pytest.raises(System, match="all ports are allocated"):
                await add(controller, "more", port_bindings=chosen)
        await controller.stop(False)

    asyncio.run(run())
