"""firewalld: it forwards what its zones let through, so our bridges join the zone that dockerd makes as well.

Zone and policy are in its permanent configuration; which links belong to the zone is forgotten with every
reload, as it must be for links that come and go.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence

from longshore.linux.nftables import Nftables, NftablesError
from longshore.network.programs import run_program

ZONE, POLICY = "docker", "docker-forwarding"
_PROGRAM = "firewall-cmd"
_PATIENCE = 30.0
"""Seconds: a reload takes several where zones are large."""


def running() -> bool:
    """Whether it filters here. Asks the kernel, since it answers itself in a tenth of a second at best."""
    return _listed("list chain inet firewalld filter_FORWARD") != "" and shutil.which(_PROGRAM) is not None


def refused(links: Iterable[str]) -> list[str]:
    """Those of the links that are not in the zone."""
    zones = _listed("list table inet firewalld")
    return [link for link in links if f'"{link}" goto filter_FWD_{ZONE}' not in zones]


def admit(links: Sequence[str]) -> None:
    """Let the links' traffic through. What it refuses stays `refused`.

    Blocks for a second at most times. Raises Unanswered.
    """
    missing = refused(links)
    if missing and not _call(f"--info-zone={ZONE}") and not _make_zone():
        return
    for link in missing:
        _call(f"--zone={ZONE}", f"--change-interface={link}")


def dismiss(link: str) -> None:
    """Undo `admit`; the zone stays. Raises Unanswered."""
    if not refused([link]):
        _call(f"--zone={ZONE}", f"--remove-interface={link}")


def _make_zone() -> bool:
    """As dockerd does, which finds both if it comes later; whether they are there.

    Only then is anything reloaded, since after that whoever watches the firewall has us try again.
    """
    zone, policy = f"--zone={ZONE}", f"--policy={POLICY}"
    if not (_call("--permanent", f"--new-zone={ZONE}") or _call("--permanent", f"--info-zone={ZONE}")):
        return False
    _call("--permanent", zone, "--set-target=ACCEPT")
    _call("--permanent", f"--new-policy={POLICY}")
    for option in ("--add-ingress-zone=ANY", f"--add-egress-zone={ZONE}", "--set-target=ACCEPT"):
        _call("--permanent", policy, option)
    return _call("--reload")


def _call(*arguments: str) -> bool:
    return run_program(_PROGRAM, *arguments, timeout=_PATIENCE)[0]


def _listed(command: str) -> str:
    nft = Nftables()
    try:
        return nft.run(command)
    except NftablesError:
        return ""
    finally:
        nft.close()
