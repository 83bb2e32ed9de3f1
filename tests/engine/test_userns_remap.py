"""`--userns-remap`: root in a container is an ordinary user of the host, and nothing is the poorer for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from differential.builds import archive, build, error
from harness import Longshored

from longshore.engine.userns import parse_remapping
from longshore.errors import InvalidParameter
from longshore.linux.mount import MountFlags, mount, umount

OWNER = "nobody:daemon"
FIRST = 231072


@pytest.fixture
def subordinate_ids(root: None) -> Iterator[None]:
    """A range for the user `nobody` and the group `daemon`, taken away again."""
    files = {Path("/etc/subuid"): "nobody", Path("/etc/subgid"): "daemon"}
    before = {path: path.read_bytes() if path.exists() else None for path in files}
    try:
        for path, name in files.items():
            path.write_bytes((before[path] or b"") + f"{name}:{FIRST}:65536\n".encode())
        yield
    finally:
        for path, content in before.items():
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)


@pytest.fixture
def remapped(subordinate_ids: None, busybox_archive: Path) -> Iterator[Longshored]:
    daemon = Longshored("--userns-remap", OWNER)
    try:
        daemon.start()
        daemon.load(busybox_archive)
        yield daemon
    finally:
        daemon.destroy()


def test_root_is_remapped_and_has_its_own_network(remapped: Longshored) -> None:
    script = "cat /proc/self/uid_map; touch /x /vol/y; echo 1 > /proc/sys/net/ipv4/ip_forward; ip -4 addr"
    done = remapped.docker(
        "run",
        "--name",
        "re",
        "-v",
        "data:/vol",
        "--sysctl",
        "net.ipv4.ip_forward=0",
        "busybox",
        "sh",
        "-c",
        script,
    )
    assert done.stdout.split()[:3] == ["0", str(FIRST), "65536"]
    assert "eth0" in done.stdout
    root = remapped.data_root / f"{FIRST}.{FIRST}"
    layers = {path.name: path.stat() for path in root.glob("overlay2/*/diff/x")}
    assert [(one.st_uid, one.st_gid) for one in layers.values()] == [(FIRST, FIRST)]
    written = (root / "volumes/data/_data/y").stat()
    assert (written.st_uid, written.st_gid) == (FIRST, FIRST)


def test_work_directory_belongs_to_the_remapped_root(remapped: Longshored) -> None:
    remapped.docker("run", "-d", "--name", "up", "busybox", "sleep", "60")
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    work = next(
        option.removeprefix("workdir=")
        for line in mounts
        if str(remapped.data_root) in line and line.startswith("overlay")
        for option in line.split()[3].split(",")
        if option.startswith("workdir=")
    )
    owner = Path(work, "work").stat()
    assert (owner.st_uid, owner.st_gid) == (FIRST, FIRST)


def test_namespaces_can_be_shared_among_remapped_containers(remapped: Longshored) -> None:
    remapped.docker("run", "-d", "--name", "first", "-p", "18099:80", "busybox", "sleep", "60")
    seen = [
        remapped.docker("run", "--rm", *mode, "busybox", "ip", "-4", "addr", "show", "eth0").stdout
        for mode in (["--network", "container:first"], ["--network", "container:first", "--ipc", "none"])
    ]
    own = remapped.docker("exec", "first", "ip", "-4", "addr", "show", "eth0").stdout
    assert own and seen == [own, own]


@pytest.mark.proves("HostConfig.UsernsMode")
def test_the_hosts_namespaces_are_refused_but_with_userns_host(remapped: Longshored) -> None:
    for option in ("--privileged", "--network=host", "--pid=host"):
        refused = remapped.docker("run", "--rm", option, "busybox", "true", check=False)
        assert refused.returncode == 125 and "user namespaces" in refused.stderr, option
    allowed = remapped.docker(
        "run", "--rm", "--userns=host", "--network=host", "busybox", "cat", "/proc/self/uid_map"
    )
    assert allowed.stdout.split() == ["0", "0", "4294967295"]


def test_binds_keep_the_flags_that_a_user_namespace_may_not_take_off(
    remapped: Longshored, tmp_path: Path
) -> None:
    mount("confined", tmp_path, "tmpfs", MountFlags.NOSUID | MountFlags.NODEV | MountFlags.NOEXEC)
    try:
        found = remapped.docker.out(
            "run", "--rm", "-v", f"{tmp_path}:/x:ro", "busybox", "grep", " /x ", "/proc/mounts"
        )
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(found.split()[3].split(","))
    finally:
        umount(tmp_path)


def test_what_is_missing_is_named(subordinate_ids: None) -> None:
    with pytest.raises(InvalidParameter, match="no such user"):
        parse_remapping("nobody-knows-him")
    with pytest.raises(InvalidParameter, match="/etc/subuid: add a line such as daemon:100000:65536"):
        parse_remapping("daemon")
    assert parse_remapping("").root == (0, 0)
    assert parse_remapping(OWNER).root == (FIRST, FIRST)


def test_a_build_belongs_to_whom_it_does_in_the_container(remapped: Longshored) -> None:
    context = archive(
        "FROM busybox AS one\nRUN touch /made && chown 5:6 /made\nFROM busybox\n"
        "COPY --from=one /made /made\nCOPY --chown=user f /owned\nCOPY f /f\n"
        "RUN --mount=target=/c cat /c/f && touch /ran\n"
        "RUN --mount=type=cache,target=/k touch /k/x && stat -c '%u:%g' /made /owned /f /ran /k/x\n"
        "WORKDIR /w/d\nRUN touch mine && stat -c '%u %n' /w .\n",
        {"f": b"content"},
    )
    answer = build(remapped, context)
    assert not error(answer)
    assert b"0 /w\\n0 .\\n" in answer.body
    assert b"5:6\\n1000:1000\\n0:0\\n0:0\\n0:0\\n" in answer.body
    (cached,) = remapped.data_root.glob("*/builder/cache/*/data/x")
    assert cached.stat().st_uid == FIRST
