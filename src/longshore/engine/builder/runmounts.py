"""The mounts of a RUN: from the build context, from stages and images, caches, memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from posixpath import join
from typing import TYPE_CHECKING

from longshore.build.dockerfile import Heredoc
from longshore.build.instructions import Run
from longshore.build.mounts import Mount
from longshore.build.patterns import clean
from longshore.build.shell import expand_word
from longshore.build.sources import find_sources
from longshore.build.stages import find_stage
from longshore.containers.container import Container
from longshore.engine.bridges import to_its_end
from longshore.engine.builder import cachemounts
from longshore.errors import InvalidParameter, NotFound
from longshore.layers.copying import CopyExtractor
from longshore.layers.idmap import IdMap
from longshore.layers.overlaymount import OverlayOptions, kernel_defaults, mount_overlay
from longshore.layers.tarstream import REGULAR, TarEntry
from longshore.linux.mount import UnmountFlags, umount
from longshore.linux.openat import openat2
from longshore.types.codec import valid_text
from longshore.types.mount import BindOptions, TmpfsOptions
from longshore.types.mount import Mount as ContainerMount

if TYPE_CHECKING:
    from longshore.engine.builder.stage import StageRun


class RunMounts:
    """The mounts of one step, and everything that has to be given back after it."""

    def __init__(self, stage: StageRun, instruction: Run, script: Heredoc | None) -> None:
        self._stage = stage
        self._script = script
        self._mounts = [self._expanded(mount) for mount in instruction.mounts]
        self._marks: list[str] = [f for f in instruction.flags if not f.startswith("--security")]
        self._held = ExitStack()
        self._held_async = AsyncExitStack()
        self._stubs: list[str] = []
        self._of_client: list[Mount] = []
        self.of_container: list[ContainerMount] = []
        """As the container is to have them."""
        self.environment: dict[str, str] = {}
        """Further variables of the container."""
        self.secret_environment: dict[str, str] = {}
        """As `environment`, but nobody may write these down."""

    async def prepare(self) -> None:
        """Make every source exist. Raises EngineError; call `release` even so."""
        try:
            for mount in self._mounts:
                await self._prepare(mount)
            if self._script is not None:
                script = self._script
                await to_its_end(lambda: self._write_script(script))
        except BaseException:
            await self.release()
            raise

    async def ask_client(self) -> None:
        """Get the secrets and agents, which a step that is found in the cache needs none of.

        Raises InvalidParameter for one that is required and not there, System, Unavailable.
        """
        if self._of_client:
            from longshore.engine.builder.clientmounts import ask_client

            given = await ask_client(self._stage, self._of_client, self._held_async)
            self.of_container += given.mounts
            self.environment = given.environment
            self.secret_environment = given.secret_environment

    def marks(self) -> list[str]:
        """What makes the step another one: its flags, and the content of what is bound."""
        return valid_text(self._marks)

    async def release(self) -> None:
        """Give everything back."""
        try:
            await self._held_async.aclose()
        finally:
            await to_its_end(self._held.close)

    async def note_missing(self, container: Container) -> None:
        """Remember which mount points are not there: the runtime makes them, and they are not the image's."""
        if self.of_container:
            targets = [mount.Target for mount in self.of_container]
            self._stubs = await to_its_end(lambda: _in_rootfs(self._stage, container, targets, _missing))

    async def remove_stubs(self, container: Container) -> None:
        """Remove the mount points that were made, where nothing else was put beside them."""
        if self._stubs:
            await to_its_end(lambda: _in_rootfs(self._stage, container, self._stubs, _remove_empty))

    def _expanded(self, mount: Mount) -> Mount:
        if "$" in mount.origin:
            raise InvalidParameter(
                f"'from' doesn't support variable expansion, define alias stage instead: {mount.origin}"
            )
        variables, escape = self._stage.state.variables(), self._stage.state.escape
        target, source, id = (
            expand_word(text, variables, escape) for text in (mount.target, mount.source, mount.id)
        )
        if target and not target.startswith("/"):
            target = join(self._stage.state.config.WorkingDir or "/", target)
        target, id = valid_text(target), valid_text(id)  # They go into records, which are JSON.
        return replace(mount, target=clean(target) if target else "", source=source, id=id)

    async def _prepare(self, mount: Mount) -> None:
        match mount.kind:
            case "tmpfs":
                options = TmpfsOptions(SizeBytes=mount.size) if mount.size else None
                self.of_container.append(ContainerMount("tmpfs", "", mount.target, TmpfsOptions=options))
            case "secret" | "ssh":
                self._of_client.append(mount)
            case "cache":
                await self._prepare_cache(mount)
            case "bind":
                named = await self._stage.build.named_root(mount.origin)
                root = named or await self._origin(mount.origin, mount.source)
                fetched = named is not None or not mount.origin
                await to_its_end(lambda: self._bind(mount, root, fetched=fetched))

    async def _prepare_cache(self, mount: Mount) -> None:
        engine = self._stage.engine
        base = None
        if mount.origin:
            base = await self._origin(mount.origin)
        holder = await cachemounts.acquire(engine, mount, base)
        self._held.callback(holder.release)
        self._add_bind(holder.path, mount)

    async def _origin(self, name: str, source: str = "") -> Path:
        """The root that a bind takes `source` from: the context, a stage's or an image's file system."""
        stage = self._stage
        if not name:
            return await stage.build.context([source])
        earlier = find_stage(stage.build.program.stages[: stage.stage.index], name)
        if earlier is not None:
            id = await stage.build.result(earlier)
        elif name == "scratch":
            return await asyncio.to_thread(stage.build.space.fresh, "scratch")
        else:
            id = await stage.build.base_image(name, stage.build.options.platform, stage.say)
        self._marks.append(id)
        chain = stage.engine.images.images.get(id).chain_id or None
        view = stage.engine.layers.view(chain)
        return await to_its_end(lambda: self._held.enter_context(view))

    def _bind(self, mount: Mount, root: Path, *, fetched: bool) -> None:
        """`fetched`: from the context or another that is known by its content."""
        if fetched:
            known = self._stage.build.space.digests_of(root)
            self._marks.append(find_sources(root, [mount.source or "."], [], known=known)[0].hash)
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            file = openat2(directory, mount.source or ".", os.O_PATH)
        except FileNotFoundError:
            raise NotFound(f"stat {mount.source}: no such file or directory") from None
        finally:
            os.close(directory)
        try:
            path = Path(f"/proc/self/fd/{file}").readlink()
            is_directory = stat.S_ISDIR(os.fstat(file).st_mode)
        finally:
            os.close(file)
        if not mount.read_only and fetched:
            path = self._writable(path, is_directory=is_directory)
        self._add_bind(path, mount)

    def _writable(self, path: Path, *, is_directory: bool) -> Path:
        """What is written to the context is thrown away: the next step finds it as it was sent."""
        place = self._stage.build.space.fresh("overlay")
        for name in ("upper", "work", "merged"):
            (place / name).mkdir()
            (place / name).chmod(0o755)
        base = path if is_directory else path.parent
        lower = os.path.relpath(base, place.parent)
        options = OverlayOptions(
            place.parent, [lower], str(place / "upper"), str(place / "work"), kernel_defaults(), ""
        )
        mount_overlay(options, place / "merged")
        self._held.callback(umount, place / "merged", UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)
        return place / "merged" if is_directory else place / "merged" / path.name

    def _add_bind(self, path: Path, mount: Mount) -> None:
        self.of_container.append(
            ContainerMount(
                "bind",
                str(path),
                mount.target,
                ReadOnly=mount.read_only,
                BindOptions=BindOptions(),
            )
        )

    def _write_script(self, script: Heredoc) -> None:
        place = self._stage.build.space.fresh("script")
        content = script.text.encode("utf-8", "surrogateescape")
        self._marks.append(f"file:{hashlib.sha256(content).hexdigest()}")
        with CopyExtractor(place, IdMap(), "/") as extractor:
            entry = TarEntry(script.name, REGULAR, 0o755, 0, 0, len(content), 0)
            entry.real_size = len(content)
            extractor.add(entry, content)
        bind = BindOptions()
        self.of_container.append(
            ContainerMount("bind", str(place), "/dev/pipes", ReadOnly=True, BindOptions=bind)
        )


def _in_rootfs(
    stage: StageRun, container: Container, paths: list[str], work: Callable[[int, list[str]], list[str]]
) -> list[str]:
    layer = stage.engine.layers.get_rw_layer(container.id)
    rootfs = layer.mount(container.record.MountLabel)
    try:
        root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return work(root, paths)
        finally:
            os.close(root)
    finally:
        layer.unmount()


def _missing(root: int, targets: list[str]) -> list[str]:
    """Every part of the paths that does not exist, the deepest first."""
    missing: set[str] = set()
    for target in targets:
        parts = [part for part in target.split("/") if part]
        for depth in range(len(parts), 0, -1):
            path = "/".join(parts[:depth])
            try:
                os.close(openat2(root, path, os.O_PATH))
                break
            except OSError:
                missing.add(path)
    return sorted(missing, key=lambda path: -path.count("/"))


def _remove_empty(root: int, paths: list[str]) -> list[str]:
    for path in paths:
        parent_name, _, base = path.rpartition("/")
        try:
            parent = openat2(root, parent_name or ".", os.O_PATH | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            found = os.stat(base, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(base, dir_fd=parent)
            elif stat.S_ISREG(found.st_mode) and not found.st_size:
                os.unlink(base, dir_fd=parent)
        except OSError:
            continue  # It is not there, or holds what the step put there.
        finally:
            os.close(parent)
    return paths
