"""Which AppArmor profile confines the container."""

from __future__ import annotations

from longshore.errors import System
from longshore.linux.host import HostFacts
from longshore.oci.input import SpecInput

DEFAULT_PROFILE = "docker-default"


def apparmor_profile(container: SpecInput, asked: str, host: HostFacts) -> str:
    """The profile's name; empty where AppArmor is not enabled.

    Raises System if a profile was asked for by name on a host without AppArmor.
    """
    profile = container.apparmor_profile or asked
    if not host.apparmor:
        if profile and profile != "unconfined":
            raise System(
                f'apparmor profile "{profile}" was asked for, but AppArmor is not enabled on this host'
            )
        return ""
    if profile:
        return profile
    return "unconfined" if container.host_config.Privileged else DEFAULT_PROFILE
