"""Specifications run by the real runc: what the container sees is what was asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import find_busybox

from longshore.errors import System
from longshore.linux.host import discover
from longshore.oci.input import ResolvedMount, SpecInput
from longshore.oci.spec import create_spec, encode_spec
from longshore.types.container import Config, HostConfig
from longshore.types.resources import Ulimit

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("runc"),
    reason="needs root and runc",
)
HOST = discover()


@pytest.fixture
def rootfs(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "rootfs"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "sbin"):
        (root / name).mkdir(parents=True)
    shutil.copy(find_busybox(), root / "bin/busybox")
    for name in ("sh", "cat", "id", "grep", "touch", "hostname", "true"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nbob:x:1001:\nextra:x:2000:bob\n")
    yield root


def run(rootfs: Path, command: str, host_config: HostConfig, **more: object) -> str:
    identity = f"longshore-test-{uuid.uuid4().hex[:12]}"
    mounts = more.pop("mounts", ())
    config = Config(Hostname="h", Cmd=["/bin/sh", "-c", command], **more)  # type: ignore[arg-type]
    container = SpecInput(identity, config, host_config, rootfs, mounts=mounts)  # type: ignore[arg-type]
    bundle = rootfs.parent / identity
    bundle.mkdir()
    (bundle / "config.json").write_bytes(encode_spec(create_spec(container, HOST)))
    state = str(rootfs.parent / "runc")
    try:
        done = subprocess.run(
            ["runc", "--root", state, "run", "-b", str(bundle), identity],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
    finally:
        subprocess.run(["runc", "--root", state, "delete", "-f", identity], capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_user_groups_and_environment(rootfs: Path) -> None:
    out = run(rootfs, "id; echo $A-$HOSTNAME-$HOME", HostConfig(), User="bob", Env=["A=1"])
    assert out == "uid=1000(bob) gid=1001(bob) groups=1001(bob),2000(extra)\n1-h-/home/bob\n"


def test_default_confinement(rootfs: Path) -> None:
    out = run(
        rootfs,
        "grep -E 'CapBnd|Seccomp:' /proc/self/status; (echo 60 > /proc/sys/vm/swappiness) 2>&1 || true",
        HostConfig(),
    )
    assert "00000000a80425fb" in out
    assert "Seccomp:\t2" in out
    assert "Read-only" in out


def test_capabilities_are_dropped(rootfs: Path) -> None:
    out = run(rootfs, "grep CapEff /proc/self/status", HostConfig(CapDrop=["ALL"], CapAdd=["net_raw"]))
    assert out.split() == ["CapEff:", "0000000000002000"]


def test_read_only_root_and_tmpfs(rootfs: Path) -> None:
    mount = ResolvedMount("tmpfs", "/tmp", "tmpfs", options=("size=1m",))
    out = run(
        rootfs,
        "touch /x 2>&1; touch /tmp/y && echo written; grep ' /tmp ' /proc/mounts",
        HostConfig(ReadonlyRootfs=True),
        mounts=(mount,),
    )
    assert "Read-only file system" in out
    assert "written" in out
    assert "size=1024k" in out


def test_read_only_bind(rootfs: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    mount = ResolvedMount(str(source), "/bound", rw=False, propagation="rprivate")
    assert "Read-only" in run(rootfs, "touch /bound/x 2>&1 || true", HostConfig(), mounts=(mount,))
    assert list(source.iterdir()) == []


def test_privileged_sees_no_masks(rootfs: Path) -> None:
    out = run(
        rootfs,
        "grep Seccomp: /proc/self/status; grep -c /proc/ /proc/mounts || true",
        HostConfig(Privileged=True),
    )
    assert out == "Seccomp:\t0\n0\n"


@pytest.mark.skipif(HOST.unified or not HOST.memory_limit, reason="needs the v1 memory controller")
def test_limits_reach_the_cgroup(rootfs: Path) -> None:
    limits = HostConfig(Memory=64 << 20, MemorySwap=128 << 20, PidsLimit=50)
    out = run(rootfs, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max", limits)
    assert out.split() == [str(64 << 20), "50"]


def test_unknown_user_is_docker_s_message(rootfs: Path) -> None:
    with pytest.raises(System, match=r"^unable to find user eve: no matching entries in passwd file$"):
        create_spec(SpecInput("x", Config(User="eve", Cmd=["true"]), HostConfig(), rootfs), HOST)


def test_passwd_link_does_not_lead_out(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("eve:x:7:7::/:/bin/sh\n")
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").symlink_to(tmp_path / "passwd")
    with pytest.raises(System, match="unable to find user eve"):
        create_spec(SpecInput("x", Config(User="eve", Cmd=["true"]), HostConfig(), rootfs), HOST)


@pytest.mark.skipif(HOST.has_capability("CAP_SYS_RESOURCE"), reason="may raise hard limits")
def test_only_default_limits_are_cut(rootfs: Path) -> None:
    limit = Ulimit("nofile", 1 << 20, 1 << 20)
    config = Config(Cmd=["true"])
    spec = create_spec(SpecInput("x", config, HostConfig(), rootfs, default_ulimits=(limit,)), HOST)
    assert spec["process"]["rlimits"][0]["hard"] == HOST.rlimits["nofile"][1]
    with pytest.raises(System, match="CAP_SYS_RESOURCE"):
        create_spec(SpecInput("x", config, HostConfig(Ulimits=[limit]), rootfs), HOST)
