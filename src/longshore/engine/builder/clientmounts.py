"""`RUN --mount=type=secret` and `type=ssh`: what the client lends to a step, and nobody keeps."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from posixpath import basename
from typing import TYPE_CHECKING

from longshore.build.mounts import Mount
from longshore.buildkit.requests import forwarded_agent, get_secret, has_agent
from longshore.buildkit.sessions import Session
from longshore.engine.bridges import to_its_end
from longshore.errors import InvalidParameter, NotFound
from longshore.linux.mount import MountFlags, UnmountFlags, mount, umount
from longshore.types.mount import BindOptions
from longshore.types.mount import Mount as ContainerMount

if TYPE_CHECKING:
    from longshore.engine.builder.stage import StageRun

_AGENT = "/run/buildkit/ssh_agent."
_MEMORY = MountFlags.NOSUID | MountFlags.NODEV | MountFlags.NOEXEC


@dataclass
class Lent:
    """What a step's container gets. Nobody may write `secret_environment` down."""

    mounts: list[ContainerMount] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    secret_environment: dict[str, str] = field(default_factory=dict)


async def ask_client(stage: StageRun, mounts: list[Mount], held: AsyncExitStack) -> Lent:
    """Get what `mounts` name from the client; `held` gives it back.

    What is not there is left out. Raises NotFound if it is required, or the session that the client named
    does not come; InvalidParameter, System, Unavailable.
    """
    session = await stage.build.session()
    lent = Lent()
    memory: Path | None = None
    for one in mounts:
        if one.kind == "ssh":
            await _lend_agent(stage, one, session, lent, held)
            continue
        id = _secret_id(one)
        secret = await get_secret(session, id) if session is not None else None
        if secret is None:
            _missing(stage, one, session, f"secret {id}: not found")
            continue
        if one.env:
            lent.secret_environment[one.env] = _as_variable(id, secret)
        if one.env and not one.target:
            continue
        if memory is None:
            memory = await to_its_end(lambda: _memory(stage), _forget)
            held.push_async_callback(to_its_end, partial(_forget, memory))
        target = one.target or f"/run/secrets/{basename(id)}"
        owner = stage.engine.layers.ids.to_host(one.uid or 0, one.gid or 0)
        mode = 0o400 if one.mode is None else one.mode
        path = memory / str(len(lent.mounts))
        await to_its_end(partial(_write, path, secret, owner, mode))
        lent.mounts.append(_bind(path, target))
    return lent


async def _lend_agent(
    stage: StageRun, one: Mount, session: Session | None, lent: Lent, held: AsyncExitStack
) -> None:
    id = one.id or "default"
    if session is None or not await has_agent(session, id):
        _missing(stage, one, session, f"no SSH key {id!r} forwarded from the client")
        return
    owner = stage.engine.layers.ids.to_host(one.uid or 0, one.gid or 0)
    place = await to_its_end(lambda: stage.build.space.fresh("ssh"))
    mode = 0o600 if one.mode is None else one.mode
    path = await held.enter_async_context(forwarded_agent(session, id, place, owner, mode))
    number = sum(each.Target.startswith(_AGENT) for each in lent.mounts)
    target = one.target or f"{_AGENT}{number}"
    lent.mounts.append(_bind(path, target))
    lent.environment.setdefault("SSH_AUTH_SOCK", target)


def _secret_id(one: Mount) -> str:
    return one.source or one.id or basename(one.target)


def _as_variable(id: str, secret: bytes) -> str:
    if b"\0" in secret:
        raise InvalidParameter(f"secret {id}: a variable cannot hold a NUL byte")
    return secret.decode("utf-8", "surrogateescape")


def _missing(stage: StageRun, one: Mount, session: Session | None, why: str) -> None:
    if session is None:
        why += ": secrets and agents need a client that speaks BuildKit's protocol"
    if one.required:
        raise NotFound(why)
    if session is None:
        stage.tell(f"[Warning] {why}\n")


def _memory(stage: StageRun) -> Path:
    place = stage.build.space.fresh("secret")
    mount("tmpfs", place, "tmpfs", _MEMORY, data="mode=0755")
    return place


def _forget(place: Path) -> None:
    umount(place, UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)


def _write(path: Path, secret: bytes, owner: tuple[int, int], mode: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as writer:
        writer.write(secret)
        os.fchown(file, *owner)
        os.fchmod(file, mode)


def _bind(path: Path, target: str) -> ContainerMount:
    return ContainerMount("bind", str(path), target, ReadOnly=True, BindOptions=BindOptions())
