"""Firewalls of others beside ours: iptables of both kinds, and firewalld."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from network.machines import MACHINE, NEIGHBOUR, Machine, Server, add, reach, see

from longshore.network import watch
from longshore.network.endpoint import PortBinding
from longshore.network.foreign import forget_forwards
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


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to be")


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


LOCKED = """#!/bin/sh
[ -e {lock} ] && case "$*" in *DOCKER-USER*|*-C*|*-I*|*-D*)
    echo >> {asked}
    echo "Another app is currently holding the xtables lock. Perhaps you want to use the -w option?" >&2
    exit 4
esac
exec {program} "$@"
"""


def test_a_lock_that_others_hold_delays_nothing_for_long(
    host: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if (program := shutil.which("iptables-nft")) is None:
        pytest.skip("there is no iptables-nft")
    lock, asked, busy = tmp_path / "lock", tmp_path / "asked", tmp_path / "bin/iptables-nft"
    busy.parent.mkdir()
    busy.write_text(LOCKED.format(lock=lock, asked=asked, program=program))
    busy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{busy.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(watch, "_LATER", 0.2)

    def times() -> int:
        return len(asked.read_text()) if asked.exists() else 0

    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await run_there("iptables-nft", "-P", "FORWARD", "DROP")
        bridge = controller.network("bridge").record
        await until(lambda: bridge.admitted and not controller.lock.locked())
        lock.touch()
        network = await controller.create_network("net", ipam=[IPAMPool(subnet="10.79.0.0/24")])
        assert network.record.admitted and times() == 1  # It is asked no more than once.
        assert f"others may drop what {network.record.link} forwards" in caplog.text
        assert "iptables-nft: somebody else holds the xtables lock" in controller.firewall_obstacles()
        await run_there(program, "-F", "FORWARD")  # seen, and tried until it can be done
        before = times()
        await until(lambda: times() > before + 1)
        lock.unlink()
        through = "iptables-nft: policy of chain FORWARD is DROP; let through by rules of our own"
        await until(lambda: controller.firewall_obstacles() == [through])
        lock.touch()
        await controller.remove_network(network)
        assert f"rules for {network.record.link} are left" in caplog.text
        lock.unlink()
        await controller.stop(False)

    asyncio.run(run())


def test_odd_rules_of_others_are_passed_over(host: Machine) -> None:
    nat = ["iptables-nft", "-t", "nat"]
    if shutil.which(nat[0]) is None or subprocess.run([*nat, "-N", "DOCKER"]).returncode:
        pytest.skip("there is no iptables-nft, or no support for it in this kernel")
    for target in (
        ":8080",
        "198.51.100.7",
        "198.51.100.7-198.51.100.9:80",
        "198.51.100.7:81",
        "192.0.2.1:82",
    ):
        rule = ["-p", "tcp", "--dport", "80", "-j", "DNAT", "--to-destination", target]
        comment = ["-m", "comment", "--comment", "it's \" odd"] if target.endswith("9:80") else []
        subprocess.run([*nat, "-A", "DOCKER", *rule, *comment], check=True)
    forget_forwards(["198.51.100.0/24"])
    left = subprocess.run([*nat, "-S", "DOCKER"], capture_output=True, text=True).stdout
    assert "198.51.100.7:81" not in left
    assert left.count("--to-destination") == 4 and "192.0.2.1:82" in left
