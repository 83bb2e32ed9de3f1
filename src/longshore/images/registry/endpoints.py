"""Where a repository is found: the registries to try for it, and how far each is trusted."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from longshore.errors import InvalidParameter
from longshore.images.reference import DEFAULT_DOMAIN, Reference

INDEX_SERVER = "https://index.docker.io/v1/"
"""What clients call Docker Hub where they mean a place to log in to."""
HUB = "registry-1.docker.io"

_LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True)
class RegistrySettings:
    """The daemon's settings for registries, as `docker info` and daemon.json name them."""

    mirrors: tuple[str, ...] = ()
    """URLs asked before Docker Hub, when pulling."""
    insecure: tuple[str, ...] = ()
    """Host names, with port, and networks in CIDR notation; loopback always is."""
    proxies: Mapping[str, str] = field(default_factory=dict)
    """By daemon.json's names: http-proxy, https-proxy, no-proxy. The environment's count where unset."""
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    certificates: Path = Path("/etc/docker/certs.d")
    """A directory for each host: *.crt authorities, *.cert with *.key to identify ourselves."""
    retry_delay: float = 1.0
    """Seconds before the first new attempt; doubled for each further one."""
    read_timeout: float = 60.0
    """Seconds without a single byte until a connection counts as broken."""


class Endpoint(NamedTuple):
    """One way to reach a registry. `url` has no slash at its end."""

    url: str
    verify: bool = True
    mirror: bool = False

    @property
    def host(self) -> str:
        """With the port, if one is given."""
        return urlsplit(self.url).netloc


def pull_endpoints(reference: Reference, settings: RegistrySettings) -> list[Endpoint]:
    """In the order to be tried: mirrors, which only Docker Hub has, then the registry itself."""
    mirrors = []
    if reference.domain == DEFAULT_DOMAIN:
        for text in settings.mirrors:
            url = (text if "://" in text else f"https://{text}").rstrip("/")
            mirrors.append(Endpoint(url, is_secure(urlsplit(url).netloc, settings), mirror=True))
    return [*mirrors, *registry_endpoints(reference.domain, settings)]


def registry_endpoints(domain: str, settings: RegistrySettings) -> list[Endpoint]:
    """The registry over HTTPS and, if it is allowed to be insecure, over plain HTTP."""
    if domain == DEFAULT_DOMAIN:
        return [Endpoint(f"https://{HUB}")]
    if is_secure(domain, settings):
        return [Endpoint(f"https://{domain}")]
    return [Endpoint(f"https://{domain}", verify=False), Endpoint(f"http://{domain}", verify=False)]


def is_secure(domain: str, settings: RegistrySettings) -> bool:
    """Whether the registry has to prove who it is. Looks the name up: call it in a thread."""
    insecure = [each.rpartition("://")[2].rstrip("/") for each in settings.insecure]
    if domain in insecure:
        return False
    networks = []
    for each in (*_LOOPBACK, *(each for each in insecure if "/" in each)):
        with contextlib.suppress(ValueError):
            networks.append(ipaddress.ip_network(each, strict=False))
    return not any(address in network for address in _addresses(domain) for network in networks)


def login_domain(server: str) -> str:
    """The domain that `docker login` means by a server's address. Raises InvalidParameter."""
    if server in ("", INDEX_SERVER):
        return DEFAULT_DOMAIN
    try:
        host = urlsplit(server if "://" in server else f"https://{server}").netloc
    except ValueError as exc:
        raise InvalidParameter(f"unable to parse server address: {exc}") from None
    if not host or "@" in host:
        raise InvalidParameter(f"unable to parse server address: {server}")
    return DEFAULT_DOMAIN if host in ("index.docker.io", HUB) else host


def _addresses(domain: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    host = urlsplit(f"//{domain}").hostname or ""
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
