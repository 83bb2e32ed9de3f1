"""Volumes of plug-ins: Docker's volume plug-in protocol, `VolumeDriver.…`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longshore.errors import EngineError, NotFound, System
from longshore.types.volume import Volume
from longshore.volumes.record import VolumeRecord

if TYPE_CHECKING:
    from longshore.plugins import Plugin

_KIND = "VolumeDriver"
_QUICK = 10.0
"""Seconds that a look may take: one plug-in that hangs must not hide all others' volumes for long."""
_SILENCE = 30.0
"""Seconds that a plug-in that did not answer is not asked for volumes that nobody said are its own."""

log = logging.getLogger(__name__)


class RemoteDriver:
    """One plug-in, asked about volumes. Blocks; raises PluginFailure, with the plug-in's words."""

    def __init__(self, plugin: Plugin) -> None:
        self.name = plugin.name
        self._plugin = plugin
        self._scope = ""

    @property
    def scope(self) -> str:
        """`local` or `global`; old plug-ins do not say."""
        if not self._scope:
            try:
                answer = self._plugin.call(f"{_KIND}.Capabilities", patience=0, timeout=_QUICK)
            except EngineError:
                answer = {}
            said = answer.get("Capabilities")
            scope = str(said.get("Scope")).lower() if isinstance(said, dict) else ""
            self._scope = scope if scope in ("local", "global") else "local"
        return self._scope

    def create(self, name: str, options: Mapping[str, str]) -> None:
        """Make the volume, or have it."""
        self._call("Create", name, Opts=dict(options))

    def remove(self, name: str) -> None:
        """Remove the volume."""
        self._call("Remove", name)

    def mount(self, name: str, user: str) -> Path:
        """Where the content is, until `unmount` for the same user."""
        where = self._call("Mount", name, ID=user).get("Mountpoint")
        if not isinstance(where, str) or not where.startswith("/") or "\0" in where:
            raise System(f"volume driver {self.name} gave no mount point for {name}")
        return Path(where)

    def unmount(self, name: str, user: str) -> None:
        """The user needs it no longer."""
        self._call("Unmount", name, ID=user)

    def get(self, name: str, *, quick: bool = False) -> dict[str, Any] | None:
        """Name, Mountpoint, CreatedAt and Status, as far as the plug-in says; None if it has no such volume.

        Raises PluginUnreachable.
        """
        from longshore.plugins import PluginFailure, PluginUnreachable

        try:
            answer = (
                self._plugin.call(f"{_KIND}.Get", {"Name": name}, timeout=_QUICK, patience=0)
                if quick
                else self._plugin.call(f"{_KIND}.Get", {"Name": name})
            )
        except PluginUnreachable:
            raise
        except PluginFailure as exc:  # Whatever it says, it did not say that it has one: as dockerd takes it.
            log.debug("volume driver %s does not have %s: %s", self.name, name, exc)
            return None
        found = answer.get("Volume")
        return found if isinstance(found, dict) else None

    def list(self) -> list[dict[str, Any]]:
        """All of its volumes."""
        found = self._plugin.call(f"{_KIND}.List", {}, timeout=_QUICK, patience=0).get("Volumes")
        return [
            each
            for each in (found if isinstance(found, list) else [])
            if isinstance(each, dict) and isinstance(each.get("Name"), str) and each["Name"]
        ]

    def _call(self, method: str, name: str, **more: object) -> dict[str, Any]:
        return self._plugin.call(f"{_KIND}.{method}", {"Name": name, **more})


class Survey:
    """What all plug-ins said of their volumes."""

    def __init__(self) -> None:
        self.drivers: dict[str, str] = {}
        """By volume."""
        self._said: dict[str, dict[str, Any]] = {}
        self._scopes: dict[str, str] = {}

    def add(self, driver: RemoteDriver, volumes: list[dict[str, Any]], scope: str) -> None:
        """What one has. Of two volumes of one name the first is taken."""
        for described in volumes:
            self.drivers.setdefault(described["Name"], driver.name)
            self._said.setdefault(described["Name"], described)
        self._scopes[driver.name] = scope

    def denies(self, entry: VolumeRecord) -> bool:
        """Whether the plug-in of a volume answered, and does not have it."""
        return entry.driver in self._scopes and self.drivers.get(entry.name) != entry.driver

    def describe(self, entry: VolumeRecord) -> Volume:
        """A volume, as far as its plug-in answered."""
        said = self._said.get(entry.name, {}) if self.drivers.get(entry.name) == entry.driver else {}
        return _volume(entry, said, self._scopes.get(entry.driver, "local"))


class RemoteVolumes:
    """The volume plug-ins of this machine, found when they are asked for, and what they have mounted."""

    def __init__(self) -> None:
        self._found: dict[str, RemoteDriver] = {}
        self._silent: dict[str, float] = {}
        """When a plug-in did not answer."""
        self._mounted: dict[tuple[str, str], tuple[RemoteDriver, Path]] = {}
        """By volume and user."""

    def create(self, entry: VolumeRecord) -> None:
        """Raises NotFound if there is no such plug-in, PluginFailure."""
        try:
            driver = self._driver(entry.driver)
        except EngineError as exc:
            what = f"create {entry.name}: error looking up volume plugin {entry.driver}"
            raise type(exc)(f"{what}: {exc}") from exc
        try:
            # One that it has already is taken as it is.
            if driver.get(entry.name) is None:
                driver.create(entry.name, entry.options)
        except EngineError as exc:
            raise type(exc)(f"create {entry.name}: {exc}") from exc

    def remove(self, entry: VolumeRecord) -> None:
        """Raises NotFound if the plug-in is gone, PluginFailure."""
        self._driver(entry.driver).remove(entry.name)

    def describe(self, entry: VolumeRecord) -> Volume | None:
        """None if the plug-in has no such volume. Raises NotFound if the plug-in is gone, PluginFailure."""
        from longshore.plugins import PluginUnreachable

        driver = self._driver(entry.driver)
        try:
            said = driver.get(entry.name)
        except PluginUnreachable as exc:
            what = f'error while checking if volume "{entry.name}" exists in driver "{entry.driver}"'
            raise PluginUnreachable(f"{what}: {exc}") from exc
        return None if said is None else _volume(entry, said, driver.scope)

    def outline(self, entry: VolumeRecord) -> Volume:
        """What is known of a volume without asking for it. Raises NotFound, PluginFailure."""
        return _volume(entry, {}, self._driver(entry.driver).scope)

    def probe(self, name: str) -> VolumeRecord | None:
        """A volume that some plug-in has, though nobody made it here."""
        now = time.monotonic()
        asked = [each for each in self._all() if now - self._silent.get(each, -_SILENCE) >= _SILENCE]
        has = self._each(asked, lambda driver: driver.get(name, quick=True))
        for driver in asked:
            if isinstance(has[driver], dict):
                return VolumeRecord(name, driver=driver)
        return None

    def mount(self, entry: VolumeRecord, user: str) -> Path:
        """Where the content is; once for each user. Raises NotFound, PluginFailure."""
        known = self._mounted.get((entry.name, user))
        if known is None:
            driver = self._driver(entry.driver)
            known = self._mounted[entry.name, user] = (driver, driver.mount(entry.name, user))
        return known[1]

    def unmount(self, name: str, user: str) -> None:
        """Give back what `mount` gave; nothing happens if there is nothing to give."""
        known = self._mounted.pop((name, user), None)
        if known is not None:
            try:
                known[0].unmount(name, user)
            except EngineError as exc:
                log.error("volume %s could not be unmounted: %s", name, exc)

    def is_mounted(self, name: str) -> bool:
        """Whether anybody has it mounted."""
        return any(volume == name for volume, _ in list(self._mounted))

    def survey(self) -> tuple[Survey, list[str]]:
        """What all plug-ins that answer have, and warnings about those that fail."""
        survey, warnings = Survey(), []
        found = self._each(self._all(), lambda driver: (driver, driver.list(), driver.scope))
        for name, said in found.items():
            if isinstance(said, tuple):
                survey.add(*said)
            elif not isinstance(said, NotFound):  # else a plug-in of another kind, or one that was removed
                warnings.append(f"list {name}: {said}")
        return survey, warnings

    def names(self) -> list[str]:
        """Of the plug-ins that were used."""
        return sorted(self._found)

    def _all(self) -> list[str]:
        from longshore.plugins import plugin_names

        return sorted({*plugin_names(), *self._found})

    def _each(self, names: list[str], ask: Callable[[RemoteDriver], object]) -> dict[str, object]:
        """What each of them answers, or the EngineError that it failed with; all are asked at once."""
        from longshore.plugins import PluginUnreachable

        answers: dict[str, object] = {}

        def one(name: str) -> None:
            try:
                answers[name] = ask(self._driver(name, patience=0, timeout=_QUICK))
            except EngineError as exc:
                answers[name] = exc
                if isinstance(exc, PluginUnreachable):
                    self._silent[name] = time.monotonic()
            else:
                self._silent.pop(name, None)

        threads = [threading.Thread(target=one, args=(name,), daemon=True) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {name: answers.get(name) for name in names}

    def _driver(self, name: str, **how: float) -> RemoteDriver:
        from longshore.plugins import plugin_of

        known = self._found.get(name)
        if known is None:
            plugin = plugin_of(name)
            if not plugin.implements(_KIND, **how):
                raise NotFound(f'plugin "{name}" does not implement {_KIND}')
            known = self._found.setdefault(name, RemoteDriver(plugin))
        return known


def _volume(entry: VolumeRecord, said: Mapping[str, Any], scope: str) -> Volume:
    status = said.get("Status")
    return Volume(
        CreatedAt=str(said.get("CreatedAt") or ""),
        Driver=entry.driver,
        Labels=entry.labels,
        Mountpoint=str(said.get("Mountpoint") or ""),
        Name=entry.name,
        Options=entry.options or None,
        Scope=scope,
        Status=status if isinstance(status, dict) and status else None,
    )
