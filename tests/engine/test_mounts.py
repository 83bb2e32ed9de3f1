"""Volumes, binds and tmpfs as a container's process finds them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Busybox, Client, DockerCLI, Layer, Longshored, daemon_message, docker_archive


@pytest.fixture(scope="module")
def populated(daemon: Longshored, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with something to copy up, a VOLUME, and links where mounts go."""
    files = {
        "data": None,
        "data/file": b"of the image\n",
        "data/sub/deep": b"deep\n",
        "declared/here": b"declared\n",
        "target": None,
        "link": "/target",
        "escape": "../../../../../../tmp",
    }
    archive = tmp_path_factory.mktemp("populated") / "populated.tar"
    layer = Layer(files, modes={"data": 0o750, "data/file": 0o640}, owners={"data": (1000, 10)})
    config = {"Cmd": ["sh"], "Volumes": {"/declared": {}}}
    docker_archive(archive, [Busybox.layer(), layer], ["populated:latest"], config)
    daemon.load(archive)
    yield "populated"
    daemon.reset()
    daemon.docker("rmi", "populated")


def sh(docker: DockerCLI, *options: str, script: str, image: str = "busybox") -> str:
    return docker.out("run", "--rm", *options, image, "sh", "-c", script)


def refused(docker: DockerCLI, *options: str) -> str:
    done = docker("run", "--rm", *options, "busybox", "true", check=False)
    assert done.returncode == 125, done
    return daemon_message(done)


def mounts(docker: DockerCLI, name: str) -> dict[str, dict[str, Any]]:
    found = json.loads(docker.out("inspect", "-f", "{{json .Mounts}}", name))
    return {mount["Destination"]: mount for mount in found}


@pytest.mark.proves("HostConfig.Binds")
def test_a_host_directory_is_made_if_missing(docker: DockerCLI, tmp_path: Path) -> None:
    source = tmp_path / "made" / "deep"
    sh(docker, "-v", f"{source}:/x", script="echo hello > /x/file")
    assert (source / "file").read_text() == "hello\n"
    assert (source.stat().st_uid, source.stat().st_mode & 0o777) == (0, 0o755)


@pytest.mark.proves("HostConfig.Binds", "Mount.ReadOnly")
def test_read_only_binds(docker: DockerCLI, tmp_path: Path) -> None:
    for option in (
        ("-v", f"{tmp_path}:/x:ro"),
        ("--mount", f"type=bind,src={tmp_path},dst=/x,readonly"),
    ):
        assert sh(docker, *option, script="touch /x/y 2>/dev/null || echo refused") == "refused"
    assert list(tmp_path.iterdir()) == []


def test_single_files_and_sockets(docker: DockerCLI, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        script = "cat /etc/new/file; test -S /run/docker.sock && echo socket; echo more >> /etc/new/file"
        options = ("-v", f"{tmp_path}/file:/etc/new/file", "-v", f"{tmp_path}/sock:/run/docker.sock")
        assert sh(docker, *options, script=script).split() == ["bound", "socket"]
    assert (tmp_path / "file").read_text() == "bound\nmore\n"


def test_deeper_mounts_lie_on_shallower_ones(docker: DockerCLI, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    options = ("-v", f"{tmp_path}/c:/m/b/c", "-v", f"{tmp_path}/a:/m", "-v", f"{tmp_path}/b:/m/b:ro")
    (tmp_path / "b" / "c").mkdir()
    assert sh(docker, *options, script="ls /m /m/b /m/b/c | tr '\\n' ' '") == "/m: a b  /m/b: b c  /m/b/c: c "


def test_a_bind_over_a_link_of_the_image_lands_inside(
    docker: DockerCLI, populated: str, tmp_path: Path
) -> None:
    (tmp_path / "mark").touch()
    assert sh(docker, "-v", f"{tmp_path}:/link", script="ls /target", image=populated) == "mark"
    before = sorted(os.listdir("/tmp"))  # noqa: PTH208
    found = sh(docker, "-v", f"{tmp_path}:/escape/inside", script="ls /tmp/inside", image=populated)
    assert found == "mark"
    assert "inside" not in set(os.listdir("/tmp")) - set(before)  # noqa: PTH208


def test_propagation(docker: DockerCLI, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "sub").mkdir(parents=True)
    message = f"path {shared} is mounted on / but it is not a shared mount"
    if "shared:" not in _mountinfo_of("/"):
        assert refused(docker, "-v", f"{shared}:/x:shared") == message
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    subprocess.run(["mount", "--make-shared", shared], check=True)
    try:
        docker("run", "-d", "--name", "slave", "-v", f"{shared}:/x:rslave", "busybox", "sleep", "600")
        subprocess.run(["mount", "-t", "tmpfs", "late", shared / "sub"], check=True)
        (shared / "sub" / "late").touch()
        pid = docker.out("inspect", "-f", "{{.State.Pid}}", "slave")
        assert os.listdir(f"/proc/{pid}/root/x/sub") == ["late"]  # noqa: PTH208
        assert mounts(docker, "slave")["/x"]["Propagation"] == "rslave"
    finally:
        docker("rm", "-f", "slave")
        subprocess.run(["umount", shared / "sub"], check=False)
        subprocess.run(["umount", shared], check=True)


def _mountinfo_of(point: str) -> str:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return next(line for line in lines if line.split()[4] == point)


@pytest.mark.proves("HostConfig.Tmpfs", "Mount.TmpfsOptions.SizeBytes", "Mount.TmpfsOptions.Mode")
def test_tmpfs(docker: DockerCLI) -> None:
    short = sh(docker, "--tmpfs", "/t:size=1m,mode=1750", script="grep ' /t ' /proc/mounts; stat -c %a /t")
    assert "size=1024k" in short
    assert "noexec" in short
    assert short.endswith("1750")
    long = "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700"
    found = sh(docker, "--mount", long, script="grep ' /t ' /proc/mounts; stat -c %a /t")
    assert "size=1024k" in found
    assert found.endswith("700")


def test_volumes_keep_what_is_written(docker: DockerCLI) -> None:
    sh(docker, "-v", "kept:/x", script="echo one > /x/file")
    assert (
        sh(docker, "-v", "kept:/y:ro", script="cat /y/file; touch /y/z 2>/dev/null || echo ro") == "one\nro"
    )


def test_an_empty_volume_takes_over_the_images_content(docker: DockerCLI, populated: str) -> None:
    script = "cat /data/file /data/sub/deep; stat -c '%u:%g %a' /data; stat -c %a /data/file"
    wanted = "of the image\ndeep\n1000:10 750\n640"
    assert sh(docker, "-v", "filled:/data", script=script, image=populated) == wanted
    point = Path(docker.out("volume", "inspect", "-f", "{{.Mountpoint}}", "filled"))
    assert (point / "file").read_text() == "of the image\n"
    assert (point.stat().st_uid, point.stat().st_gid) == (1000, 10)
    assert sh(docker, "-v", "bare:/data:nocopy", script="ls /data", image=populated) == ""
    (point / "file").write_text("changed\n")
    assert sh(docker, "-v", "filled:/data", script="cat /data/file", image=populated) == "changed"


@pytest.mark.proves("ContainerConfig.Volumes")
def test_anonymous_volumes_go_with_rm_v(docker: DockerCLI, populated: str) -> None:
    docker("run", "--name", "anon", "-v", "/extra", "-v", "named:/named", populated, "cat", "/declared/here")
    names = {where: mount["Name"] for where, mount in mounts(docker, "anon").items()}
    assert set(names) == {"/declared", "/extra", "/named"}
    assert len(names["/declared"]) == 64
    docker("rm", "-v", "anon")
    assert docker.out("volume", "ls", "-q").split() == ["named"]


def test_rm_without_v_keeps_them(docker: DockerCLI) -> None:
    docker("run", "--name", "anon", "-v", "/extra", "busybox", "true")
    docker("rm", "anon")
    assert len(docker.out("volume", "ls", "-q").split()) == 1


def test_run_rm_takes_anonymous_volumes_along(docker: DockerCLI, populated: str) -> None:
    docker("run", "--rm", "-v", "/extra", "-v", "named:/named", populated, "true")
    assert docker.out("volume", "ls", "-q").split() == ["named"]


def test_a_volume_in_use_is_kept(docker: DockerCLI) -> None:
    id = docker.out("create", "--name", "user", "-v", "used:/x", "busybox")
    done = docker("volume", "rm", "used", check=False)
    assert daemon_message(done) == f"remove used: volume is in use - [{id}]"
    docker("rm", "user")
    docker("volume", "rm", "used")


@pytest.mark.proves("HostConfig.VolumesFrom")
def test_volumes_from(docker: DockerCLI, populated: str, tmp_path: Path) -> None:
    docker(
        "run", "--name", "donor", "-v", "shared:/shared", "-v", f"{tmp_path}:/bound:ro", populated,
        "sh", "-c", "echo given > /shared/file; echo more > /declared/more",
    )  # fmt: skip
    script = (
        "cat /shared/file /declared/more; touch /bound/x 2>/dev/null || echo ro; touch /shared/y; ls /shared"
    )
    wanted = ["given", "more", "ro", "file", "y"]
    assert sh(docker, "--volumes-from", "donor", script=script).split() == wanted
    script = "touch /shared/z 2>/dev/null || echo ro"
    assert sh(docker, "--volumes-from", "donor:ro", script=script) == "ro"
    assert docker.out("run", "--rm", "--volumes-from", "donor", populated, "cat", "/declared/more") == "more"
    docker("rm", "-v", "donor")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["-v", "/tmp:/x:bogus"],
            "invalid mode: bogus",
        ),
        (
            ["-v", "/tmp:/"],
            "invalid volume specification: '/tmp:/': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'",
        ),
        (
            ["-v", "/tmp:x"],
            "invalid volume specification: '/tmp:x': invalid mount config for type \"bind\": "
            "invalid mount path: 'x' mount path must be absolute",
        ),
        (
            ["-v", "relative/p:/x"],
            'create relative/p: "relative/p" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path",
        ),
        (
            ["--mount", "type=bind,src=/no/such/path,dst=/x"],
            'invalid mount config for type "bind": bind source path does not exist: /no/such/path',
        ),
        (
            ["--mount", "type=foo,dst=/x"],
            'invalid mount config for type "foo": mount type unknown',
        ),
        (
            ["--mount", "type=bind,src=/tmp,dst=/x,bind-propagation=bogus"],
            'invalid mount config for type "bind": invalid propagation mode: bogus',
        ),
        (
            ["--mount", "type=tmpfs,dst=/x", "--tmpfs", "/x"],
            "Duplicate mount point: /x",
        ),
        (["--volumes-from", "nosuch"], "No such container: nosuch"),
    ],
)
def test_mounts_that_cannot_be(docker: DockerCLI, options: list[str], message: str) -> None:
    assert refused(docker, *options) == message
    assert docker.out("ps", "-aq") == ""


def test_how_inspect_shows_mounts(api: Client, docker: DockerCLI, tmp_path: Path) -> None:
    docker(
        "create", "--name", "shown", "-v", f"{tmp_path}:/bind:ro", "-v", "named:/named", "--tmpfs", "/t",
        "--mount", "type=tmpfs,dst=/mt", "busybox",
    )  # fmt: skip
    shown = {mount["Destination"]: mount for mount in api.get("/containers/shown/json").json["Mounts"]}
    assert shown["/bind"] == {
        "Type": "bind",
        "Source": str(tmp_path),
        "Destination": "/bind",
        "Mode": "ro",
        "RW": False,
        "Propagation": "rprivate",
    }
    point = docker.out("volume", "inspect", "-f", "{{.Mountpoint}}", "named")
    assert shown["/named"] == {
        "Type": "volume",
        "Name": "named",
        "Source": point,
        "Destination": "/named",
        "Driver": "local",
        "Mode": "z",
        "RW": True,
        "Propagation": "",
    }
    assert "/t" not in shown
    assert shown["/mt"]["Type"] == "tmpfs"
