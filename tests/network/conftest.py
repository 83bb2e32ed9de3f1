"""The machine and the servers of a test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_interface
from pathlib import Path

import pytest
from network.machines import MACHINE, NEIGHBOUR, Machine, Server
from network.office import Office

from longshore.linux import rtnetlink
from longshore.linux.namespaces import (
    create_network_namespace,
    enter_network_namespace,
    remove_network_namespace,
    unshare_network,
)
from longshore.linux.netlink import NetlinkSocket


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Machine]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    unshare_network()
    neighbour = tmp_path / "neighbour"
    try:
        with closing(NetlinkSocket()) as rtnl:
            rtnetlink.set_link_up(rtnl, 1)
            with closing(create_network_namespace(neighbour, lambda _: NetlinkSocket())) as other:
                fd = os.open(neighbour, os.O_RDONLY)
                rtnetlink.create_veth(
                    rtnl, "wire0", peer_name="wire0", peer_namespace=fd, peer_address="02:00:00:00:00:02"
                )
                os.close(fd)
                for end, address in ((rtnl, MACHINE), (other, NEIGHBOUR)):
                    link = rtnetlink.link_by_name(end, "wire0")
                    assert link
                    rtnetlink.add_address(end, link.index, ip_interface(f"{address}/24"))
                    rtnetlink.set_link_up(end, link.index)
                    if end is other:
                        rtnetlink.set_default_route(other, link.index, MACHINE)
        yield Machine(tmp_path, neighbour)
    finally:
        remove_network_namespace(neighbour)
        enter_network_namespace(before)
        os.close(before)
        left = [
            line.split()[4]
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if f"{tmp_path}/" in line
        ]
        for path in left:
            remove_network_namespace(Path(path))
        assert left == []


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments: object, **options: object) -> Server:
        servers.append(Server(*arguments, **options))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def office(host: Machine) -> Iterator[Office]:
    one = Office(host)
    yield one
    one.server.close()
