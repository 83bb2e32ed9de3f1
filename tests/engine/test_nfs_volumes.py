"""Volumes of the local driver on an NFS server, which is the machine's own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import DockerCLI


def serving() -> bool:
    try:
        return int(Path("/proc/fs/nfsd/threads").read_text()) > 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not serving(), reason="no NFS server runs on this machine")


@pytest.fixture
def export(root: None) -> Iterator[Path]:
    """A directory that 127.0.0.1 may mount, and be root in; so is the way to it, for NFS 4 walks there."""
    shared = Path(tempfile.mkdtemp(prefix="lsh-nfs-"))
    shared.chmod(0o755)
    where = f"127.0.0.1:{shared}"
    subprocess.run(
        ["exportfs", "-o", "rw,no_root_squash,insecure,no_subtree_check,fsid=77", where], check=True
    )
    yield shared
    subprocess.run(["exportfs", "-u", where], check=True)
    shutil.rmtree(shared)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("nfs", "addr=localhost,rw,nfsvers=4"), ("nfs4", "addr=127.0.0.1,rw,hard,timeo=600")],
)
def test_a_volume_on_an_nfs_server(docker: DockerCLI, export: Path, kind: str, options: str) -> None:
    docker(
        *("volume", "create", "-o", f"type={kind}", "-o", f"o={options}", "-o", f"device=:{export}"),
        *("--name", "far"),
    )
    docker(
        "run", "--rm", "-v", "far:/far", "busybox", "sh", "-c", "echo there > /far/note; chown 7:8 /far/note"
    )
    note = export / "note"
    assert note.read_text() == "there\n" and (note.stat().st_uid, note.stat().st_gid) == (7, 8)
    docker("run", "-d", "--name", "one", "-v", "far:/far", "busybox", "sleep", "100")
    docker("run", "-d", "--name", "two", "-v", "far:/far:ro", "busybox", "sleep", "100")
    docker("exec", "one", "sh", "-c", "echo again > /far/note")
    assert docker.out("exec", "two", "cat", "/far/note") == "again"
    assert docker("exec", "two", "touch", "/far/x", check=False).returncode == 1
    assert "nfs" in docker.out("exec", "one", "grep", " /far ", "/proc/mounts")
    docker("rm", "-f", "one", "two")
    assert str(export) not in Path("/proc/mounts").read_text()


def test_what_the_server_does_not_share(docker: DockerCLI, export: Path) -> None:
    docker(
        *("volume", "create", "-o", "type=nfs", "-o", "o=addr=127.0.0.1,nfsvers=4"),
        *("-o", "device=:/no/such/directory", "--name", "far"),
    )
    done = docker("run", "--rm", "-v", "far:/far", "busybox", "true", check=False)
    assert done.returncode
    assert "error while mounting volume" in done.stderr and "no such file or directory" in done.stderr
