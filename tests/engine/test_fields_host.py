"""Fields of HostConfig that are neither limits nor mounts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine.asked import create, inspect, refusal, run, start
from harness import Client, Longshored

from longshore.linux.host import discover

proves = pytest.mark.proves
HOST = discover()


@pytest.mark.parametrize(
    ("host_config", "script", "wanted"),
    [
        pytest.param(
            {"MaskedPaths": ["/etc/passwd", "/www"]},
            "wc -c < /etc/passwd; ls /www | wc -l",
            "0\n0",
            marks=proves("HostConfig.MaskedPaths"),
        ),
        pytest.param({"MaskedPaths": []}, "mount | grep -c ' on /sys/firmware '; true", "0"),
        pytest.param(
            {"ReadonlyPaths": ["/www"]},
            "touch /www/x 2>/dev/null || echo refused; echo 4000 > /proc/sys/kernel/shmmni && echo set",
            "refused\nset",
            marks=proves("HostConfig.ReadonlyPaths"),
        ),
        pytest.param(
            {"SecurityOpt": ["no-new-privileges=true"]},
            "grep NoNewPrivs /proc/self/status | cut -f 2",
            "1",
            marks=proves("HostConfig.SecurityOpt"),
        ),
        pytest.param({"GroupAdd": ["wheel", "77"]}, "id -G", "0 10 77", marks=proves("HostConfig.GroupAdd")),
        pytest.param(
            {"CapDrop": ["ALL"], "CapAdd": ["NET_ADMIN"]},
            "grep CapEff /proc/self/status | cut -f 2",
            f"{1 << 12:016x}",
            marks=proves("HostConfig.CapAdd", "HostConfig.CapDrop"),
        ),
        pytest.param(
            {"Privileged": True},
            "grep Seccomp: /proc/self/status | cut -f 2; mount -t tmpfs x /tmp && echo mounted",
            "0\nmounted",
            marks=proves("HostConfig.Privileged"),
        ),
        pytest.param(
            {"ReadonlyRootfs": True},
            "touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo written",
            "refused\nwritten",
            marks=proves("HostConfig.ReadonlyRootfs"),
        ),
        pytest.param(
            {"Sysctls": {"kernel.msgmax": "4321", "net.ipv4.ip_forward": "0"}},
            "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward",
            "4321\n0",
            marks=proves("HostConfig.Sysctls"),
        ),
        pytest.param({"Init": True}, "cat /proc/1/comm", "docker-init", marks=proves("HostConfig.Init")),
        pytest.param(
            {"ExtraHosts": ["one:192.0.2.1"]},
            "grep 192.0.2.1 /etc/hosts",
            "192.0.2.1\tone",
            marks=proves("HostConfig.ExtraHosts"),
        ),
        pytest.param(
            {"Dns": ["192.0.2.53"], "DnsSearch": ["example.org"], "DnsOptions": ["ndots:3"]},
            "grep -v '^#' /etc/resolv.conf | grep .",
            "nameserver 192.0.2.53\nsearch example.org\noptions ndots:3",
            marks=proves("HostConfig.Dns", "HostConfig.DnsSearch", "HostConfig.DnsOptions"),
        ),
        pytest.param(
            {"NetworkMode": "none"}, "ls /sys/class/net", "lo", marks=proves("HostConfig.NetworkMode")
        ),
    ],
)
def test_what_the_process_finds(api: Client, host_config: dict[str, Any], script: str, wanted: str) -> None:
    assert run(api, script, {"HostConfig": host_config}) == wanted


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        pytest.param("PidMode", "pid", marks=proves("HostConfig.PidMode")),
        pytest.param("IpcMode", "ipc", marks=proves("HostConfig.IpcMode")),
        pytest.param("UTSMode", "uts", marks=proves("HostConfig.UTSMode")),
        pytest.param("CgroupnsMode", "cgroup", marks=proves("HostConfig.CgroupnsMode")),
    ],
)
def test_namespaces(api: Client, field: str, kind: str) -> None:
    script, ours = f"readlink /proc/self/ns/{kind}", str(Path(f"/proc/self/ns/{kind}").readlink())
    assert run(api, script, {"HostConfig": {field: "host"}}) == ours
    private = {"HostConfig": {field: "private" if field in ("IpcMode", "CgroupnsMode") else ""}}
    assert run(api, script, private) != ours


@proves("HostConfig.ConsoleSize")
def test_the_size_of_the_terminal(daemon: Longshored, api: Client) -> None:
    body = {"Tty": True, "HostConfig": {"ConsoleSize": [31, 97]}}
    assert run(api, "stty size", body) == "31 97"
    assert run(Client(daemon.socket, "1.41"), "stty size", body) != "31 97"  # which did not have the field


def spec(daemon: Longshored, id: str) -> Any:
    """The OCI specification that the runtime was given."""
    (path,) = daemon.exec_root.glob(f"containerd/**/moby/{id}/config.json")
    return json.loads(path.read_text())


@proves("HostConfig.Annotations")
def test_annotations(daemon: Longshored, api: Client) -> None:
    asked = {"HostConfig": {"Annotations": {"org.example.key": "value"}}}
    id = start(api, asked)
    assert spec(daemon, id)["annotations"]["org.example.key"] == "value"
    assert inspect(api, id)["HostConfig"]["Annotations"] == {"org.example.key": "value"}
    assert refusal(api, {"HostConfig": {"Annotations": {"": "x"}}}) == (
        400,
        "invalid Annotations: the empty string is not permitted as an annotation key",
    )
    older = create(Client(daemon.socket, "1.42"), asked).expect(201).json["Id"]
    assert "Annotations" not in inspect(api, older)["HostConfig"]


@pytest.mark.parametrize(
    ("option", "wanted"), [("writable-cgroups=true", "made"), ("writable-cgroups=false", "")]
)
def test_writable_cgroups(api: Client, option: str, wanted: str) -> None:
    made = "/sys/fs/cgroup/made" if HOST.unified else "/sys/fs/cgroup/pids/made"
    script = f"mkdir {made} 2>/dev/null && rmdir {made} && echo made; true"
    host_config = {"SecurityOpt": [option], "CgroupnsMode": "private"}
    assert run(api, script, {"HostConfig": host_config}) == wanted


@proves("HostConfig.ContainerIDFile", "HostConfig.Cgroup", only="record")
def test_what_is_only_kept(api: Client) -> None:
    fields = {"ContainerIDFile": "/tmp/file", "Cgroup": "container:x"}
    found = inspect(api, create(api, {"HostConfig": fields}).expect(201).json["Id"])["HostConfig"]
    assert {name: found[name] for name in fields} == fields


@proves("HostConfig.AutoRemove")
def test_containers_that_remove_themselves(daemon: Longshored, api: Client) -> None:
    asked = {"Cmd": ["true"], "HostConfig": {"AutoRemove": True}}
    id = create(api, asked).expect(201).json["Id"]
    with api.stream("POST", f"/containers/{id}/wait", condition="removed") as answer:
        api.post(f"/containers/{id}/start").expect(204)
        assert b'"StatusCode":0' in answer.read()
    assert api.get(f"/containers/{id}/json").status == 404
    # With API 1.24 the client removed it.
    old = create(Client(daemon.socket, "1.24"), asked).expect(201).json["Id"]
    assert inspect(api, old)["HostConfig"]["AutoRemove"] is False


@proves("HostConfig.LogConfig.Type", "HostConfig.LogConfig.Config")
def test_the_log(api: Client) -> None:
    log = {"Type": "json-file", "Config": {"labels": "shown"}}
    id = start(api, {"Cmd": ["echo", "a"], "Labels": {"shown": "yes"}, "HostConfig": {"LogConfig": log}})
    api.post(f"/containers/{id}/wait").expect(200)
    (line,) = Path(inspect(api, id)["LogPath"]).read_text().splitlines()
    assert json.loads(line)["attrs"] == {"shown": "yes"}
    none = start(api, {"Cmd": ["echo", "a"], "HostConfig": {"LogConfig": {"Type": "none"}}})
    answer = api.get(f"/containers/{none}/logs", stdout=1)
    assert answer.message == "configured logging driver does not support reading"


@proves("HostConfig.RestartPolicy.Name", "HostConfig.RestartPolicy.MaximumRetryCount")
def test_restarts(api: Client) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    id = start(api, {"Cmd": ["false"], "HostConfig": {"RestartPolicy": policy}})
    api.post(f"/containers/{id}/wait").expect(200)
    assert inspect(api, id)["RestartCount"] == 2
    assert inspect(api, start(api, {"Cmd": ["false"]}))["RestartCount"] == 0


@proves("HostConfig.Runtime")
def test_the_runtime(tmp_path: Path, root: None, busybox_archive: Path) -> None:
    """A runtime that leaves a mark beside doing what runc does."""
    wrapper = tmp_path / "marking"
    wrapper.write_text(f'#!/bin/sh\ntouch {tmp_path}/mark\nexec runc "$@"\n')
    wrapper.chmod(0o755)
    daemon = Longshored("--add-runtime", f"marking={wrapper}")
    try:
        daemon.start()
        daemon.load(busybox_archive)
        api = Client(daemon.socket, "1.50")
        assert run(api, "echo plain", {}) == "plain"
        assert not (tmp_path / "mark").exists()
        assert run(api, "echo marked", {"HostConfig": {"Runtime": "marking"}}) == "marked"
        assert (tmp_path / "mark").exists()
        assert refusal(api, {"HostConfig": {"Runtime": "nosuch"}}) == (
            400,
            "unknown or invalid runtime name: nosuch",
        )
    finally:
        daemon.destroy()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        pytest.param(
            {"Count": -1, "Capabilities": [["gpu"]]},
            'could not select device driver "" with capabilities: [[gpu]]',
            marks=proves("HostConfig.DeviceRequests.Capabilities"),
        ),
        (
            {"Driver": "nvidia", "Capabilities": [["gpu", "x"], []]},
            'could not select device driver "nvidia" with capabilities: [[gpu x] []]',
        ),
        pytest.param(
            {"Driver": "nosuch"},
            'could not select device driver "nosuch" with capabilities: []',
            marks=proves("HostConfig.DeviceRequests.Driver"),
        ),
        pytest.param(
            {"Driver": "cdi", "Count": 1},
            "unexpected count in CDI device request",
            marks=proves("HostConfig.DeviceRequests.Count"),
        ),
        pytest.param(
            {"Driver": "cdi", "Options": {"a": "b"}},
            "unexpected options in CDI device request",
            marks=proves("HostConfig.DeviceRequests.Options"),
        ),
        (
            {"Driver": "cdi", "DeviceIDs": ["nosuch.org/x=y", "nosuch.org/x=z"]},
            "CDI device injection failed: unresolvable CDI devices nosuch.org/x=y, nosuch.org/x=z",
        ),
    ],
)
def test_devices_that_no_driver_has(api: Client, request_: dict[str, Any], message: str) -> None:
    assert refusal(api, {"HostConfig": {"DeviceRequests": [request_]}}) == (500, message)


CDI = """\
cdiVersion: "0.6.0"
kind: example.org/null
containerEdits:
  env: [VENDOR=everywhere]
devices:
- name: one
  containerEdits:
    env: [DEVICE=one]
    additionalGids: [77]
    deviceNodes:
    - path: /dev/one
      hostPath: /dev/null
      permissions: rw
    mounts:
    - hostPath: {0}/library
      containerPath: /usr/lib/vendor
      options: [ro, nosuid, nodev, bind]
    hooks:
    - hookName: createRuntime
      path: {0}/hook
      args: [hook, called]
"""


@pytest.fixture
def with_devices(root: None, tmp_path: Path, busybox_archive: Path) -> Iterator[Longshored]:
    """A daemon on a machine with a vendor's CDI files, and NVIDIA's hook."""
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/null.yaml").write_text(CDI.format(tmp_path))
    (tmp_path / "cdi/broken.json").write_text("{")
    for name in ("two", "three"):
        device = {
            "name": name,
            "containerEdits": {"env": [f"DEVICE={name}"], "mounts": [{}] * (name == "three")},
        }
        described = {"cdiVersion": "0.6.0", "kind": "example.org/other", "devices": [device]}
        (tmp_path / f"cdi/{name}.json").write_text(json.dumps(described))
    (tmp_path / "library").write_text("of the vendor\n")
    for name in ("hook", "nvidia-container-runtime-hook"):
        hook = tmp_path / name
        hook.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/{name}-called\n')
        hook.chmod(0o755)
    environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin:{tmp_path}"}
    daemon = Longshored("--cdi-spec-dir", str(tmp_path / "cdi"), env=environment)
    try:
        daemon.start()
        daemon.load(busybox_archive)
        yield daemon
    finally:
        daemon.destroy()


@proves("HostConfig.DeviceRequests.DeviceIDs")
def test_devices_that_vendors_describe(with_devices: Longshored, tmp_path: Path) -> None:
    daemon, api = with_devices, Client(with_devices.socket, "1.50")
    names = ["example.org/null=one", "example.org/other=two"]
    assert [device["ID"] for device in api.get("/info").json["DiscoveredDevices"]] == [
        names[0],
        "example.org/other=three",
        names[1],
    ]
    script = "cat /dev/one | wc -c; stat -c %t:%T /dev/one; cat /usr/lib/vendor; id -G; echo $VENDOR $DEVICE"
    asked = {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": names}]}
    assert run(api, script, {"HostConfig": asked}).splitlines() == [
        "0",
        "1:3",
        "of the vendor",
        "0 77",
        "everywhere two",
    ]
    three = {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["example.org/other=three"]}]}
    assert refusal(api, {"HostConfig": three}) == (
        500,
        f"CDI device injection failed: {tmp_path}/cdi/three.json: invalid edits of example.org/other=three",
    )
    assert (tmp_path / "hook-called").read_text() == "called\n"
    # As the CLI asks: --device with a vendor's name.
    found = daemon.docker.out("run", "--rm", "--device", names[1], "busybox", "sh", "-c", "echo $DEVICE")
    assert found == "two"


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        ({"Count": -1, "Capabilities": [["gpu"]]}, "all"),
        ({"Count": 2, "Capabilities": [["nosuch"], ["nvidia", "compute", "video"]]}, "0,1 compute,video"),
        ({"Driver": "nvidia", "DeviceIDs": ["GPU-1", "3"], "Capabilities": [["gpu"]]}, "GPU-1,3"),
        ({"Driver": "nvidia"}, "void"),
    ],
)
def test_gpus_as_far_as_nvidias_hook(
    with_devices: Longshored, tmp_path: Path, request_: dict[str, Any], wanted: str
) -> None:
    """There is no GPU here: what the hook and the container are told is looked at."""
    api = Client(with_devices.socket, "1.50")
    script = "echo $NVIDIA_VISIBLE_DEVICES $NVIDIA_DRIVER_CAPABILITIES"
    assert run(api, script, {"HostConfig": {"DeviceRequests": [request_]}}) == wanted
    assert (tmp_path / "nvidia-container-runtime-hook-called").read_text() == "prestart\n"


def test_older_clients(daemon: Longshored, api: Client) -> None:
    """What a version of the API does not have is ignored, and what had another default has it."""
    old = Client(daemon.socket, "1.39")
    fields = {"KernelMemoryTCP": 1 << 24, "ConsoleSize": [1, 2], "Annotations": {"a": "b"}}
    found = inspect(api, create(old, {"HostConfig": fields}).expect(201).json["Id"])["HostConfig"]
    assert found["IpcMode"] == "shareable"
    assert found["ConsoleSize"] == [0, 0]
    assert not {"KernelMemoryTCP", "Annotations"} & set(found)
    bind = {"Type": "bind", "Source": "/etc", "Target": "/x", "TmpfsOptions": {"SizeBytes": 1}}
    bind["BindOptions"] = {"NonRecursive": True, "CreateMountpoint": True}
    (kept,) = inspect(api, create(old, {"HostConfig": {"Mounts": [bind]}}).expect(201).json["Id"])[
        "HostConfig"
    ]["Mounts"]
    assert kept == {"Type": "bind", "Source": "/etc", "Target": "/x", "BindOptions": {}}


def test_sysctls_of_an_interface(daemon: Longshored, api: Client) -> None:
    option = "com.docker.network.endpoint.sysctls"
    asked = {"HostConfig": {"Sysctls": {"net.ipv4.conf.eth0.log_martians": "1"}}}
    made = create(Client(daemon.socket, "1.47"), asked).expect(201).json
    moved = "net.ipv4.conf.IFNAME.log_martians=1"
    assert made["Warnings"] == [
        f'Migrated sysctl "net.ipv4.conf.eth0.log_martians" to DriverOpts{{"{option}":"{moved}"}}.'
    ]
    found = inspect(api, made["Id"])
    assert found["NetworkSettings"]["Networks"]["bridge"]["DriverOpts"] == {option: moved}
    assert not found["HostConfig"].get("Sysctls")
    assert refusal(api, asked) == (
        500,
        'interface specific sysctl setting "net.ipv4.conf.eth0.log_martians" must be supplied using driver '
        f"option '{option}'",
    )


def test_storage_options_need_quotas(api: Client) -> None:
    assert refusal(api, {"HostConfig": {"StorageOpt": {"bogus": "1"}}}) == (400, "Unknown option bogus")
    assert refusal(api, {"HostConfig": {"StorageOpt": {"size": "x"}}}) == (400, "invalid size: 'x'")
    status, message = refusal(api, {"HostConfig": {"StorageOpt": {"size": "1g"}}})
    if message != "--storage-opt is supported only for overlay over xfs with 'pquota' mount option":
        pytest.skip("the daemon's data lie on a file system with project quotas")
    assert status == 400


@pytest.fixture
def on_xfs(root: None, tmp_path: Path, busybox_archive: Path) -> Iterator[Longshored]:
    """A daemon whose data lie on an XFS that counts by project."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("mkfs.xfs is not installed")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", disk], check=True)
    daemon = Longshored()
    daemon.data_root.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop,pquota", disk, daemon.data_root], capture_output=True)
    try:
        if mounted.returncode != 0:
            pytest.skip("this kernel has no XFS, or no quotas of it")
        daemon.start()
        daemon.load(busybox_archive)
        yield daemon
    finally:
        daemon.destroy()
        if mounted.returncode == 0:
            subprocess.run(["umount", daemon.data_root], check=True)
        shutil.rmtree(daemon.root, ignore_errors=True)


@proves("HostConfig.StorageOpt", needs="XFS with project quotas")
def test_the_size_of_a_container(on_xfs: Longshored) -> None:
    api = Client(on_xfs.socket, "1.50")
    script = "dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null; stat -c %s /big"
    limited = {"HostConfig": {"StorageOpt": {"size": "20m"}}}
    for _ in range(2):  # each has its own
        assert 15 << 20 < int(run(api, script, limited)) <= 20 << 20
        on_xfs.restart()
    assert int(run(api, script, {})) == 40 << 20
