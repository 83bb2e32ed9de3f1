"""What the filter does with calls that no architecture of the machine has."""

from __future__ import annotations

import io
import platform
import struct
import tarfile

import pytest
from harness import Client

from longshore.linux.host import discover

# getpid(2) as x32 programs ask for it, then exit(2) with 1 if the kernel knew no such call, else with 0.
_CODE = bytes.fromhex("b827000040 0f05 89c7 c1ef1f b83c000000 0f05")
_SIGSYS = 31


def x32_getpid() -> bytes:
    """A program of 64 bits that makes one call of x32: ELF header, program header, code."""
    base, headers = 0x400000, 64 + 56
    elf = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = headers + len(_CODE)
    return elf + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + _CODE


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is an ABI of x86-64")
@pytest.mark.parametrize("option", ["builtin", "unconfined"])
def test_calls_of_x32(api: Client, option: str) -> None:
    host_config = {"SecurityOpt": [f"seccomp={option}"]}
    body = {"Image": "busybox", "Cmd": ["/x32"], "HostConfig": host_config}
    id = api.post("/containers/create", body).expect(201).json["Id"]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("x32")
        entry.size, entry.mode = len(x32_getpid()), 0o755
        tar.addfile(entry, io.BytesIO(x32_getpid()))
    api.request("PUT", f"/containers/{id}/archive", archive.getvalue(), query={"path": "/"}).expect(200)
    api.post(f"/containers/{id}/start").expect(204)
    code = api.post(f"/containers/{id}/wait").json["StatusCode"]
    if discover().x32:
        assert code == 0
    else:
        assert code == (1 if option == "unconfined" else 128 + _SIGSYS)
