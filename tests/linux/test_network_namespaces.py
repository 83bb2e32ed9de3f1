"""Netlink, namespaces and nftables against the kernel, in a namespace that goes away with its thread."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from longshore.linux import rtnetlink
from longshore.linux.namespaces import (
    create_network_namespace,
    in_network_namespace,
    remove_network_namespace,
    run_in_fresh_thread,
    unshare_network,
)
from longshore.linux.netlink import NetlinkSocket
from longshore.linux.nftables import Nftables, NftablesError


def apart(call: Callable[[], None]) -> None:
    """Run a test's body in a new network namespace."""

    def inside() -> None:
        unshare_network()
        call()

    run_in_fresh_thread(inside)


def test_namespace_is_kept_entered_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "ns"
    mine = Path("/proc/thread-self/ns/net").stat().st_ino
    inode = create_network_namespace(path, lambda fd: os.fstat(fd).st_ino)
    assert inode != mine == Path("/proc/thread-self/ns/net").stat().st_ino
    assert in_network_namespace(path, lambda: Path("/proc/thread-self/ns/net").stat().st_ino) == inode
    remove_network_namespace(path)
    remove_network_namespace(path)
    assert not path.exists() and str(path) not in Path("/proc/self/mountinfo").read_text()


def test_failed_setup_leaves_no_namespace(tmp_path: Path) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EPERM, "no")

    with pytest.raises(OSError, match="no"):
        create_network_namespace(tmp_path / "ns", fail)
    assert not (tmp_path / "ns").exists()


def test_links_addresses_and_routes(tmp_path: Path) -> None:
    def body() -> None:
        path = tmp_path / "ns"
        with closing(NetlinkSocket()) as rtnl:
            rtnetlink.create_bridge(rtnl, "br0", "02:42:00:00:00:01", 1400)
            bridge = rtnetlink.link_by_name(rtnl, "br0")
            assert bridge and (bridge.kind, bridge.address, bridge.mtu) == (
                "bridge",
                "02:42:00:00:00:01",
                1400,
            )
            rtnetlink.add_address(rtnl, bridge.index, ip_interface("10.9.0.1/24"))
            with pytest.raises(FileExistsError):
                rtnetlink.add_address(rtnl, bridge.index, ip_interface("10.9.0.1/24"))
            assert ip_network("10.9.0.0/24") in rtnetlink.routed_networks(rtnl)
            inner = create_network_namespace(path, lambda _: NetlinkSocket())
            fd = os.open(path, os.O_RDONLY)
            rtnetlink.create_veth(
                rtnl,
                "v0",
                peer_name="eth0",
                peer_namespace=fd,
                peer_address="02:42:0a:09:00:02",
                master=bridge.index,
            )
            os.close(fd)
            port = rtnetlink.link_by_name(rtnl, "v0")
            assert port and port.master == bridge.index
            rtnetlink.set_bridge_port(rtnl, port.index, hairpin=True, isolated=True)
            with closing(inner):
                eth0 = rtnetlink.link_by_name(inner, "eth0")
                assert eth0 and eth0.address == "02:42:0a:09:00:02"
                rtnetlink.add_address(inner, eth0.index, ip_interface("10.9.0.2/24"))
                rtnetlink.set_link_up(inner, eth0.index)
                rtnetlink.set_default_route(inner, eth0.index, "10.9.0.1")
                rtnetlink.set_default_route(inner, eth0.index, "10.9.0.3")
                assert ip_interface("10.9.0.2/24") in rtnetlink.addresses(inner, eth0.index)
                rtnetlink.delete_default_route(inner, eth0.index, 4)
                rtnetlink.delete_default_route(inner, eth0.index, 4)
            assert rtnetlink.delete_link(rtnl, "v0") and not rtnetlink.delete_link(rtnl, "v0")
            assert rtnetlink.link_by_name(rtnl, "v0") is None
            remove_network_namespace(path)

    apart(body)


def test_a_transaction_takes_effect_whole_or_not_at_all() -> None:
    def body() -> None:
        nft = Nftables()
        with pytest.raises(NftablesError, match="No such file or directory"):
            nft.run("add table inet t\nadd element inet t nosuch { 1 }")
        assert nft.run("list tables") == ""
        nft.run("add table inet t")
        assert nft.run("list tables") == "table inet t\n"
        nft.close()

    apart(body)
