"""Git repositories as build contexts and as sources of ADD: what a URL means, and fetching it."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl

from longshore.build.urls import redacted
from longshore.errors import InvalidParameter, System
from longshore.linux.openat import openat2

_HTTP = re.compile(r"https?://[^?#]+\.git(\?[^#]*)?(#.*)?", re.DOTALL)
_CERTAIN = ("git://", "ssh://", "git@")
_SAFE = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "protocol.file.allow=never",
    "-c", "init.defaultBranch=main",
    "-c", "advice.detachedHead=false",
)  # fmt: skip
_TRUTHS = {"": True, "true": True, "1": True, "false": False, "0": False}
_COMMIT = 40
"""Digits of a commit's whole name, at least."""
_LONGEST_OUTPUT = 1 << 16


@dataclass(frozen=True)
class GitSource:
    """`remote#ref:directory`; "" for the default branch, and for all of it."""

    remote: str
    ref: str = ""
    directory: str = ""
    checksum: str = ""
    """What the commit's name has to begin with."""
    keep_git_dir: bool | None = None
    """None where the URL says nothing of it."""
    submodules: bool = True


def parse_git_url(text: str, *, only_certain: bool = False) -> GitSource | None:
    """What a URL means to Docker, None if it is no repository's.

    `only_certain`: `github.com/…` may as well be a path, and is taken for one. Raises InvalidParameter.
    """
    if not only_certain and text.startswith("github.com/"):
        text = f"https://{text}"
    elif not text.startswith(_CERTAIN) and not _HTTP.fullmatch(text):
        return None
    remote, _, fragment = text.partition("#")
    ref, _, directory = fragment.partition(":")
    source = GitSource(remote, ref, directory)
    if remote.startswith("http") and "?" in remote:
        remote, _, query = remote.partition("?")
        source = _asked(GitSource(remote, ref, directory), query)
    if source.ref.startswith("-") or any(character.isspace() for character in source.ref + remote):
        raise InvalidParameter(f"invalid refspec: {source.ref}")
    return source


def _asked(source: GitSource, query: str) -> GitSource:
    """The same in a query: `?ref=…&subdir=…`, as BuildKit reads it."""
    for key, value in parse_qsl(query, keep_blank_values=True):
        match key:
            case "ref" | "branch" | "tag" if not source.ref:
                prefix = {"ref": "", "branch": "refs/heads/", "tag": "refs/tags/"}[key]
                source = replace(source, ref=prefix + value)
            case "subdir" if not source.directory:
                source = replace(source, directory=value)
            case "checksum" | "commit" if not source.checksum:
                source = replace(source, checksum=checked_commit(value))
            case "keep-git-dir" | "submodules" if value.lower() in _TRUTHS:
                setting = {key.replace("-", "_"): _TRUTHS[value.lower()]}
                source = replace(source, **setting)  # type: ignore[arg-type]
            case "keep-git-dir" | "submodules":
                raise InvalidParameter(f"invalid {key} value: {value!r}")
            case "ref" | "branch" | "tag" | "subdir" | "checksum" | "commit":
                raise InvalidParameter(f"{key} conflicts with what the URL says of it elsewhere")
            case _:
                raise InvalidParameter(f"unexpected query {key!r}")
    return source


def checked_commit(text: str) -> str:
    """The beginning of a commit's name. Raises InvalidParameter."""
    if not re.fullmatch(r"[0-9a-fA-F]{1,64}", text):
        raise InvalidParameter(f"invalid checksum {text!r}, expected the beginning of a commit's hash")
    return text.lower()


async def checkout(
    source: GitSource, directory: Path, *, keep_git_dir: bool, agent: Path | None = None
) -> Path:
    """Check the repository out in the empty `directory`; the part of it that was asked for.

    `agent`: the socket of an SSH agent with the keys to use; this machine's own are nobody's to use. Raises
    System with git's own words, InvalidParameter for a directory that is not in it.
    """
    if shutil.which("git") is None:
        raise System("unable to find git: install git on the machine of the daemon")
    home = directory.parent / f"{directory.name}.home"
    home.mkdir(mode=0o700)
    with ExitStack() as held:
        settings = {"HOME": str(home), "GIT_SSH_COMMAND": _ssh_command(home)}
        if agent is not None:
            settings["SSH_AUTH_SOCK"] = held.enter_context(_short_path(agent))
        return await _checkout(source, directory, settings, keep_git_dir=keep_git_dir)


async def _checkout(
    source: GitSource, directory: Path, settings: dict[str, str], *, keep_git_dir: bool
) -> Path:
    async def git(*arguments: str) -> str:
        try:
            return await _git(directory, settings, *arguments)
        except System as exc:
            raise System(exc.message.replace(source.remote, redacted(source.remote))) from None

    await git("init", "-q")
    await git("remote", "add", "origin", source.remote)
    whole = source.checksum if len(source.checksum) >= _COMMIT else ""
    ref = source.ref or whole or "HEAD"
    try:
        await git("fetch", "-q", "--depth", "1", "origin", "--", ref)
    except System:  # Not every server can give less than all, or a commit by its name.
        refs = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        await git("fetch", "-q", "origin", *(() if ref != "HEAD" else ("HEAD",)), *refs)
        wanted = "FETCH_HEAD" if ref == "HEAD" else f"origin/{ref.removeprefix('refs/heads/')}"
        try:
            await git("checkout", "-q", "--detach", wanted)
        except System:
            await git("checkout", "-q", "--detach", ref)
    else:
        await git("checkout", "-q", "--detach", "FETCH_HEAD")
    if source.checksum:
        commit = (await git("rev-parse", "HEAD")).strip()
        if not commit.startswith(source.checksum):
            raise InvalidParameter(f"expected checksum to match {source.checksum}, got {commit}")
    if source.submodules and (directory / ".gitmodules").is_file():
        await git("submodule", "update", "-q", "--init", "--recursive", "--depth=1")
    part = _part(directory, source.directory)
    if not keep_git_dir:
        removal = asyncio.create_task(
            asyncio.to_thread(shutil.rmtree, directory / ".git", ignore_errors=True)
        )
        try:
            await asyncio.shield(removal)
        except asyncio.CancelledError:
            await asyncio.wait([removal])  # Nobody may be at work in what is removed next.
            raise
    return part


def _part(directory: Path, inside: str) -> Path:
    if not inside:
        return directory
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        part = openat2(root, inside, os.O_PATH | os.O_DIRECTORY)
    except OSError as exc:
        told = (exc.strerror or "").lower()
        raise InvalidParameter(f"error setting git context, {inside!r} not within git root: {told}") from None
    finally:
        os.close(root)
    try:
        return Path(f"/proc/self/fd/{part}").readlink()
    finally:
        os.close(part)


def _ssh_command(home: Path) -> str:
    """ssh without what this machine has for its own use: configuration, keys, hosts that its users know.

    Whoever wrote the Dockerfile chooses the host, and may only go where the agent's keys lead.
    """
    # Whoever answers first is who the host is, as for BuildKit, which asks it for its keys beforehand.
    hosts = str(home / "known_hosts").replace("%", "%%").replace('"', '\\"')
    options = (
        "BatchMode=yes",
        "IdentityFile=none",
        "StrictHostKeyChecking=accept-new",
        f'UserKnownHostsFile="{hosts}"',
    )
    return shlex.join(["ssh", "-F", "/dev/null", *(f"-o{option}" for option in options)])


@contextmanager
def _short_path(socket: Path) -> Iterator[str]:
    """Another path of a socket, for the programs that we start: the kernel takes 107 bytes at most."""
    directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # By our process, as /proc knows it: ssh closes what it inherits.
        yield f"{Path('/proc/self').resolve()}/fd/{directory}/{socket.name}"
    finally:
        os.close(directory)


async def _git(directory: Path, settings: dict[str, str], *arguments: str) -> str:
    """Run git without anybody's settings but these; what it says. It ends with the task that waits for it.

    Raises System.
    """
    kept = ("PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C",
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        "git",
        *_SAFE,
        *arguments,
        cwd=directory,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    output = b""
    try:
        while chunk := await process.stdout.read(_LONGEST_OUTPUT):
            output = (output + chunk)[-_LONGEST_OUTPUT:]  # The server says as much as it likes.
        await process.wait()
    except BaseException:
        # Its helpers, too, which talk to the network for it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
        raise
    told = output.decode("utf-8", "replace").strip()
    if process.returncode:
        raise System(f"git {arguments[0]}: {told}: exit status {process.returncode}")
    return told
