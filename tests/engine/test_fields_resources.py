"""Each field of HostConfig that is a limit: the container's own cgroup, rlimits and devices have it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from engine.asked import at, create, inspect, refusal, run, start
from harness import Client, Longshored

from longshore.linux.host import discover

proves = pytest.mark.proves
HOST = discover()
V1 = pytest.mark.skipif(HOST.unified, reason="cgroup v2 has no such limit")
MIB = 1 << 20
DISKS = sorted(entry.name for entry in Path("/sys/block").glob("[vsn][dv]*"))
DISK = f"/dev/{DISKS[0]}" if DISKS else "/dev/null"
THROTTLE = [{"Path": DISK, "Rate": 4096000}]


def number(device: str) -> tuple[int, int]:
    status = Path(device).stat()
    return os.major(status.st_rdev), os.minor(status.st_rdev)


NUMBER = "{}:{}".format(*number(DISK))
HAS_DISK = pytest.mark.skipif(not DISKS, reason="this machine has no disk to throttle")


@pytest.mark.parametrize(
    ("host_config", "v1", "v2"),
    [
        # The runtime turns shares and weights into v2's units; its formula is its own business.
        pytest.param(
            {"CpuShares": 512}, "cpu/cpu.shares 512", "cpu.weight 20", marks=proves("HostConfig.CpuShares")
        ),
        pytest.param(
            {"NanoCpus": 500_000_000},
            "cpu/cpu.cfs_quota_us 50000",
            "cpu.max 50000 100000",
            marks=proves("HostConfig.NanoCpus"),
        ),
        pytest.param(
            {"CpuPeriod": 50_000, "CpuQuota": 25_000},
            "cpu/cpu.cfs_quota_us 25000",
            "cpu.max 25000 50000",
            marks=proves("HostConfig.CpuQuota"),
        ),
        pytest.param(
            {"CpuPeriod": 50_000, "CpuQuota": 25_000},
            "cpu/cpu.cfs_period_us 50000",
            "cpu.max 25000 50000",
            marks=proves("HostConfig.CpuPeriod"),
        ),
        pytest.param(
            {"CpusetCpus": "0"},
            "cpuset/cpuset.cpus 0",
            "cpuset.cpus 0",
            marks=proves("HostConfig.CpusetCpus"),
        ),
        pytest.param(
            {"CpusetMems": "0"},
            "cpuset/cpuset.mems 0",
            "cpuset.mems 0",
            marks=proves("HostConfig.CpusetMems"),
        ),
        pytest.param(
            {"Memory": 64 * MIB},
            f"memory/memory.limit_in_bytes {64 * MIB}",
            f"memory.max {64 * MIB}",
            marks=proves("HostConfig.Memory"),
        ),
        pytest.param(
            {"MemoryReservation": 32 * MIB},
            f"memory/memory.soft_limit_in_bytes {32 * MIB}",
            f"memory.low {32 * MIB}",
            marks=proves("HostConfig.MemoryReservation"),
        ),
        pytest.param(
            {"Memory": 64 * MIB, "MemorySwap": 96 * MIB},
            f"memory/memory.memsw.limit_in_bytes {96 * MIB}",
            f"memory.swap.max {32 * MIB}",
            marks=[
                proves("HostConfig.MemorySwap"),
                pytest.mark.skipif(not HOST.swap_limit, reason="this kernel does not count swap"),
            ],
        ),
        pytest.param(
            {"MemorySwappiness": 17},
            "memory/memory.swappiness 17",
            "",
            marks=[V1, proves("HostConfig.MemorySwappiness")],
        ),
        pytest.param(
            {"OomKillDisable": True, "Memory": 64 * MIB},
            "memory/memory.oom_control oom_kill_disable 1",
            "",
            marks=[V1, proves("HostConfig.OomKillDisable")],
        ),
        pytest.param(
            {"PidsLimit": 50}, "pids/pids.max 50", "pids.max 50", marks=proves("HostConfig.PidsLimit")
        ),
        pytest.param(
            {"PidsLimit": -1},
            "pids/pids.max max",
            "pids.max max",
            marks=pytest.mark.skipif(
                HOST.cgroup_driver == "systemd",
                reason="as with dockerd, systemd gives its own limit (DefaultTasksMax) to who asks for none",
            ),
        ),
        pytest.param(
            {"BlkioDeviceReadBps": THROTTLE},
            f"blkio/blkio.throttle.read_bps_device {NUMBER} 4096000",
            f"io.max {NUMBER} rbps=4096000 wbps=max riops=max wiops=max",
            marks=[
                HAS_DISK,
                proves("HostConfig.BlkioDeviceReadBps.Path", "HostConfig.BlkioDeviceReadBps.Rate"),
            ],
        ),
        pytest.param(
            {"BlkioDeviceWriteBps": THROTTLE},
            f"blkio/blkio.throttle.write_bps_device {NUMBER} 4096000",
            f"io.max {NUMBER} rbps=max wbps=4096000 riops=max wiops=max",
            marks=[
                HAS_DISK,
                proves("HostConfig.BlkioDeviceWriteBps.Path", "HostConfig.BlkioDeviceWriteBps.Rate"),
            ],
        ),
        pytest.param(
            {"BlkioDeviceReadIOps": THROTTLE},
            f"blkio/blkio.throttle.read_iops_device {NUMBER} 4096000",
            f"io.max {NUMBER} rbps=max wbps=max riops=4096000 wiops=max",
            marks=[
                HAS_DISK,
                proves("HostConfig.BlkioDeviceReadIOps.Path", "HostConfig.BlkioDeviceReadIOps.Rate"),
            ],
        ),
        pytest.param(
            {"BlkioDeviceWriteIOps": THROTTLE},
            f"blkio/blkio.throttle.write_iops_device {NUMBER} 4096000",
            f"io.max {NUMBER} rbps=max wbps=max riops=max wiops=4096000",
            marks=[
                HAS_DISK,
                proves("HostConfig.BlkioDeviceWriteIOps.Path", "HostConfig.BlkioDeviceWriteIOps.Rate"),
            ],
        ),
    ],
)
def test_the_cgroup_has_the_limit(api: Client, host_config: dict[str, Any], v1: str, v2: str) -> None:
    file, _, wanted = (v2 if HOST.unified else v1).partition(" ")
    found = run(api, f"cat /sys/fs/cgroup/{file}", {"HostConfig": {"CgroupnsMode": "private", **host_config}})
    assert found.splitlines()[0] == wanted


@pytest.fixture
def real_time(root: None, busybox_archive: Path) -> Iterator[Longshored]:
    """A daemon that has real-time to give: the kernel gives none to new cgroups."""
    if not HOST.cpu_realtime:
        pytest.skip("this kernel has no real-time groups")
    daemon = Longshored("--cpu-rt-runtime", "30000")
    try:
        daemon.start()
        daemon.load(busybox_archive)
        yield daemon
    finally:
        daemon.destroy()
        for name in (f"{daemon.cgroup}/child", daemon.cgroup):
            for directory in {Path(mount + name) for mount in HOST.cgroup_mounts.values()}:
                with suppress(FileNotFoundError):
                    directory.rmdir()


@proves("HostConfig.CpuRealtimePeriod", "HostConfig.CpuRealtimeRuntime", "HostConfig.CgroupParent")
def test_real_time(real_time: Longshored) -> None:
    api, parent = Client(real_time.socket, "1.50"), f"{real_time.cgroup}/child"
    asked = {"CpuRealtimePeriod": 500_000, "CpuRealtimeRuntime": 5_000, "CgroupParent": parent}
    id = start(api, {"HostConfig": asked})
    lines = Path(f"/proc/{inspect(api, id)['State']['Pid']}/cgroup").read_text().splitlines()
    assert any(line.endswith(f":{parent}/{id}") and "cpu" in line.split(":")[1].split(",") for line in lines)
    cgroup = Path(f"{HOST.cgroup_mounts['cpu']}{parent}/{id}")
    found = {name: (cgroup / f"cpu.rt_{name}_us").read_text().strip() for name in ("period", "runtime")}
    assert found == {"period": "500000", "runtime": "5000"}
    assert (cgroup.parent / "cpu.rt_runtime_us").read_text().strip() == "30000"


@proves("HostConfig.Ulimits.Name", "HostConfig.Ulimits.Soft", "HostConfig.Ulimits.Hard")
def test_ulimits(api: Client) -> None:
    limits = [{"Name": "nofile", "Soft": 100, "Hard": 200}, {"Name": "core", "Soft": 0, "Hard": 0}]
    found = run(api, "ulimit -Sn; ulimit -Hn; ulimit -c", {"HostConfig": {"Ulimits": limits}})
    assert found.split() == ["100", "200", "0"]


@proves("HostConfig.OomScoreAdj")
def test_the_oom_score(api: Client) -> None:
    assert run(api, "cat /proc/self/oom_score_adj", {"HostConfig": {"OomScoreAdj": 321}}) == "321"


@pytest.mark.skipif(
    not HOST.has_capability("CAP_SYS_RESOURCE"), reason="this machine withholds CAP_SYS_RESOURCE"
)
def test_more_than_the_daemon_has_itself(api: Client) -> None:
    _, hard = HOST.rlimits["memlock"]
    more = -1 if hard >= 0 else 1 << 40
    assert run(api, "cat /proc/self/oom_score_adj", {"HostConfig": {"OomScoreAdj": -321}}) == "-321"
    limits = [{"Name": "memlock", "Soft": more, "Hard": more}, {"Name": "rtprio", "Soft": 50, "Hard": 50}]
    found = run(api, "grep -E 'locked|realtime p' /proc/self/limits", {"HostConfig": {"Ulimits": limits}})
    shown = "unlimited" if more < 0 else str(more)
    assert [line.split()[3:5] for line in found.splitlines()] == [[shown, shown], ["50", "50"]], found


@proves("HostConfig.ShmSize")
def test_the_size_of_shared_memory(api: Client) -> None:
    assert "size=4096k" in run(api, "grep ' /dev/shm ' /proc/mounts", {"HostConfig": {"ShmSize": 4 * MIB}})


NOBODYS = next(path for path in ("/dev/fuse", "/dev/loop-control", "/dev/kmsg") if Path(path).exists())
"""A character device that containers may not use unless they ask for it, and that is opened without harm."""

OPENED = "(: < {0}) 2>/dev/null && echo read; (: > {0}) 2>/dev/null && echo written; true"


@pytest.mark.parametrize(
    ("permissions", "wanted"), [("rw", "read written"), ("r", "read"), ("w", "written"), ("", "read written")]
)
@proves("HostConfig.Devices.PathOnHost", "HostConfig.Devices.PathInContainer")
@proves("HostConfig.Devices.CgroupPermissions")
def test_devices(api: Client, permissions: str, wanted: str) -> None:
    device = {"PathOnHost": NOBODYS, "PathInContainer": "/dev/mine", "CgroupPermissions": permissions}
    assert (
        run(api, OPENED.format("/dev/mine"), {"HostConfig": {"Devices": [device]}}).split() == wanted.split()
    )


@proves("HostConfig.DeviceCgroupRules")
def test_device_rules(api: Client) -> None:
    major, minor = number(NOBODYS)
    script = f"mknod /made c {major} {minor}; {OPENED.format('/made')}"
    assert run(api, script, {}) == ""
    for rule in (f"c {major}:{minor} r", f"c {major}:* r", "c *:* r"):
        assert run(api, script, {"HostConfig": {"DeviceCgroupRules": [rule]}}) == "read"


@pytest.mark.parametrize(
    ("host_config", "status", "message"),
    [
        pytest.param(
            {"MemorySwappiness": 101},
            400,
            "Invalid value: 101, valid memory swappiness range is 0-100",
            marks=V1,
        ),
        ({"BlkioWeight": 5} if HOST.blkio_weight else {"ShmSize": -1}, 400, None),
        ({"CpuPeriod": 1}, 400, None),
        (
            {"CpuRealtimePeriod": 10, "CpuRealtimeRuntime": 20},
            400,
            "cpu real-time runtime cannot be higher than cpu real-time period"
            if HOST.cpu_realtime
            else "Your kernel does not support CPU real-time scheduler",
        ),
        (
            {"IOMaximumBandwidth": 1},
            400,
            "invalid QoS settings: linux does not support configuration of maximum bandwidth",
        ),
        (
            {"IOMaximumIOps": 1},
            400,
            "invalid QoS settings: linux does not support configuration of maximum IOPs",
        ),
        ({"Isolation": "hyperv"}, 400, "invalid isolation 'hyperv' on linux"),
        (
            {"BlkioDeviceReadBps": [{"Path": "/dev/nosuch", "Rate": 1}]},
            500,
            "stat /dev/nosuch: no such file or directory",
        ),
        ({"DeviceCgroupRules": ["x"]}, 400, 'invalid device cgroup rule format: "x"'),
        (
            {"Devices": [{"PathOnHost": "/etc", "PathInContainer": "/x", "CgroupPermissions": "rwm"}]},
            500,
            'error gathering device information while adding custom device "/etc": not a device node',
        ),
    ],
)
def test_limits_that_cannot_be(
    api: Client, host_config: dict[str, Any], status: int, message: str | None
) -> None:
    found = refusal(api, {"HostConfig": host_config})
    assert found == (status, message or found[1])


@pytest.mark.parametrize(
    ("host_config", "kept", "warning"),
    [
        ({"CpuPercent": 50}, 0, "linux does not support CPU percent. Percent discarded."),
        ({"CpuCount": 2}, 2, None),
        ({"MemorySwappiness": -1}, None, None),
        ({"PidsLimit": 0}, None, None),
        ({"CpuShares": 1}, 1, None),
        (
            {"OomKillDisable": True},
            True if HOST.oom_kill_disable else None,
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the "
            "system running out of resources."
            if HOST.oom_kill_disable
            else "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
        ),
    ],
)
def test_what_is_made_of_limits_that_linux_lacks(
    api: Client, host_config: dict[str, Any], kept: Any, warning: str | None
) -> None:
    made = create(api, {"HostConfig": host_config}).expect(201).json
    assert made["Warnings"] == ([warning] if warning else [])
    field = next(iter(host_config))
    assert at(inspect(api, made["Id"]), f"HostConfig.{field}") == kept
