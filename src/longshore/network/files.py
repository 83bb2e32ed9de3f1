"""The files of a sandbox: hosts and resolv.conf, written again whenever its endpoints change."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.network.hosts import host_mode_hosts_file, hosts_file, write_in_place
from longshore.network.resolvconf import (
    host_mode_text,
    host_resolv_conf,
    internal_text,
    is_address,
    legacy_text,
)

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController
    from longshore.network.sandbox import Sandbox


def write_files(controller: NetworkController, sandbox: Sandbox, *, fresh: bool = False) -> None:
    """Write the sandbox's hosts and resolv.conf, where it has paths for them. Blocks; raises OSError.

    Unless `fresh`, a resolv.conf that was edited since is left alone.
    """
    options = sandbox.options
    if options.hosts_path:
        write_in_place(options.hosts_path, _hosts(controller, sandbox))
    if options.resolv_conf_path:
        _write_resolv_conf(options.resolv_conf_path, _resolv_conf(controller, sandbox), fresh=fresh)


def upstream_servers(controller: NetworkController, sandbox: Sandbox) -> list[str]:
    """The DNS servers that the embedded resolver forwards to."""
    options, config = sandbox.options, controller.config
    servers = internal_text(host_resolv_conf(), options.dns or config.dns, [], [])[1]
    # A name here would have to be looked up, by whom?
    return [server for server in servers if is_address(server)]


def _hosts(controller: NetworkController, sandbox: Sandbox) -> str:
    options = sandbox.options
    if options.host:
        return host_mode_hosts_file(options.extra_hosts, host_gateways(controller))
    return hosts_file(
        hostname=options.hostname,
        domainname=options.domainname,
        extra_hosts=options.extra_hosts,
        host_gateways=host_gateways(controller),
        links=options.links,
        endpoints=[endpoint for endpoint in sandbox.endpoints if not endpoint.gateway_service],
    )


def host_gateways(controller: NetworkController) -> list[str]:
    """The addresses that `host-gateway` means: as configured, else the default bridge's."""
    if controller.config.host_gateway_ips:
        return controller.config.host_gateway_ips
    bridge = next((one for one in controller.networks() if one.is_default_bridge), None)
    return [pool.gateway for pool in bridge.pools if pool.gateway] if bridge is not None else []


def _resolv_conf(controller: NetworkController, sandbox: Sandbox) -> str:
    options, config = sandbox.options, controller.config
    dns = options.dns or config.dns
    search = options.dns_search or config.dns_search
    dns_options = options.dns_options or config.dns_opts
    conf = host_resolv_conf()
    if options.host:
        return host_mode_text(conf, dns, search, dns_options)
    networks = controller.networks_by_id
    if any(networks[endpoint.network_id].has_resolver for endpoint in sandbox.endpoints):
        return internal_text(conf, dns, search, dns_options)[0]
    ipv6 = any(endpoint.ipv6_address for endpoint in sandbox.endpoints)
    return legacy_text(conf, dns, search, dns_options, ipv6=ipv6)


def _write_resolv_conf(path: Path, text: str, *, fresh: bool) -> None:
    seal = path.with_name(path.name + ".hash")
    if not fresh and path.exists() and seal.exists() and seal.read_text() != _digest(path.read_bytes()):
        return
    write_in_place(path, text)
    write_in_place(seal, _digest(text.encode()))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
