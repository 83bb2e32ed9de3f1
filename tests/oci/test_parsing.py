"""Mount specifications and checks of settings: Docker's values and words."""

from __future__ import annotations

from pathlib import Path

import pytest

from longshore.errors import InvalidParameter
from longshore.linux.host import HostFacts
from longshore.oci.mount_spec import mount_requests, parse_bind, parse_mount
from longshore.oci.validate import adapt_host_config, verify_host_config
from longshore.types.container import Config, HostConfig, RestartPolicy
from longshore.types.mount import Mount

HOST = HostFacts(
    cgroup_mode="hybrid",
    cpus=2,
    cpu_cfs=True,
    cpu_shares=True,
    cpuset=True,
    cpus_available="0-1",
    mems_available="0",
    memory_limit=True,
    ipv4_forwarding=True,
    oom_kill_disable=True,
)


def test_binds() -> None:
    bind = parse_bind("/a/../b:/c/:ro,z")
    assert (bind.type, bind.source, bind.destination, bind.rw, bind.propagation) == (
        "bind",
        "/b",
        "/c",
        False,
        "",
    )
    assert parse_bind("name:/c:nocopy").copy_data is False
    assert parse_bind("/c").name == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid volume specification: ''"),
        ("/a:ro", "invalid volume specification: '/a:ro'"),
        ("/a:/b:xx", "invalid mode: xx"),
        ("/a:/", "destination can't be '/'"),
        ("/a:b", "mount path must be absolute"),
    ],
)
def test_bad_binds(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message.replace("(", r"\(")):
        parse_bind(text)


def test_mount_source_must_exist(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(InvalidParameter) as caught:
        parse_mount(Mount(Type="bind", Source=missing, Target="/x"))
    expected = f'invalid mount config for type "bind": bind source path does not exist: {missing}'
    assert caught.value.message == expected


def test_duplicates() -> None:
    with pytest.raises(InvalidParameter, match="Duplicate mount point: /x"):
        mount_requests(Config(), HostConfig(Binds=["a:/x"], Tmpfs={"/x": ""}))


@pytest.mark.parametrize(
    ("host_config", "message"),
    [
        (HostConfig(Memory=1 << 20), "Minimum memory limit allowed is 6MB"),
        (
            HostConfig(NanoCpus=9 * 10**9),
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            HostConfig(CpusetCpus="9"),
            "Requested CPUs are not available - requested 9, available: 0-1",
        ),
        (HostConfig(CapAdd=["FOO"]), 'invalid capability: "FOO"'),
        (
            HostConfig(AutoRemove=True, RestartPolicy=RestartPolicy("always")),
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            HostConfig(NetworkMode="container:x", PublishAllPorts=True),
            "conflicting options: port publishing and the container type network mode",
        ),
        (HostConfig(IpcMode="what"), "invalid IPC mode: what"),
        (HostConfig(ExtraHosts=["x"]), 'bad format for add-host: "x"'),
    ],
)
def test_refused(host_config: HostConfig, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        verify_host_config(host_config, HOST, config=Config())
    assert caught.value.message == message


def test_what_the_host_cannot_do_is_taken_out() -> None:
    host_config = HostConfig(Memory=64 << 20)
    adapt_host_config(host_config, HOST)
    assert host_config.MemorySwap == 128 << 20
    assert verify_host_config(host_config, HOST) == [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
        "Memory limited without swap."
    ]
    assert host_config.MemorySwap == -1
