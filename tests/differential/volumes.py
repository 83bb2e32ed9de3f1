"""Options of local volumes: what is refused when they are made, and what when they are mounted."""

from __future__ import annotations

from typing import Any

from differential.compare import Case, Request, case, request

REFUSED: dict[str, dict[str, str]] = {
    "bind without a type": {"device": "/tmp", "o": "bind,ro"},
    "no device": {"type": "tmpfs"},
    "no type": {"device": "x"},
    "size": {"size": "1m"},
    "an option that is none": {"foo": "1"},
}
TAKEN: dict[str, dict[str, str]] = {
    "tmpfs": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000"},
    "a mount option that is none": {"type": "tmpfs", "device": "tmpfs", "o": "nosuid,noexec,bogus=1"},
    "bind of nothing": {"type": "none", "device": "/nope", "o": "bind"},
    "a device that is none": {"type": "ext4", "device": "/dev/nope"},
    "a file system that is none": {"type": "nope", "device": "nope"},
    "size of nothing": {"size": "0"},
    "all empty": {"type": "", "device": "", "o": ""},
    "nfs without an address": {"type": "nfs", "device": ":/x"},
}
CREATE = "POST /volumes/create"
USING: dict[str, Any] = {
    "Image": "busybox",
    "Cmd": ["true"],
    "HostConfig": {"Binds": ["v1:/v"], "NetworkMode": "none"},
}


def volume(options: dict[str, str]) -> dict[str, Any]:
    """The body that makes one with these options."""
    return {"Name": "v1", "DriverOpts": options}


def used(options: dict[str, str]) -> tuple[Request, ...]:
    """A volume, and a container with it."""
    return request(CREATE, volume(options)), request("POST /containers/create?name=box", USING)


CASES: list[Case] = [
    *(
        case(f"volume options: {name}", CREATE, volume(options), same=("Options",))
        for name, options in (REFUSED | TAKEN).items()
    ),
    *(
        case(f"volume options, started: {name}", "POST /containers/box/start", given=used(options))
        for name, options in TAKEN.items()
    ),
    case(
        "volume options: cifs with a port",
        CREATE,
        volume({"type": "cifs", "device": "//host:1/x", "o": "addr=127.0.0.1"}),
        newer="create v1: port not allowed in CIFS device URL, include 'port' in 'o='",
    ),
    case(
        "volume create: with other options",
        CREATE,
        volume(TAKEN["tmpfs"]),
        given=(request(CREATE, {"Name": "v1", "Labels": {"a": "1"}}),),
        same=("Labels",),
    ),
]
