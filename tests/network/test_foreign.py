"""Firewalls of others beside ours: iptables of both kinds, and firewalld."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from network.machines import MACHINE, NEIGHBOUR, Machine, Server, add, reach, see

from longshore.network.endpoint import PortBinding
from longshore.network.ipam import IPAMPool

Serve = Callable[..., Server]
WEB = [PortBinding("tcp", 80, "", 8080, 8080)]

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*"/><allow send_type="method_call"/>
  </policy>
</busconfig>
"""


async def run_there(*command: str) -> str:
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    return str(done.stdout)


def comes_back(wanted: object, *arguments: object) -> bool:
    deadline = time.monotonic() + 20
    while reach(*arguments) != wanted:  # type: ignore[arg-type]
        if time.monotonic() > deadline:
            return False
    return True


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_a_policy_of_drop_is_passed(host: Machine, serve: Serve, program: str) -> None:
    if shutil.which(program) is None or subprocess.run([program, "-S"], capture_output=True).returncode:
        pytest.skip(f"there is no {program}, or no support for it in this kernel")

    async def run() -> None:
        await run_there(program, "-P", "FORWARD", "DROP")
        controller = host.controller()
        await controller.start({})
        web, _ = await add(controller, "web", port_bindings=WEB)
        serve(web.key, 80)
        serve(host.neighbour, 7000)
        assert await see(host.neighbour, MACHINE, 8080) == NEIGHBOUR
        assert await see(web.key, NEIGHBOUR, 7000) == MACHINE
        assert any(
            f"{program}: policy of chain FORWARD is DROP" in one for one in controller.firewall_obstacles()
        )
        await controller.stop(False)
        rules = await run_there(program, "-S")
        assert "longshore" not in rules and "-P FORWARD DROP" in rules

    asyncio.run(run())


def test_a_policy_of_drop_that_comes_later_is_passed(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        network = await controller.create_network("net", ipam=[IPAMPool(subnet="10.79.0.0/24")])
        web, _ = await add(controller, "web", "net", port_bindings=WEB)
        serve(web.key, 80)
        await run_there("iptables-nft", "-P", "FORWARD", "DROP")
        for command in ("-nL", "-F"):
            await run_there("iptables-nft", command, "FORWARD")
            assert await asyncio.to_thread(comes_back, NEIGHBOUR, host.neighbour, MACHINE, 8080)
        # What was let in later goes with the network as well.
        await controller.sandbox_destroy("web")
        await controller.settled()
        await controller.remove_network(network)
        assert network.record.link not in await run_there("iptables-nft", "-S")
        await controller.stop(False)
        assert "longshore" not in await run_there("iptables-nft", "-S")

    asyncio.run(run())


@pytest.fixture
def firewalld(host: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """firewalld on the machine, on a bus of its own."""
    programs = [shutil.which(name) for name in ("dbus-daemon", "firewalld", "firewall-cmd")]
    if not all(programs):
        pytest.skip("firewalld or dbus-daemon is not installed")
    (tmp_path / "bus.conf").write_text(BUS.format(tmp_path / "bus"))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    commands = [
        ["dbus-daemon", f"--config-file={tmp_path}/bus.conf", "--nofork", "--nopidfile"],
        ["firewalld", "--nofork", "--nopid", "--system-config", str(tmp_path / "etc")],
    ]
    (tmp_path / "etc").mkdir()
    processes = []
    try:
        for command in commands:
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            deadline = time.monotonic() + 20
            while not (tmp_path / "bus").exists():
                assert time.monotonic() < deadline, "no bus"
                time.sleep(0.02)
        while subprocess.run(["firewall-cmd", "--state"], capture_output=True).returncode:
            assert processes[1].poll() is None and time.monotonic() < deadline, "no firewalld"
        yield host
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def test_firewalld_lets_bridges_through(firewalld: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = firewalld.controller()
        await controller.start({})
        web, endpoint = await add(controller, "web", port_bindings=[*WEB, PortBinding("tcp", 81)])
        for port in (80, 81, 82):
            serve(web.key, port)
        serve(firewalld.neighbour, 7000)
        for reloaded in (False, True):
            if reloaded:
                await run_there("firewall-cmd", "--reload")
            assert await see(firewalld.neighbour, MACHINE, 8080) == NEIGHBOUR
            there = (MACHINE, web.key, NEIGHBOUR, 7000)
            assert await asyncio.to_thread(comes_back, *there), "no way out"
            # Its zone accepts everything; our own rules do not.
            assert await see(firewalld.neighbour, endpoint.ipv4_address, 82) is None
            assert controller.firewall_obstacles() == ["firewalld: let through by its zone docker"]
        await controller.create_network("net")
        away, _ = await add(controller, "away", "net")
        assert await see(away.key, NEIGHBOUR, 7000) == MACHINE
        bridges = await run_there("firewall-cmd", "--zone=docker", "--list-interfaces")
        assert len(bridges.split()) == 2
        await controller.stop(False)
        bridges = await run_there("firewall-cmd", "--zone=docker", "--list-interfaces")
        assert bridges.split() == []

    asyncio.run(run())
