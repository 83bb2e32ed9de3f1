"""The firewall: one nftables table, whose rules are written once.

Networks and published ports are elements of sets and maps, so that what a packet costs, and what publishing
a port costs, do not grow with the number of containers. Every change is one transaction. What is in the
table is also known here: whoever flushes it gets it back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress

from longshore.linux.nftables import Nftables, NftablesError
from longshore.network.endpoint import PublishedPort
from longshore.network.ruleset import (
    USERS,
    BridgeRules,
    Link,
    bridge_elements,
    commands,
    isolation_text,
    link_elements,
    port_elements,
    rule_count,
    table_text,
    users_part,
)

_FLUSHED = "flushed before it was looked at"  # Nothing is like this, so that the next repair builds it again.
_ABSENT = "No such file or directory"
_USERS_CHAIN = f"chain {USERS}"
_EMPTY = {_USERS_CHAIN: f"\tchain {USERS} {{\n\t}}\n"}


class Firewall:
    """One table. Methods block, raise NftablesError, and either take effect as a whole or not at all.

    Until `build` is called changes are only noted.
    """

    def __init__(self, table: str, *, ipv6: bool = True) -> None:
        """Binds to the network namespace of the calling thread. Without `ipv6` only IPv4 is filtered."""
        self._ipv6 = ipv6
        self._table = f"inet {table}"
        self._isolation = f"bridge {table}"
        self._nft = Nftables()
        self._lock = threading.RLock()
        self._bridges: dict[str, BridgeRules] = {}
        self._ports: dict[str, tuple[PublishedPort, ...]] = {}
        self._isolated: set[str] = set()
        self._links: set[Link] = set()
        self._users: dict[str, str] = {}
        self._signature = ""

    def build(self) -> None:
        """Make the table, in place of whatever is in it but the user's own chains and sets."""
        with self._lock:
            self.note_users()
            table = self._table
            text = table_text(ipv6=self._ipv6)
            isolation = isolation_text(ipv6=self._ipv6) if self._isolated else ""
            parts = [f"add table {table}", f"delete table {table}", f"table {table} {{{text}"]
            parts += [*(_EMPTY | self._users).values(), "}"]
            for bridge in self._bridges.values():
                parts += self._commands("add", bridge_elements(bridge))
            elements = [one for ports in self._ports.values() for one in port_elements(ports)]
            parts += self._commands("add", elements)
            parts += [f"add table {self._isolation}", f"delete table {self._isolation}"]
            if isolation:
                parts.append(f"table {self._isolation} {{{isolation}}}")
                parts += commands("add", self._isolation, self._isolating())
            self._nft.run("\n".join(parts))
            self._signature = self._sign()
            if rule_count(self._signature) != rule_count(text + isolation):
                self._signature = _FLUSHED

    def repair(self) -> bool:
        """Build the table again if somebody took it, or what is in its chains, away; whether that was so."""
        with self._lock:
            if not self._signature or self._sign() == self._signature:
                return False
            self.build()
            return True

    def note_users(self) -> None:
        """Take note of what in the table is the user's, for when somebody flushes it."""
        with self._lock:
            try:
                found = users_part(self._nft.run(f"list table {self._table}", terse=True))
                for kind, name in [key.split() for key in found]:
                    if kind != "chain":  # With its elements.
                        found |= users_part(self._nft.run(f"list {kind} {self._table} {name}"))
            except NftablesError as exc:
                if _ABSENT not in str(exc):
                    raise
                return
            # Without their chain they did not take away what is missing: the table was flushed.
            self._users = found if _USERS_CHAIN in found else self._users | found

    def known_of_users(self) -> str:
        """What `note_users` has found, as nft(8) takes it."""
        return "".join(self._users.values())

    def add_bridge(self, bridge: BridgeRules) -> None:
        """Let a bridge take part."""

        def note() -> None:
            self._bridges[bridge.link] = bridge

        def forget() -> None:
            self._bridges.pop(bridge.link, None)

        self._change(self._commands("add", bridge_elements(bridge)), note, forget)

    def remove_bridge(self, bridge: BridgeRules) -> None:
        """Undo `add_bridge`."""
        with self._lock:
            if bridge.link in self._bridges:
                removal = self._commands("delete", bridge_elements(bridge))
                self._delete(removal, lambda: self._bridges.pop(bridge.link, None))

    def publish(self, endpoint: str, ports: Sequence[PublishedPort]) -> None:
        """Publish the ports of an endpoint, by its id, in place of those that it had."""
        with self._lock:
            self.unpublish(endpoint)
            self._change(
                self._commands("add", port_elements(ports)),
                lambda: self._ports.update({endpoint: tuple(ports)}),
                lambda: self._ports.pop(endpoint, None),
            )

    def unpublish(self, endpoint: str) -> None:
        """Undo `publish`; nothing happens if nothing is published."""
        with self._lock:
            if ports := self._ports.get(endpoint):
                removal = self._commands("delete", port_elements(ports))
                self._delete(removal, lambda: self._ports.pop(endpoint, None))

    def isolate(self, port: str) -> None:
        """Keep a bridge's port, by the name of its link, from reaching others that are isolated."""
        with self._lock:
            if not self._isolated and self._signature:
                self._isolated.add(port)
                try:
                    self.build()
                except NftablesError:
                    self._isolated.discard(port)
                    raise
                return
            addition = commands("add", self._isolation, [("isolated", f'"{port}"')])
            self._change(addition, lambda: self._isolated.add(port), lambda: self._isolated.discard(port))

    def unisolate(self, port: str) -> None:
        """Undo `isolate`."""
        with self._lock:
            if port in self._isolated:
                removal = commands("delete", self._isolation, [("isolated", f'"{port}"')])
                self._delete(removal, lambda: self._isolated.discard(port))

    def link(self, links: Iterable[Link]) -> None:
        """Let linked containers reach ports of isolated ones."""
        with self._lock:
            links = [link for link in links if link not in self._links]
            if not self._isolated:  # The table is not there: it will be, with the first isolated port.
                self._links.update(links)
                return
            elements = [element for link in links for element in link_elements(link)]
            self._change(
                commands("add", self._isolation, elements),
                lambda: self._links.update(links),
                lambda: self._links.difference_update(links),
            )

    def unlink(self, address: str) -> None:
        """Undo `link` for all links from or to an address."""
        with self._lock:
            links = [link for link in self._links if address in (link.parent, link.child)]
            elements = [element for link in links for element in link_elements(link)]
            if not links or not self._isolated:
                self._links.difference_update(links)
                return
            removal = commands("delete", self._isolation, elements)
            self._delete(removal, lambda: self._links.difference_update(links))

    def remove(self) -> None:
        """Delete the table, but for what in it is the user's."""
        with self._lock:
            self._signature = ""
            self.note_users()
            users = self.known_of_users()
            parts = [f"add table {table}\ndelete table {table}" for table in (self._table, self._isolation)]
            if users and self._users != _EMPTY:
                parts.append(f"table {self._table} {{\n{users}}}")
            self._nft.run("\n".join(parts))

    def text(self) -> str:
        """The table as `nft list table` shows it."""
        return self._nft.run(f"list table {self._table}")

    def close(self) -> None:
        """Free the connection to the kernel; the table stays."""
        self._nft.close()

    def _change(
        self, change: list[str], note: Callable[[], object], forget: Callable[[], object] = lambda: None
    ) -> None:
        with self._lock:
            note()
            if not change or not self._signature:
                return
            try:
                self._nft.run("\n".join(change))
            except NftablesError:
                with ExitStack() as undo:
                    undo.callback(forget)
                    if self.repair():  # It was flushed this very moment; now it holds the change as well.
                        undo.pop_all()
                        return
                raise

    def _commands(self, verb: str, elements: Iterable[tuple[str, str]]) -> list[str]:
        wanted = elements if self._ipv6 else ((name, one) for name, one in elements if name[-1] != "6")
        return commands(verb, self._table, wanted)

    def _delete(self, removal: list[str], forget: Callable[[], object]) -> None:
        try:
            self._change(removal, forget)
        except NftablesError:
            # Somebody took elements away. What is known by now is without them.
            self.build()

    def _isolating(self) -> list[tuple[str, str]]:
        links = [element for link in self._links for element in link_elements(link)]
        return [*(("isolated", f'"{port}"') for port in self._isolated), *links]

    def _sign(self) -> str:
        """What is the same unless somebody changed the tables: all but elements, and what is the user's."""
        listed = []
        for table in (self._table, self._isolation):
            with suppress(NftablesError):
                text = self._nft.run(f"list table {table}", terse=True)
                for users in users_part(text).values():
                    text = text.replace(users, "")
                listed.append(text)
        # Blank lines come and go with what is the user's.
        return "\n".join(line for text in listed for line in text.splitlines() if line)
