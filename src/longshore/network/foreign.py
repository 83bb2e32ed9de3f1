"""Other people's firewalls: a verdict `accept` in our table does not undo a `drop` in theirs.

Where a FORWARD chain of iptables drops by policy, as after dockerd has run, rules of ours let our bridges
through; where firewalld runs, a zone of it does. That gives nothing away: our own table still drops what may
not pass.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.linux.nftables import Nftables, NftablesError
from longshore.network import firewalld
from longshore.network.ipam import IPNetwork
from longshore.network.programs import Unanswered, run_program

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController

log = logging.getLogger(__name__)

_CHAINS = ("DOCKER-USER", "FORWARD")
_IPTABLES = ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy")
_NFT_FAMILIES = {"iptables-nft": "ip", "ip6tables-nft": "ip6"}
_LEGACY_TABLES = {
    "iptables-legacy": Path("/proc/thread-self/net/ip_tables_names"),
    "ip6tables-legacy": Path("/proc/thread-self/net/ip6_tables_names"),
}


def admit(owner: str, *links: str) -> bool:
    """Let bridges' traffic through wherever others would drop it; whether that is anywhere.

    Blocks. Raises Unanswered if it is not known of all of them, once the others are done.
    """
    found, failure = False, None
    for program in _programs():
        try:
            if _drops(program):
                found = True
                _admit(program, owner, links)
        except Unanswered as exc:
            failure = exc
    try:
        if firewalld.running():
            found = True
            firewalld.admit(links)
    except Unanswered as exc:
        failure = exc
    if failure is not None:
        raise failure
    return found


def _admit(program: str, owner: str, links: Sequence[str]) -> None:
    chain = "DOCKER-USER" if _run(program, "-n", "-L", "DOCKER-USER")[0] else "FORWARD"
    for link in links:
        for rule in _rules(owner, link):
            if not _run(program, "-C", chain, *rule)[0]:
                _run(program, "-I", chain, *rule)


async def admit_all(controller: NetworkController) -> None:
    """`admit` for the bridges of all networks: firewalls of others may have come, or changed, meanwhile.

    Raises Unanswered.
    """
    async with controller.lock:
        standing = [network for network in controller.networks() if not network.removing]
        bridges = {network.record.link: network for network in standing if network.record.link}
        if not bridges:
            return
        # Noted first: it may have happened in part.
        for network in bridges.values() if await asyncio.to_thread(_is_dropped) else ():
            if not network.record.admitted:
                network.record.admitted = True
                await asyncio.to_thread(
                    controller.store.save, "network", network.id, network.record, durable=True
                )
        await asyncio.to_thread(admit, controller.config.table, *bridges)


def dismiss(owner: str, link: str) -> None:
    """Take the rules of `admit` back, wherever they are; where that cannot be done now is logged."""
    for program in _programs():
        try:
            for chain in _CHAINS:
                for rule in _rules(owner, link):
                    while _run(program, "-D", chain, *rule)[0]:
                        pass
        except Unanswered as exc:
            log.warning("rules for %s are left: %s", link, exc)
    try:
        if firewalld.running():
            firewalld.dismiss(link)
    except Unanswered as exc:
        log.warning("%s is left in firewalld's zone: %s", link, exc)


def dropping() -> list[str]:
    """The iptables programs whose FORWARD chain drops by policy, without those that do not answer."""
    found = []
    for program in _programs():
        with suppress(Unanswered):
            if _drops(program):
                found.append(program)
    return found


def _is_dropped() -> bool:
    """Whether somebody may drop what is forwarded."""
    try:
        return any(map(_drops, _programs())) or firewalld.running()
    except Unanswered:
        return True


def _drops(program: str) -> bool:
    if program in _LEGACY_TABLES:
        return "-P FORWARD DROP" in _run(program, "-S", "FORWARD")[1]
    return "policy drop;" in _listed(program, "filter", "FORWARD")


def _has_chain(program: str, table: str, chain: str) -> bool:
    if program in _LEGACY_TABLES:
        return _run(program, "-t", table, "-n", "-L", chain)[0]
    return bool(_listed(program, table, chain))


def _listed(program: str, table: str, chain: str) -> str:
    """A chain of iptables-nft; empty if there is none."""
    # Asked for in this process: to start a program takes ten times as long.
    nft = Nftables()
    try:
        return nft.run(f"list chain {_NFT_FAMILIES[program]} {table} {chain}")
    except NftablesError:
        return ""
    finally:
        nft.close()


def forget_forwards(subnets: Sequence[str]) -> None:
    """Delete what a dockerd before us has left of ports that it had published to these subnets' addresses.

    They are all ours to forward to: its rules would take the host's ports for containers of the past.
    """
    networks = [ip_network(subnet) for subnet in subnets]
    for program in _programs("nat"):
        try:
            if not _has_chain(program, "nat", "DOCKER"):
                continue
            for line in _run(program, "-t", "nat", "-S", "DOCKER")[1].splitlines():
                rule = _forwarding(line, networks)
                if rule:
                    _run(program, "-t", "nat", "-D", *rule)
        except Unanswered as exc:
            log.warning("ports that dockerd had published may be taken by it still: %s", exc)


def _forwarding(line: str, networks: Sequence[IPNetwork]) -> list[str]:
    """The rule, if it is one of dockerd's that forwards to one of the networks; else nothing."""
    with suppress(ValueError):  # Somebody else's may look like anything.
        words = shlex.split(line)
        target = words[words.index("--to-destination") + 1].rpartition(":")[0].strip("[]")
        if any(ip_address(target) in network for network in networks):
            return words[1:]
    return []


def forget_resolver() -> None:
    """In the calling thread's namespace, let queries to 127.0.0.11 go there, and not to dockerd's port."""
    for program in _programs("nat"):
        if _has_chain(program, "nat", "DOCKER_OUTPUT"):
            for chain in ("DOCKER_OUTPUT", "DOCKER_POSTROUTING"):
                _run(program, "-t", "nat", "-F", chain)


def obstacles(owner: str, links: list[str]) -> list[str]:
    """What stands in the way of forwarded packets now, in words; empty when nothing does. Blocks."""
    found: list[str] = []
    for program in _programs():
        try:
            if not _drops(program):
                continue
            admitted = [link for link in links if _admits(program, owner, link)]
        except Unanswered as exc:
            found.append(str(exc))
            continue
        missing = sorted(set(links) - set(admitted))
        text = f"{program}: policy of chain FORWARD is DROP"
        if missing:
            text += f"; not let through: {', '.join(missing)}"
        else:
            text += "; let through by rules of our own"
        found.append(text)
    if firewalld.running():
        text = f"firewalld: let through by its zone {firewalld.ZONE}"
        if missing := firewalld.refused(links):
            text = f"firewalld: not in its zone {firewalld.ZONE}: {', '.join(sorted(missing))}"
        found.append(text)
    return found


def _admits(program: str, owner: str, link: str) -> bool:
    return any(all(_run(program, "-C", chain, *rule)[0] for rule in _rules(owner, link)) for chain in _CHAINS)


def _rules(owner: str, link: str) -> Iterator[list[str]]:
    comment = ["-m", "comment", "--comment", owner, "-j", "ACCEPT"]
    yield ["-i", link, *comment]
    yield ["-o", link, *comment]


def _programs(table: str = "filter") -> list[str]:
    found = []
    for name in _IPTABLES:
        tables = _LEGACY_TABLES.get(name)
        if tables is not None:
            # Asking the legacy program would load its modules: only where its table is in use.
            try:
                if table not in tables.read_text().split():
                    continue
            except OSError:
                continue
        if shutil.which(name):
            found.append(name)
    return found


def _run(program: str, *arguments: str) -> tuple[bool, str]:
    return run_program(program, "-w", "5", *arguments, timeout=15)
