"""Volumes of plug-ins: Docker's volume plug-in protocol, `VolumeDriver.…`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longshore.errors import EngineError, NotFound, System
from longshore.types.volume import Volume
from longshore.volumes.record import VolumeRecord

if TYPE_CHECKING:
    from longshore.plugins import Plugin

_KIND = "VolumeDriver"
_QUICK = 10.0
"""Seconds that a list may take: one plug-in that hangs must not hide all others' volumes for long."""

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
                scope = str((answer.get("Capabilities") or {}).get("Scope", "")).lower()
            except EngineError:
                scope = ""
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
        if not isinstance(where, str) or not where.startswith("/"):
            raise System(f"volume driver {self.name} gave no mount point for {name}")
        return Path(where)

    def unmount(self, name: str, user: str) -> None:
        """The user needs it no longer."""
        self._call("Unmount", name, ID=user)

    def get(self, name: str) -> dict[str, Any]:
        """Name, Mountpoint, CreatedAt and Status, as far as the plug-in says."""
        found = self._call("Get", name).get("Volume")
        if not isinstance(found, dict):
            raise NotFound(f"no such volume: {name}")
        return found

    def list(self) -> list[dict[str, Any]]:
        """All of its volumes."""
        answer = self._plugin.call(f"{_KIND}.List", {}, timeout=_QUICK, patience=0)
        return [each for each in answer.get("Volumes") or [] if isinstance(each, dict) and each.get("Name")]

    def _call(self, method: str, name: str, **more: object) -> dict[str, Any]:
        return self._plugin.call(f"{_KIND}.{method}", {"Name": name, **more})


class Survey:
    """What all plug-ins said of their volumes."""

    def __init__(self) -> None:
        self.drivers: dict[str, str] = {}
        """By volume."""
        self._said: dict[str, dict[str, Any]] = {}
        self._scopes: dict[str, str] = {}

    def add(self, driver: RemoteDriver) -> None:
        """Ask one. Raises PluginFailure."""
        for described in driver.list():
            name = str(described["Name"])
            self.drivers.setdefault(name, driver.name)
            self._said.setdefault(name, described)
        self._scopes[driver.name] = driver.scope

    def describe(self, entry: VolumeRecord) -> Volume:
        """A volume, as far as its plug-in answered."""
        said = self._said.get(entry.name, {}) if self.drivers.get(entry.name) == entry.driver else {}
        return _volume(entry, said, self._scopes.get(entry.driver, "local"))


class RemoteVolumes:
    """The volume plug-ins of this machine, found when they are asked for, and what they have mounted."""

    def __init__(self) -> None:
        self._found: dict[str, RemoteDriver] = {}
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
            driver.create(entry.name, entry.options)
        except EngineError as exc:
            raise type(exc)(f"create {entry.name}: {exc}") from exc

    def remove(self, entry: VolumeRecord) -> None:
        """Raises NotFound if the plug-in is gone, PluginFailure."""
        self._driver(entry.driver).remove(entry.name)

    def describe(self, entry: VolumeRecord) -> Volume:
        """Raises NotFound if the plug-in is gone, PluginFailure."""
        driver = self._driver(entry.driver)
        return _volume(entry, driver.get(entry.name), driver.scope)

    def outline(self, entry: VolumeRecord) -> Volume:
        """What is known of a volume without asking for it. Raises NotFound, PluginFailure."""
        return _volume(entry, {}, self._driver(entry.driver).scope)

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
        from longshore.plugins import plugin_names

        survey = Survey()
        warnings = []
        for name in sorted({*plugin_names(), *self._found}):
            try:
                survey.add(self._driver(name, patience=0))
            except NotFound:
                continue  # It is a plug-in of another kind, or was removed.
            except EngineError as exc:
                warnings.append(f"list {name}: {exc}")
        return survey, warnings

    def names(self) -> list[str]:
        """Of the plug-ins that were used."""
        return sorted(self._found)

    def _driver(self, name: str, **how: float) -> RemoteDriver:
        from longshore.plugins import plugin_of

        known = self._found.get(name)
        if known is None:
            plugin = plugin_of(name)
            if not plugin.implements(_KIND, **how):
                raise NotFound(f'plugin "{name}" does not implement {_KIND}')
            known = self._found[name] = RemoteDriver(plugin)
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
