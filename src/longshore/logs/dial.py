"""Reaching the peers of log drivers, with errors worded as Go's net package words them."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from longshore.errors import InvalidParameter

CONNECT_TIMEOUT = 3.0
_TRANSPORTS = ("tcp://", "tcp+tls://", "udp://", "unix://", "unixgram://")


class Address(NamedTuple):
    """Where a peer is: `path` for unix and unixgram, `host` and `port` for all else."""

    network: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"


def is_transport_url(address: str) -> bool:
    """Whether it begins with a transport that dockerd knows (urlutil.IsTransportURL)."""
    return address.startswith(_TRANSPORTS)


def parse_url(address: str) -> SplitResult:
    """Split a URL. Raises InvalidParameter."""
    try:
        url = urlsplit(address)
        _ = url.port
    except ValueError as exc:
        raise InvalidParameter(f'parse "{address}": {exc}') from None
    return url


def dial(address: Address, tls: Callable[[], ssl.SSLContext] | None = None, name: str = "") -> socket.socket:
    """Connect; with `tls`, as client of the server `name`. Raises OSError."""
    network = address.network.partition("+")[0]
    try:
        connection = _connect(network, address)
    except socket.gaierror:
        raise OSError(f"dial {network}: lookup {address.host}: no such host") from None
    except TimeoutError:
        raise OSError(f"dial {network} {address}: i/o timeout") from None
    except OSError as exc:
        words = os.strerror(exc.errno).lower() if exc.errno else str(exc)
        raise OSError(f"dial {network} {address}: connect: {words}") from None
    if tls is not None:
        try:
            connection = tls().wrap_socket(connection, server_hostname=name or address.host)
        except ssl.SSLCertVerificationError as exc:
            connection.close()
            raise OSError(f"tls: failed to verify certificate: {exc.verify_message}") from None
        except OSError:
            connection.close()
            raise
    connection.settimeout(None)
    return connection


def _connect(network: str, address: Address) -> socket.socket:
    if network in ("unix", "unixgram"):
        kind = socket.SOCK_DGRAM if network == "unixgram" else socket.SOCK_STREAM
        connection = socket.socket(socket.AF_UNIX, kind)
        try:
            connection.settimeout(CONNECT_TIMEOUT)
            connection.connect(address.path)
        except OSError:
            connection.close()
            raise
        return connection
    if network == "tcp":
        return socket.create_connection((address.host, address.port), CONNECT_TIMEOUT)
    family, kind, protocol, _, peer = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[
        0
    ]
    connection = socket.socket(family, kind, protocol)
    try:
        connection.connect(peer)
    except OSError:
        connection.close()
        raise
    return connection


def client_context(ca: str, certificate: str, key: str, *, skip_verify: bool) -> ssl.SSLContext:
    """A client's TLS settings from files, each "" for none. Raises OSError."""
    context = ssl.create_default_context()
    try:
        if ca:
            context = ssl.create_default_context(cafile=ca)
    except FileNotFoundError:
        message = f'could not read CA certificate "{ca}": open {ca}: no such file or directory'
        raise OSError(message) from None
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate or key:
        try:
            context.load_cert_chain(certificate, key)
        except FileNotFoundError:
            missing = certificate if not os.path.exists(certificate) else key  # noqa: PTH110
            message = f"could not load X509 key pair: open {missing}: no such file or directory"
            raise OSError(message) from None
    return context


def hang_up(connection: socket.socket | None) -> None:
    """Close a connection, waking whoever waits on it."""
    if connection is None:
        return
    with contextlib.suppress(OSError):  # never connected, or gone
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
