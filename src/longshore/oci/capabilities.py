"""Which capabilities the container's first process gets; see capabilities(7) and moby's oci/caps."""

from __future__ import annotations

from longshore.errors import System
from longshore.linux.capabilities import NAMES, normalize
from longshore.linux.host import HostFacts
from longshore.oci.defaults import CAPABILITIES
from longshore.types.container import HostConfig


def process_capabilities(host_config: HostConfig, host: HostFacts, *, root: bool) -> dict[str, list[str]]:
    """The `process.capabilities` sets.

    Those of Docker's defaults that the daemon itself lacks are left out. Raises System for one that the user
    added and the daemon cannot give, InvalidParameter for one that no kernel knows.
    """
    granted = [name for name in wanted_capabilities(host_config, host) if _can_give(name, host_config, host)]
    sets = {"bounding": granted}
    if root:  # execve(2) of anybody else would empty these anyway
        sets |= {"effective": granted, "permitted": granted}
    return sets


def wanted_capabilities(host_config: HostConfig, host: HostFacts) -> list[str]:
    """Docker's rule for `--privileged`, `--cap-add` and `--cap-drop`."""
    everything = [name for name in NAMES if name in host.effective_capabilities]
    if host_config.Privileged:
        return everything
    added, dropped = normalize(host_config.CapAdd or []), normalize(host_config.CapDrop or [])
    if "ALL" in added:
        return [name for name in everything if name not in dropped]
    if "ALL" in dropped:
        return added
    kept = [name for name in CAPABILITIES if name not in dropped]
    return kept + [name for name in dict.fromkeys(added) if name not in kept]


def _can_give(name: str, host_config: HostConfig, host: HostFacts) -> bool:
    if name in host.effective_capabilities:
        return True
    if name in normalize(host_config.CapAdd or []):
        raise System(f"cannot give the container {name}: the daemon itself does not have it")
    return False
