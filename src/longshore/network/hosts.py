"""The container's hosts file, as Docker writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from longshore.network.endpoint import Endpoint

_HEAD = "127.0.0.1\tlocalhost\n"
_HEAD_IPV6 = (
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


def hosts_file(
    *,
    hostname: str,
    domainname: str,
    extra_hosts: Iterable[str],
    host_gateways: Sequence[str],
    links: Iterable[tuple[str, str, str]],
    endpoints: Iterable[Endpoint],
) -> str:
    """The file's text. `extra_hosts` are `name:ip` or `name=ip`, the address maybe `host-gateway`."""
    lines = [_HEAD, _HEAD_IPV6 if Path("/proc/net/if_inet6").exists() else ""]
    lines += _extra_lines(extra_hosts, host_gateways)
    for name, alias, address in links:
        lines.append(f"{address}\t{alias if alias == name else f'{alias} {name}'}\n")
    own = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    for endpoint in endpoints:
        for address in (endpoint.ipv4_address, endpoint.ipv6_address):
            if address and own:
                lines.append(f"{address}\t{own}\n")
    return "".join(lines)


def host_mode_hosts_file(extra_hosts: Iterable[str], host_gateways: Sequence[str]) -> str:
    """The machine's own file with the extra hosts added."""
    try:
        text = Path("/etc/hosts").read_text(errors="replace")
    except FileNotFoundError:
        text = _HEAD
    return "".join([text, *_extra_lines(extra_hosts, host_gateways)])


def write_in_place(path: Path, text: str) -> None:
    """Write the file without replacing it: a running container has this very inode mounted."""
    with path.open("w") as file:
        file.write(text)
    path.chmod(0o644)


def _extra_lines(extra_hosts: Iterable[str], host_gateways: Sequence[str]) -> list[str]:
    lines = []
    for extra in extra_hosts:
        separator = "=" if "=" in extra else ":"
        name, _, address = extra.partition(separator)
        address = address.strip("[]")
        addresses = host_gateways if address == "host-gateway" else [address]
        lines += [f"{one}\t{name}\n" for one in addresses if one]
    return lines
