"""How networks are connected to others: gateway modes, trusted links, relays, the way out."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_interface
from pathlib import Path

import pytest
from network.machines import MACHINE, NEIGHBOUR, Machine, Server, add, die, reach, see

from longshore.errors import Forbidden, InvalidParameter, NotFound, System
from longshore.linux import rtnetlink
from longshore.linux.namespaces import in_network_namespace
from longshore.linux.netlink import NetlinkSocket
from longshore.network.endpoint import EndpointOptions, PortBinding
from longshore.network.ipam import IPAMPool

Serve = Callable[..., Server]
MTU = "com.docker.network.driver.mtu"
MODE = "com.docker.network.bridge.gateway_mode_ipv4"
WEB = [PortBinding("tcp", 80, "", 8080, 8080)]


def neighbour_runs(host: Machine, *command: str) -> None:
    subprocess.run(["nsenter", f"--net={host.neighbour}", *command], check=True)


def default_routes(namespace: str, version: int = 4) -> str:
    command = ["nsenter", f"--net={namespace}", "ip", f"-{version}", "route", "show", "default"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def pings(namespace: Path, address: str) -> bool:
    def echo() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as one:
            one.settimeout(0.5)
            one.sendto(bytes.fromhex("0800f7ff00000000"), (address, 0))
            try:
                return one.recvfrom(100)[1][0] == address
            except TimeoutError:
                return False

    return in_network_namespace(namespace, echo)


@pytest.mark.parametrize(
    ("mode", "published", "direct", "unpublished"),
    [
        ("nat", True, False, False),
        ("nat-unprotected", True, True, True),
        ("routed", False, True, False),
    ],
)
def test_gateway_modes(
    host: Machine, serve: Serve, mode: str, published: bool, direct: bool, unpublished: bool
) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await controller.create_network("net", options={MODE: mode})
        await controller.create_network("other")
        web, endpoint = await add(controller, "web", "net", port_bindings=WEB)
        away, _ = await add(controller, "away", "other")
        for port in (80, 81):
            serve(web.key, port)
        serve(host.neighbour, 7000)
        neighbours = [host.neighbour, away.key]
        assert [await see(one, MACHINE, 8080) is not None for one in neighbours] == [published] * 2
        # Routed containers are reached from other networks as well, but natted ones from none.
        reached = [await see(one, endpoint.ipv4_address, 80) is not None for one in neighbours]
        assert reached == [direct, mode == "routed"]
        reached = [await see(one, endpoint.ipv4_address, 81) is not None for one in neighbours]
        assert reached == [unpublished, False]
        outside = await see(web.key, NEIGHBOUR, 7000)
        assert outside == (endpoint.ipv4_address if mode == "routed" else MACHINE)
        assert endpoint.ports[0].host_port == (0 if mode == "routed" else 8080)
        assert await asyncio.to_thread(pings, host.neighbour, endpoint.ipv4_address) is direct
        await controller.stop(False)

    asyncio.run(run())


def test_isolated_networks_have_no_gateway(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        with pytest.raises(System, match="'isolated' can only be used for an internal network"):
            await controller.create_network("no", options={MODE: "isolated"})
        with pytest.raises(InvalidParameter, match=r"\(unknown gateway mode nope\)"):
            await controller.create_network("no", options={MODE: "nope"})
        network = await controller.create_network("net", options={MODE: "isolated"}, internal=True)
        one, first = await add(controller, "one", "net")
        two, _ = await add(controller, "two", "net")
        serve(one.key, 80)
        with closing(NetlinkSocket()) as rtnl:
            link = rtnetlink.link_by_name(rtnl, network.record.link)
            assert link and not [one for one in rtnetlink.addresses(rtnl, link.index) if one.version == 4]
        assert network.pools[0].gateway == "" and first.ipv4_address.endswith(".0.1")
        assert await see(two.key, first.ipv4_address, 80)
        await controller.stop(False)

    asyncio.run(run())


def test_trusted_links_and_direct_routing(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller(
            default_network_opts={"bridge": {"com.docker.network.driver.mtu": "1400"}}
        )
        await controller.start({})
        trusted = {"com.docker.network.bridge.trusted_host_interfaces": "wire0:nosuch0"}
        network = await controller.create_network("net", options=trusted)
        assert network.options[MTU] == "1400"
        web, endpoint = await add(controller, "web", "net", port_bindings=WEB)
        for port in (80, 81):
            serve(web.key, port)
        assert await see(host.neighbour, endpoint.ipv4_address, 80) == NEIGHBOUR
        assert await see(host.neighbour, endpoint.ipv4_address, 81) is None
        await controller.stop(False)
        controller = host.controller(allow_direct_routing=True)
        await controller.start({})
        web, endpoint = await add(controller, "web", port_bindings=WEB)
        for port in (80, 81):
            serve(web.key, port)
        assert await see(host.neighbour, endpoint.ipv4_address, 80) == NEIGHBOUR
        assert await see(host.neighbour, endpoint.ipv4_address, 81) is None
        await controller.stop(False)

    asyncio.run(run())


def test_outgoing_packets_get_the_address_that_is_asked_for(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        with closing(NetlinkSocket()) as rtnl:
            wire = rtnetlink.link_by_name(rtnl, "wire0")
            assert wire
            rtnetlink.add_address(rtnl, wire.index, ip_interface("198.51.100.77/24"))
        await controller.create_network("net", options={"com.docker.network.host_ipv4": "198.51.100.77"})
        await controller.create_network(
            "plain", options={"com.docker.network.bridge.enable_ip_masquerade": "false"}
        )
        box, _ = await add(controller, "box", "net")
        bare, plain = await add(controller, "bare", "plain")
        serve(host.neighbour, 7000)
        assert await see(box.key, NEIGHBOUR, 7000) == "198.51.100.77"
        assert await see(bare.key, NEIGHBOUR, 7000) == plain.ipv4_address
        await controller.stop(False)

    asyncio.run(run())


def test_ports_follow_the_way_out(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        for name in ("net-a", "net-b"):
            await controller.create_network(name)
        await controller.create_network("inner", internal=True)
        chosen = [*WEB, PortBinding("tcp", 80)]
        web, first = await add(controller, "web", "net-b", port_bindings=chosen)
        serve(web.key, 80)
        ephemeral = first.ports[-1].host_port
        await web.join(controller.network("inner"), EndpointOptions(name="web"))
        assert first.ports and await see(host.neighbour, MACHINE, 8080)
        second = await web.join(controller.network("net-a"), EndpointOptions(name="web"))
        assert first.ports == [] and second.ipv4_gateway in default_routes(web.key)
        assert {port.host_port for port in second.ports} == {8080, ephemeral}
        assert await see(host.neighbour, MACHINE, 8080) and await see(None, MACHINE, ephemeral)
        await web.leave(second)
        assert first.ipv4_gateway in default_routes(web.key)
        assert await see(host.neighbour, MACHINE, 8080) and await see(None, MACHINE, ephemeral)
        await controller.create_network("net-z")
        last = await web.join(controller.network("net-z"), EndpointOptions(name="web", gw_priority=1))
        assert last.ports and last.ipv4_gateway in default_routes(web.key)
        assert await see(host.neighbour, MACHINE, 8080) and await see(None, MACHINE, ephemeral)
        await controller.stop(False)
        assert await see(None, MACHINE, 8080) is None

    asyncio.run(run())


def test_ports_that_cannot_move_stay(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await controller.create_network("net-b")
        nowhere = {"com.docker.network.bridge.host_binding_ipv4": "203.0.113.1"}
        await controller.create_network("net-a", options=nowhere)
        web, first = await add(controller, "web", "net-b", port_bindings=[*WEB, PortBinding("tcp", 80)])
        serve(web.key, 80)
        ephemeral = first.ports[-1].host_port
        with pytest.raises(System, match="cannot assign requested address"):
            await web.join(controller.network("net-a"), EndpointOptions(name="web"))
        assert [one.network_name for one in web.endpoints] == ["net-b"]
        assert {port.host_port for port in first.ports} == {8080, ephemeral}
        assert await see(host.neighbour, MACHINE, 8080) and await see(None, MACHINE, ephemeral)
        assert first.ipv4_gateway in default_routes(web.key)
        await controller.stop(False)

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_ipv6_clients_of_ipv4_containers_are_relayed(host: Machine, serve: Serve, kind: str) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        web, endpoint = await add(controller, "web", port_bindings=[PortBinding(kind, 80, "", 8080, 8080)])
        serve(web.key, 80, kind)
        assert [port.host_ip for port in endpoint.ports] == ["0.0.0.0", "::"]
        assert await see(None, "::1", 8080, kind) == endpoint.ipv4_gateway
        await die(controller)
        assert await see(None, "::1", 8080, kind) is None
        controller = host.controller()
        await controller.start({"web": web.key})
        assert await see(None, "::1", 8080, kind) == endpoint.ipv4_gateway
        await controller.sandbox_destroy("web")
        assert await see(None, "::1", 8080, kind) is None
        await controller.stop(False)
        plain = host.controller(userland_proxy=False)
        await plain.start({})
        _, endpoint = await add(plain, "web", port_bindings=[PortBinding(kind, 80, "", 8080, 8080)])
        assert [port.host_ip for port in endpoint.ports] == ["0.0.0.0"]
        await plain.stop(False)

    asyncio.run(run())


def test_a_relay_passes_on_half_closes_and_much(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller(firewall=False)
        await controller.start({})
        web, _ = await add(controller, "web", port_bindings=WEB)
        server = await asyncio.to_thread(
            in_network_namespace, web.key, lambda: socket.create_server(("0.0.0.0", 80))
        )

        def swallow() -> None:
            connection, _ = server.accept()
            with connection:
                total = 0
                while data := connection.recv(1 << 16):
                    total += len(data)
                connection.sendall(str(total).encode())

        def send() -> bytes:
            with socket.create_connection(("127.0.0.1", 8080), 10) as client:
                client.sendall(bytes(5_000_000))
                client.shutdown(socket.SHUT_WR)
                return client.recv(100)

        swallowing = asyncio.create_task(asyncio.to_thread(swallow))
        assert await asyncio.to_thread(send) == b"5000000"
        await swallowing
        server.close()
        await controller.stop(False)

    asyncio.run(run())


def test_ipv6_on_the_default_bridge(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        with closing(NetlinkSocket()) as rtnl:
            wire = rtnetlink.link_by_name(rtnl, "wire0")
            assert wire
            rtnetlink.add_address(rtnl, wire.index, ip_interface("2001:db8::1/64"))
        neighbour_runs(host, "ip", "-6", "addr", "add", "2001:db8::2/64", "dev", "wire0", "nodad")
        neighbour_runs(host, "ip", "-6", "route", "add", "default", "via", "2001:db8::1")
        controller = host.controller(ipv6=True, fixed_cidr_v6="fd00:99::/64")
        await controller.start({})
        assert [pool.gateway for pool in controller.network("bridge").pools][1] == "fd00:99::1"
        web, endpoint = await add(controller, "web", port_bindings=WEB)
        assert (endpoint.ipv6_address, endpoint.ipv6_gateway) == ("fd00:99::2", "fd00:99::1")
        assert "via fd00:99::1" in default_routes(web.key, 6)
        serve(web.key, 80, "tcp", "::")
        serve(host.neighbour, 7000, "tcp", "::")
        # A bridge's own link-local address takes a second to be sure of itself.
        assert any([await see(host.neighbour, "2001:db8::1", 8080) == "2001:db8::2" for _ in range(5)])
        assert await see(None, "::1", 8080) == "fd00:99::1"
        assert await see(None, MACHINE, 8080)
        assert await see(web.key, "2001:db8::2", 7000) == "2001:db8::1"
        assert await see(host.neighbour, "fd00:99::2", 80) is None
        await controller.stop(False)
        again = host.controller(ipv6=True)
        await again.start({})
        assert again.network("bridge").pools[1].subnet == "fd00:99::/64"
        await again.stop(False)

    asyncio.run(run())


def test_a_network_without_ipv4(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        network = await controller.create_network("six", enable_ipv4=False, enable_ipv6=True)
        assert len(network.pools) == 1 and network.pools[0].subnet.startswith("fd")
        one, first = await add(controller, "one", "six", port_bindings=WEB)
        two, _ = await add(controller, "two", "six")
        assert first.ipv4_address == "" and [port.host_ip for port in first.ports] == ["::"]
        serve(one.key, 80, "tcp", "::")
        assert any([await see(two.key, first.ipv6_address, 80) for _ in range(6)])
        assert any([await see(None, "::1", 8080) for _ in range(5)])
        await controller.stop(False)

    asyncio.run(run())


def test_linked_containers_speak_though_icc_is_off(host: Machine, serve: Serve) -> None:
    from longshore.network.ruleset import Link

    async def run() -> None:
        controller = host.controller(icc=False)
        await controller.start({})
        web, endpoint = await add(controller, "web", port_bindings=WEB)
        client, own = await add(controller, "client")
        for port in (80, 81):
            serve(web.key, port)
        assert controller.machine.firewall
        assert await see(client.key, endpoint.ipv4_address, 80) is None
        link = Link(own.ipv4_address, endpoint.ipv4_address, "tcp", 80)
        await asyncio.to_thread(controller.machine.firewall.link, [link])
        assert await see(client.key, endpoint.ipv4_address, 80) == own.ipv4_address
        assert await see(client.key, endpoint.ipv4_address, 81) is None
        # By way of the machine, published ports are open to neighbours as to everybody: also when the
        # machine knows where the container is, and br_netfilter keeps the translated packet on the bridge.
        assert await see(None, endpoint.ipv4_address, 80)
        assert await see(client.key, MACHINE, 8080)
        # The next to have its address is not linked.
        await controller.sandbox_destroy("client")
        await controller.settled()
        thief, same = await add(controller, "thief")
        assert same.ipv4_address == own.ipv4_address
        assert await see(thief.key, endpoint.ipv4_address, 80) is None
        await controller.stop(False)

    asyncio.run(run())


def test_nobody_speaks_in_the_name_of_another_network(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await controller.create_network("victims")
        _, victim = await add(controller, "victim", "victims")
        box, own = await add(controller, "box")

        def listen() -> socket.socket:
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.bind((NEIGHBOUR, 7000))
            one.settimeout(0.5)
            return one

        server = await asyncio.to_thread(in_network_namespace, host.neighbour, listen)

        def forge(source: str) -> bool:
            def send() -> None:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT: any source will do
                    client.bind((source, 0))
                    client.sendto(b"?", (NEIGHBOUR, 7000))

            in_network_namespace(box.key, send)
            try:
                return bool(server.recv(10))
            except TimeoutError:
                return False

        assert await asyncio.to_thread(forge, own.ipv4_address)
        assert await asyncio.to_thread(forge, "203.0.113.9")  # A VPN's other side, say.
        assert not await asyncio.to_thread(forge, victim.ipv4_address)
        server.close()
        await controller.stop(False)

    asyncio.run(run())


def test_settings_of_endpoints(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        sysctls = "com.docker.network.endpoint.sysctls"
        wanted = {sysctls: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0"}
        box, _ = await add(
            controller, "box", driver_opts=wanted, link_local_addresses=["169.254.7.7", "fe80::7"]
        )

        def look() -> tuple[str, set[str]]:
            with closing(NetlinkSocket()) as rtnl:
                link = rtnetlink.link_by_name(rtnl, "eth0")
                assert link
                addresses = {str(one) for one in rtnetlink.addresses(rtnl, link.index)}
            return Path("/proc/sys/net/ipv4/conf/eth0/log_martians").read_text().strip(), addresses

        value, addresses = await asyncio.to_thread(in_network_namespace, box.key, look)
        assert value == "1" and {"169.254.7.7/16", "fe80::7/64"} <= addresses
        for bad in (
            "net.ipv4.conf.eth0.log_martians=1",
            "kernel.x.y.IFNAME.z=1",
            "net.ipv4.conf.IFNAME.x",
            "net.ipv4.conf.IFNAME.x\0y=1",
            "net/ipv4/conf/../../IFNAME.x=1",
            "net.core.conf.IFNAME.x=1",
        ):
            with pytest.raises(InvalidParameter, match="sysctl"):
                await add(controller, "bad", driver_opts={sysctls: bad})
        with pytest.raises(InvalidParameter, match="is not a sysctl of this kernel"):
            await add(controller, "bad", driver_opts={sysctls: "net.ipv4.conf.IFNAME.nosuch=1"})
        named = {"com.docker.network.endpoint.ifname": "lan0"}
        twice, endpoint = await add(controller, "named", driver_opts=named)
        assert endpoint.interface == "lan0"
        await controller.create_network("app")
        with pytest.raises(Forbidden, match="interface name lan0 is taken"):
            await twice.join(controller.network("app"), EndpointOptions(name="named", driver_opts=named))
        other = await twice.join(controller.network("app"), EndpointOptions(name="named"))
        assert other.interface == "eth0"
        for bad in ("lo", "a/b", "..", "sixteen-letters-x", 'x"'):
            with pytest.raises((Forbidden, InvalidParameter), match="interface name"):
                await add(controller, "bad", driver_opts={"com.docker.network.endpoint.ifname": bad})
        # MAC addresses: of the address, or as asked for; the kernel has the last word.
        assert endpoint.mac_address == "02:42:" + socket.inet_aton(endpoint.ipv4_address).hex(":")
        _, fixed = await add(controller, "fixed", mac_address="02-AA-00-00-00-07")
        assert fixed.mac_address == "02:aa:00:00:00:07"
        for bad in ("02:aa:00:00:00", "02:aa:00:00:00:0g", "ff:ff:ff:ff:ff:ff"):
            with pytest.raises((InvalidParameter, System)):
                await add(controller, "bad", mac_address=bad)
        with pytest.raises(InvalidParameter, match="invalid IP address: nowhere"):
            await add(controller, "bad", link_local_addresses=["nowhere"])
        await controller.stop(False)

    asyncio.run(run())


def test_configuration_networks(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        pool = IPAMPool(subnet="10.88.0.0/24", gateway="10.88.0.9")
        settings = await controller.create_network(
            "settings", ipam=[pool], labels={"a": "1"}, options={MODE: "routed"}, config_only=True
        )
        assert settings.driver == "null" and settings.pools[0].gateway == "10.88.0.9"
        network = await controller.create_network("net", config_from="settings")
        assert network.pools[0].subnet == "10.88.0.0/24" and network.gateway_mode(4) == "routed"
        assert network.labels == {"a": "1"} and network.record.config_from == "settings"
        with pytest.raises(Forbidden, match="user specified configurations are not supported"):
            await controller.create_network("more", config_from="settings", labels={"b": "2"})
        with pytest.raises(NotFound, match='configuration network "net" does not exist'):
            await controller.create_network("more", config_from="net")
        with pytest.raises(Forbidden, match="cannot depend on another"):
            await controller.create_network("more", config_from="settings", config_only=True)
        with pytest.raises(Forbidden, match="cannot create endpoint on configuration-only network"):
            await add(controller, "box", "settings")
        with pytest.raises(Forbidden, match='configuration network "settings" is in use'):
            await controller.remove_network(settings)
        await controller.stop(False)
        again = host.controller()
        await again.start({})
        assert again.network("settings").record.config_only
        await again.remove_network(again.network("net"))
        await again.remove_network(again.network("settings"))
        await again.stop(False)

    asyncio.run(run())


def test_bridges_take_one_subnet_of_a_kind(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        pools = [IPAMPool(subnet="10.1.0.0/24"), IPAMPool(subnet="10.2.0.0/24")]
        with pytest.raises(Forbidden, match="bridge driver doesn't support multiple subnets"):
            await controller.create_network("net", ipam=pools)
        inhibit = {"com.docker.network.bridge.inhibit_ipv4": "true"}
        network = await controller.create_network("quiet", options=inhibit)
        with closing(NetlinkSocket()) as rtnl:
            link = rtnetlink.link_by_name(rtnl, network.record.link)
            assert link and not [one for one in rtnetlink.addresses(rtnl, link.index) if one.version == 4]
        assert await asyncio.to_thread(reach, None, network.pools[0].gateway, 1) is None
        await controller.stop(False)

    asyncio.run(run())
