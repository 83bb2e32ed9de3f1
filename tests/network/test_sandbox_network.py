"""Sandboxes on bridges: real packets, what may pass and what may not."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from network.machines import MACHINE, NEIGHBOUR, Machine, Server, add, die, see

from longshore.errors import Conflict, Forbidden, InvalidParameter, NotFound, System
from longshore.linux import rtnetlink
from longshore.linux.conntrack import forget_flows_of
from longshore.linux.namespaces import in_network_namespace
from longshore.linux.netlink import NETLINK_NETFILTER, NetlinkSocket
from longshore.network.endpoint import EndpointOptions, PortBinding
from longshore.network.ipam import IPAMPool
from longshore.network.sandbox_record import SandboxOptions

Serve = Callable[..., Server]


def link_names() -> set[str]:
    with closing(NetlinkSocket()) as rtnl:
        return {link.name for link in rtnetlink.links(rtnl)}


async def see_run(*command: str) -> str:
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    return str(done.stdout)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_published_port_is_reached_from_everywhere(host: Machine, serve: Serve, kind: str) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        web, endpoint = await add(
            controller, "web", port_bindings=[PortBinding(kind, 80, "", 8080, 8080), PortBinding(kind, 81)]
        )
        client, _ = await add(controller, "client")
        serve(web.key, 80, kind)
        serve(web.key, 81, kind)
        assert await see(host.neighbour, MACHINE, 8080, kind) == NEIGHBOUR
        assert await see(None, MACHINE, 8080, kind) == MACHINE
        assert await see(None, "127.0.0.1", 8080, kind) == endpoint.ipv4_gateway
        assert await see(None, "127.0.0.1", endpoint.ports[1].host_port, kind)
        assert await see(web.key, MACHINE, 8080, kind)
        assert await see(web.key, endpoint.ipv4_gateway, 8080, kind)
        assert await see(client.key, MACHINE, 8080, kind)
        assert await see(client.key, endpoint.ipv4_address, 80, kind) == "172.17.0.3"
        await controller.sandbox_destroy("web")
        assert await see(None, MACHINE, 8080, kind) is None
        await controller.stop(False)
        assert link_names() == {"lo", "wire0"}

    asyncio.run(run())


def test_what_is_not_published_stays_closed(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        local = [PortBinding("tcp", 80, "127.0.0.1", 8080, 8080)]
        web, endpoint = await add(controller, "web", port_bindings=local)
        serve(web.key, 80)
        serve(web.key, 81)
        with closing(NetlinkSocket()) as rtnl:
            wire = rtnetlink.link_by_name(rtnl, "wire0")
            assert wire
        assert await see(None, "127.0.0.1", 8080)
        assert await see(None, MACHINE, 8080) is None
        assert await see(host.neighbour, MACHINE, 8080) is None
        # A neighbour that routes container addresses, or even 127.0.0.1, by way of us.
        assert await see(host.neighbour, endpoint.ipv4_address, 80) is None
        assert await see(host.neighbour, endpoint.ipv4_address, 81) is None
        route_loopback(host.neighbour)
        assert await see(host.neighbour, "127.0.0.1", 8080) is None
        # The machine's loopback services stay its own although the bridge routes 127.0.0.0/8.
        serve("/proc/thread-self/ns/net", 9999, "tcp", "127.0.0.1")
        assert await see(None, "127.0.0.1", 9999)
        route_loopback(web.key)
        assert await see(web.key, "127.0.0.1", 9999) is None
        await controller.stop(False)

    def route_loopback(namespace: str | Path) -> None:
        gateway = MACHINE if namespace == host.neighbour else "172.17.0.1"
        device = "wire0" if namespace == host.neighbour else "eth0"
        script = (
            "for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo 1 > $f; done;"
            "ip addr del 127.0.0.1/8 dev lo; ip route del local 127.0.0.0/8 dev lo table local;"
            "ip route del local 127.0.0.1 dev lo table local;"
            f"ip route add 127.0.0.0/8 via {gateway} dev {device}"
        )
        subprocess.run(["nsenter", f"--net={namespace}", "sh", "-c", script], capture_output=True)

    asyncio.run(run())


def test_going_out_is_masqueraded(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        box, _ = await add(controller, "box")
        serve(host.neighbour, 7000)
        assert await see(box.key, NEIGHBOUR, 7000) == MACHINE
        await controller.stop(False)

    asyncio.run(run())


def test_networks_are_apart_and_internal_ones_closed(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await controller.create_network("one")
        await controller.create_network("two")
        await controller.create_network("inner", internal=True)
        one, first = await add(controller, "c1", "one")
        await add(controller, "c1b", "one")
        two, second = await add(controller, "c2", "two")
        inner, third = await add(controller, "c3", "inner")
        for box in (one, two, inner):
            serve(box.key, 80)
        serve(host.neighbour, 7000)
        assert await see(two.key, first.ipv4_address, 80) is None
        assert await see(one.key, second.ipv4_address, 80) is None
        assert await see(inner.key, NEIGHBOUR, 7000) is None
        assert await see(one.key, third.ipv4_address, 80) is None
        # On a running sandbox: joined, it reaches; left, it does not.
        joined = await two.join(controller.network("one"), EndpointOptions(name="c2"))
        assert joined.interface == "eth1"
        assert await see(two.key, first.ipv4_address, 80) == joined.ipv4_address
        await two.leave(joined)
        assert await see(two.key, first.ipv4_address, 80) is None
        assert await see(two.key, NEIGHBOUR, 7000)
        with pytest.raises(Forbidden, match="has active endpoints"):
            await controller.remove_network(controller.network("one"))
        await controller.stop(False)

    asyncio.run(run())


def test_icc_off_keeps_neighbours_apart(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller(icc=False)
        await controller.start({})
        web, endpoint = await add(controller, "web")
        client, _ = await add(controller, "client")
        serve(web.key, 80)
        assert await see(client.key, endpoint.ipv4_address, 80) is None
        assert await see(None, endpoint.ipv4_address, 80)
        await controller.stop(False)

    asyncio.run(run())


def test_taken_ports_fail_with_dockers_words_and_leave_nothing(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await add(controller, "first", port_bindings=[PortBinding("tcp", 80, "", 8080, 8080)])
        serve("/proc/thread-self/ns/net", 9090)
        before = link_names()
        sandbox = await controller.create_sandbox("second", SandboxOptions())
        for port, words in (
            (8080, r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated"),
            (
                9090,
                r"failed to bind host port for 0\.0\.0\.0:9090:172\.17\.0\.3:80/tcp: address already in use",
            ),
        ):
            free = PortBinding("tcp", 79, "", 8079, 8079)
            options = EndpointOptions(
                name="second", port_bindings=[free, PortBinding("tcp", 80, "", port, port)]
            )
            with pytest.raises(System, match=rf"driver failed .* endpoint second \(\w{{64}}\): {words}"):
                await sandbox.join(controller.network("bridge"), options)
        assert link_names() == before and sandbox.endpoints == []
        ranged = EndpointOptions(name="second", port_bindings=[PortBinding("tcp", 80, "", 8080, 8090)])
        endpoint = await sandbox.join(controller.network("bridge"), ranged)
        assert endpoint.ipv4_address == "172.17.0.3" and endpoint.ports[0].host_port == 8081
        await controller.stop(False)

    asyncio.run(run())


def test_crash_restores_the_running_and_removes_the_rest(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        before = host.controller()
        await before.start({})
        user = await before.create_network("user", labels={"a": "b"})
        bindings = [PortBinding("tcp", 80, "", 8080, 8080)]
        alive, endpoint = await add(before, "alive", "user", port_bindings=bindings)
        dead, _ = await add(before, "dead", port_bindings=[PortBinding("tcp", 80, "", 8081, 8081)])
        server = serve(alive.key, 80)
        await die(before)
        await see_run("nft", "delete", "table", "inet", "longshore")
        after = host.controller()
        await after.start({"alive": alive.key})
        assert after.network("user").id == user.id and after.network("user").labels == {"a": "b"}
        assert after.sandbox("dead") is None and not await asyncio.to_thread(Path(dead.key).exists)
        restored = after.sandbox("alive")
        assert restored and [one.id for one in restored.endpoints] == [endpoint.id]
        assert await see(host.neighbour, MACHINE, 8080) == NEIGHBOUR
        assert await see(host.neighbour, MACHINE, 8081) is None
        _, other = await add(after, "other", "user")
        assert other.ipv4_address != endpoint.ipv4_address
        with pytest.raises(System, match="port is already allocated"):
            await add(after, "thief", port_bindings=bindings)
        server.close()
        await after.stop(False)
        assert not list((host.root / "run" / "netns").iterdir())
        assert link_names() == {"lo", "wire0", user.record.link}

    asyncio.run(run())


def test_live_restore_keeps_packets_flowing(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        before = host.controller()
        await before.start({})
        box, _ = await add(before, "box", port_bindings=[PortBinding("tcp", 80, "", 8080, 8080)])
        serve(box.key, 80)
        await before.stop(True)
        assert await see(host.neighbour, MACHINE, 8080) == NEIGHBOUR
        after = host.controller()
        await after.start({"box": box.key})
        assert await see(host.neighbour, MACHINE, 8080) == NEIGHBOUR
        await after.stop(False)
        assert link_names() == {"lo", "wire0"}

    asyncio.run(run())


def test_fifty_at_once(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        made = await asyncio.gather(
            *(add(controller, f"c{i}", port_bindings=[PortBinding("tcp", 80)]) for i in range(50))
        )
        assert len({endpoint.ipv4_address for _, endpoint in made}) == 50
        assert len({endpoint.ports[0].host_port for _, endpoint in made}) == 50
        await asyncio.gather(*(controller.sandbox_destroy(f"c{i}") for i in range(50)))
        await controller.settled()
        assert controller.network("bridge").endpoints == {}
        assert link_names() == {"lo", "wire0", "test0"}
        await controller.stop(False)

    asyncio.run(run())


def test_a_hundred_at_once_share_no_address_and_a_restart_keeps_them(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        kept_free = {"gateway": "10.78.0.5", "printer": "10.78.0.8", "camera": "10.78.1.9"}
        pool = IPAMPool(
            subnet="10.78.0.0/23",
            ip_range="10.78.0.0/24",
            gateway=kept_free["gateway"],
            aux_addresses={name: kept_free[name] for name in ("printer", "camera")},
        )
        await controller.create_network("big", ipam=[pool], enable_ipv6=True)
        # Some ask for addresses that the others would be given.
        made = await asyncio.gather(
            *(
                add(controller, f"c{i}", "big", ipv4_address=f"10.78.0.{i + 2}" if i % 5 == 0 else "")
                for i in range(100)
            ),
            return_exceptions=True,
        )
        boxes = [one for one in made if not isinstance(one, BaseException)]
        refused = [one for one in made if isinstance(one, BaseException)]
        assert all("Address already in use" in str(one) for one in refused) and len(boxes) >= 80
        for version in ("ipv4_address", "ipv6_address"):
            given = {getattr(endpoint, version) for _, endpoint in boxes}
            assert len(given) == len(boxes) and not given & set(kept_free.values())
        await die(controller)
        again = host.controller()
        await again.start({box.container_id: box.key for box, _ in boxes[:50]})
        kept = {endpoint.ipv4_address for _, endpoint in boxes[:50]}
        more = [(await add(again, f"d{i}", "big"))[1].ipv4_address for i in range(100)]
        assert len(set(more)) == 100 and not (kept | set(kept_free.values())) & set(more)
        assert all(one.startswith("10.78.0.") for one in more)
        await again.stop(False)

    asyncio.run(run())


def test_networks_are_validated_in_dockers_words(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        pool = IPAMPool(
            subnet="10.77.0.0/24",
            ip_range="10.77.0.128/25",
            gateway="10.77.0.1",
            aux_addresses={"a": "10.77.0.128"},
        )
        network = await controller.create_network("mine", ipam=[pool])
        assert controller.network(network.id[:8]) is network
        with pytest.raises(Conflict, match="network with name mine already exists"):
            await controller.create_network("mine")
        with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
            await controller.create_network("other", ipam=[IPAMPool(subnet="10.77.0.0/16")])
        with pytest.raises(NotFound, match="network nope not found"):
            controller.network("nope")
        with pytest.raises(NotFound, match="plugin not found"):
            await controller.create_network("odd", "nosuch")
        with pytest.raises(Forbidden, match="pre-defined network and cannot be removed"):
            await controller.remove_network(controller.network("bridge"))
        _, first = await add(controller, "first", "mine")
        assert first.ipv4_address == "10.77.0.129" and first.ipv4_gateway == "10.77.0.1"
        _, fixed = await add(
            controller, "fixed", "mine", ipv4_address="10.77.0.50", mac_address="02:11:22:33:44:55"
        )
        assert (fixed.ipv4_address, fixed.mac_address) == ("10.77.0.50", "02:11:22:33:44:55")
        with pytest.raises(Forbidden, match="Address already in use"):
            await add(controller, "again", "mine", ipv4_address="10.77.0.50")
        with pytest.raises(InvalidParameter, match="no configured subnet contains IP address"):
            await add(controller, "away", "mine", ipv4_address="10.78.0.50")
        for id in ("first", "fixed", "again", "away"):
            await controller.sandbox_destroy(id)
        await controller.remove_network(network)
        assert network.record.link not in link_names()
        await controller.stop(False)

    asyncio.run(run())


def test_flags_of_the_default_bridge(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller(
            bip="10.66.0.1/24", fixed_cidr="10.66.0.128/25", default_gateway="10.66.0.254", mtu=1400
        )
        await controller.start({})
        box, endpoint = await add(controller, "box")
        assert (endpoint.ipv4_address, endpoint.ipv4_prefixlen) == ("10.66.0.128", 24)
        assert endpoint.ipv4_gateway == "10.66.0.254"
        with closing(await asyncio.to_thread(in_network_namespace, box.key, NetlinkSocket)) as inside:
            eth0 = rtnetlink.link_by_name(inside, "eth0")
            assert eth0 and eth0.mtu == 1400
        with pytest.raises(Forbidden, match="operation is not permitted on predefined bridge network"):
            await controller.create_network("bridge")
        await controller.stop(False)
        none = host.controller(bridge_name="none")
        await none.start({})
        assert {network.name for network in none.networks()} == {"host", "none"}
        for id, network in (("hosted", "host"), ("alone", "none")):
            sandbox = await none.create_sandbox(id, SandboxOptions(host=network == "host"))
            joined = await sandbox.join(none.network(network), EndpointOptions(name=id))
            assert joined.ipv4_address == "" and joined.interface == ""
        await none.stop(False)

    asyncio.run(run())


def test_ipv6_network(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await controller.create_network("six", enable_ipv6=True, ipam=[IPAMPool(subnet="fd00:77::/64")])
        one, first = await add(
            controller, "c1", "six", port_bindings=[PortBinding("tcp", 80, "::", 8080, 8080)]
        )
        two, _ = await add(controller, "c2", "six")
        assert first.ipv6_address == "fd00:77::2" and first.ipv4_address
        serve(one.key, 80, "tcp", "::")
        # Neighbours may take a second to be found while links still make sure of their own addresses.
        assert any([await see(two.key, "fd00:77::2", 80) for _ in range(6)])
        assert any([await see(two.key, "fd00:77::1", 8080) for _ in range(6)])
        await controller.stop(False)

    asyncio.run(run())


def test_cancelled_and_foreign_things_are_left_as_they_were(host: Machine) -> None:
    async def run() -> None:
        with closing(NetlinkSocket()) as rtnl:
            rtnetlink.create_bridge(rtnl, "test0", "02:42:00:00:00:01", 1500)
        controller = host.controller()
        await controller.start({})
        sandbox = await controller.create_sandbox("box", SandboxOptions())
        before = link_names()
        join = asyncio.create_task(
            sandbox.join(
                controller.network("bridge"),
                EndpointOptions(port_bindings=[PortBinding("tcp", 80, "", 8080, 8080)]),
            )
        )
        await asyncio.sleep(0.0005)
        join.cancel()
        with pytest.raises(asyncio.CancelledError):
            await join
        assert link_names() == before and controller.network("bridge").endpoints == {}
        _, endpoint = await add(controller, "next", port_bindings=[PortBinding("tcp", 80, "", 8080, 8080)])
        assert endpoint.ipv4_address.endswith(".0.2")
        await controller.stop(False)
        assert "test0" in link_names()

    asyncio.run(run())


def test_nobody_inherits_connections_with_an_address(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        serve(host.neighbour, 7000, "udp")
        serve(host.neighbour, 7001)

        def flows() -> int:
            with closing(NetlinkSocket(NETLINK_NETFILTER)) as netfilter:
                return forget_flows_of(netfilter, [NEIGHBOUR])

        for leaves in (True, False):
            box, endpoint = await add(controller, "box")
            assert await see(box.key, NEIGHBOUR, 7000, "udp") and await see(box.key, NEIGHBOUR, 7001)
            if leaves:
                await box.leave(endpoint)
            await controller.sandbox_destroy("box")
            await controller.settled()
            assert await asyncio.to_thread(flows) == 0
        await controller.stop(False)

    asyncio.run(run())


def test_the_first_packet_arrives(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        slow = 0
        for i in range(20):
            _, endpoint = await add(controller, f"c{i}")
            began = asyncio.get_running_loop().time()
            # Nothing listens there: the answer is a reset, and comes at once or after a lost packet's second.
            assert await see(None, endpoint.ipv4_address, 9) is None
            slow += asyncio.get_running_loop().time() - began > 0.4
        assert slow == 0
        await controller.stop(False)

    asyncio.run(run())


def test_two_hundred_ports_of_each_family(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        ports = [PortBinding("tcp", port, "", 20000 + port, 20000 + port) for port in range(1, 201)]
        _, endpoint = await add(controller, "many", port_bindings=ports)
        assert {port.host_ip for port in endpoint.ports} == {"0.0.0.0", "::"} and len(endpoint.ports) == 400
        await controller.sandbox_destroy("many")
        # Every one of them can be had again.
        _, again = await add(controller, "next", port_bindings=ports)
        assert len(again.ports) == 400
        await controller.stop(False)

    asyncio.run(run())


def test_udp_client_that_never_pauses_follows_the_port(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        client = await asyncio.to_thread(
            in_network_namespace, host.neighbour, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        )
        with closing(client):
            client.settimeout(0.5)
            client.bind((NEIGHBOUR, 5555))
            for id in ("first", "second"):
                # Sent while nothing is published: the kernel now tracks this flow as one to itself.
                client.sendto(b"?", (MACHINE, 5300))
                bindings = [PortBinding("udp", 53, "", 5300, 5300)]
                box, _ = await add(controller, id, port_bindings=bindings)
                serve(box.key, 53, "udp")
                client.sendto(b"?", (MACHINE, 5300))
                assert await asyncio.to_thread(client.recv, 100) == NEIGHBOUR.encode()
                await controller.sandbox_destroy(id)
        await controller.stop(False)

    asyncio.run(run())
