"""The sockets the API is served on: unix, TCP with or without TLS, and those systemd hands over."""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import os
import socket
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from longshore.errors import InvalidParameter, System

if TYPE_CHECKING:
    from longshore.config import Config

log = logging.getLogger(__name__)

_FIRST_PASSED_FD = 3


def listen(host: str, config: Config) -> list[tuple[socket.socket, ssl.SSLContext | None]]:
    """Open what `host` names: `unix:///path`, `tcp://address:port` or `fd://`, as dockerd's -H takes it.

    Raises InvalidParameter for a host that makes no sense, System if it cannot be listened on.
    """
    kind, separator, rest = host.partition("://")
    if not separator:
        raise InvalidParameter(f"bad format {host}, expected PROTO://ADDR")
    if kind == "unix":
        return [(_listen_unix(Path(rest), config.group), None)]
    if kind == "tcp":
        context = tls_context(config)
        if context is None or not config.tlsverify:
            warn_unauthenticated(host)
        return [(one, context) for one in _listen_tcp(host)]
    if kind == "fd":
        return [(one, None) for one in _passed_sockets(rest)]
    raise InvalidParameter(f"invalid protocol in host {host}: expected unix, tcp or fd")


def tls_context(config: Config) -> ssl.SSLContext | None:
    """What --tls and --tlsverify ask for; None without them. Raises System if a file cannot be used."""
    if not config.tls and not config.tlsverify:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tlscert, config.tlskey)
        if config.tlsverify:
            context.load_verify_locations(config.tlscacert)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as exc:
        raise System(
            f"invalid TLS configuration: cannot use {config.tlscert}, {config.tlskey}"
            + (f", {config.tlscacert}" if config.tlsverify else "")
            + f": {exc}"
        ) from exc
    return context


def warn_unauthenticated(host: str) -> None:
    """Who reaches the port owns the machine; say so as loudly as dockerd does."""
    log.warning(
        "Binding to IP address without --tlsverify is insecure and gives root access on this machine to "
        "everyone who has access to your network. host=%s",
        host,
    )
    log.warning(
        "Binding to an IP address, even on localhost, can also give access to scripts run in a browser. "
        "Be safe out there! host=%s",
        host,
    )


def _listen_unix(path: Path, group: str) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    _remove_stale(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Nobody may connect between bind and chmod.
    mask = os.umask(0o177)
    try:
        server.bind(str(path))
    except OSError as exc:
        server.close()
        raise System(f"can't create unix socket {path}: {exc.strerror}") from exc
    finally:
        os.umask(mask)
    os.chown(path, 0, _group_id(group))
    path.chmod(0o660)
    server.listen(128)
    return server


def _remove_stale(path: Path) -> None:
    """Remove a socket nobody listens on. Raises System if somebody does, or it is something else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise System(f"can't create unix socket {path}: a file that is no socket is in the way")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError as exc:
            if exc.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                raise System(f"can't create unix socket {path}: {exc}") from exc
        else:
            raise System(f"can't create unix socket {path}: another daemon listens on it")
    path.unlink(missing_ok=True)


def _group_id(group: str) -> int:
    """The id of a group, given by name or number; root's if there is no group called docker."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group.isdecimal():
            return int(group)
        if group != "docker":
            raise System(f"group {group} not found") from None
        log.warning("could not change group of the socket to docker: group docker not found")
        return 0


def _listen_tcp(host: str) -> list[socket.socket]:
    parts = urlsplit(host)
    try:
        name, port = parts.hostname, parts.port
    except ValueError as exc:
        raise InvalidParameter(f"invalid bind address {host}: {exc}") from None
    if parts.path not in ("", "/") or not name or port is None:
        raise InvalidParameter(f"invalid bind address {host}: expected tcp://ADDRESS:PORT")
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            server = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            sockets.append(server)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind(address)
            server.listen(128)
    except OSError as exc:
        for server in sockets:
            server.close()
        raise System(f"failed to listen on {host}: {exc}") from exc
    return sockets


def _passed_sockets(which: str) -> list[socket.socket]:
    """The sockets systemd passed (sd_listen_fds(3)): all, or the one numbered `which`."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise System("no sockets found via socket activation: make sure the service was started by systemd")
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)  # not for the programs we start
    numbers = list(range(_FIRST_PASSED_FD, _FIRST_PASSED_FD + count))
    if which not in ("", "*"):
        with contextlib.suppress(ValueError):
            numbers = [number for number in numbers if number == int(which)]
    if not numbers:
        raise System("no sockets found via socket activation: make sure the service was started by systemd")
    for number in numbers:
        os.set_inheritable(number, False)
    return [socket.socket(fileno=number) for number in numbers]
