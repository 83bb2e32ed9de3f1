"""docker cp, docker export and docker diff."""

from __future__ import annotations

import base64
import io
import json
import socket
import tarfile
import time
from pathlib import Path

import pytest
from harness import Client, DockerCLI, Longshored
from harness.http import Response


@pytest.fixture(params=["running", "stopped"])
def box(request: pytest.FixtureRequest, docker: DockerCLI) -> str:
    """A container with a volume on /data."""
    create = ("create", "--network", "none", "-v", "/data", "busybox", "sleep", "1000")
    id = docker.out(*create)
    docker("start", id)
    if request.param == "stopped":
        docker("kill", id)
    return id


def tar_of(name: str, content: bytes, **fields: object) -> bytes:
    """An archive of one entry."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        for field, value in fields.items():
            setattr(entry, field, value)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def ask(
    api: Client, method: str, box: str, path: str, body: bytes | None = None, **query: object
) -> Response:
    """A request about `path` in the container."""
    headers = {"Content-Type": "application/x-tar"} if body is not None else {}
    return api.request(
        method, f"/containers/{box}/archive", body, query={"path": path, **query}, headers=headers
    )


def test_a_tree_into_a_volume_and_back(docker: DockerCLI, box: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_bytes(b"x" * 3_000_000)
    (tree / "link").symlink_to("sub/file")
    docker("cp", str(tree), f"{box}:/data/")
    docker("cp", f"{box}:/data/tree", str(tmp_path / "back"))
    assert (tmp_path / "back/sub/file").read_bytes() == b"x" * 3_000_000
    assert (tmp_path / "back/link").readlink() == Path("sub/file")


def test_links_stay_inside_the_container(docker: DockerCLI, api: Client, box: str, tmp_path: Path) -> None:
    (tmp_path / "trap").symlink_to(tmp_path)
    docker("cp", str(tmp_path / "trap"), f"{box}:/trap")
    answer = ask(api, "PUT", box, "/trap/", tar_of("escaped", b"!"))
    assert answer.status == 404
    assert not (tmp_path / "escaped").exists()
    assert ask(api, "GET", box, "/trap/").status == 404
    escaping = ask(api, "PUT", box, "/data", tar_of("../../../../escaped", b"!"))
    assert escaping.status == 400


def test_stat_header(docker: DockerCLI, api: Client, box: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("../etc/passwd")
    docker("cp", str(tmp_path / "link"), f"{box}:/data/link")
    answer = ask(api, "HEAD", box, "/data/link").expect(200)
    found = json.loads(base64.b64decode(answer.headers["x-docker-container-path-stat"]))
    assert (found["name"], found["linkTarget"]) == ("link", "/etc/passwd")
    assert found["mode"] & 1 << 27


def test_what_is_not_there(docker: DockerCLI, api: Client, box: str) -> None:
    answer = ask(api, "GET", box, "/nosuch")
    assert answer.status == 404
    assert answer.message == f"Could not find the file /nosuch in container {box}"
    extraction = ask(api, "PUT", box, "/etc/passwd", tar_of("x", b""))
    assert extraction.status == 400
    assert extraction.message == "extraction point is not a directory"


def test_directories_are_kept_if_asked(api: Client, box: str) -> None:
    answer = ask(api, "PUT", box, "/", tar_of("etc", b""), noOverwriteDirNonDir=1)
    assert answer.status == 500
    assert "cannot overwrite directory" in answer.message
    assert ask(api, "GET", box, "/etc/passwd").status == 200


def test_whiteouts_are_files_like_any_other(docker: DockerCLI, api: Client, box: str) -> None:
    ask(api, "PUT", box, "/etc", tar_of(".wh.passwd", b"kept")).expect(200)
    assert ask(api, "GET", box, "/etc/passwd").status == 200
    assert ask(api, "GET", box, "/etc/.wh.passwd").status == 200


def test_export_and_diff(docker: DockerCLI, api: Client, box: str) -> None:
    ask(api, "PUT", box, "/", tar_of("added", b"new")).expect(200)
    assert "A /added" in docker.out("diff", box).splitlines()
    with tarfile.open(fileobj=io.BytesIO(api.get(f"/containers/{box}/export").body)) as archive:
        names = archive.getnames()
        content = archive.extractfile("added")
        assert content is not None
        assert content.read() == b"new"
    assert "bin/busybox" in names
    assert "etc/passwd" in names


def test_an_owner_beyond_the_kernels_numbers_is_the_archives_fault(api: Client, box: str) -> None:
    archive = bytearray(tar_of("file", b"x", uid=0))
    archive[108:116] = b"\x80" + b"\xff" * 7  # The owner in base 256, as GNU has it.
    archive[148:156] = b" " * 8
    archive[148:156] = b"%06o\0 " % sum(archive[:512])
    answer = ask(api, "PUT", box, "/tmp", bytes(archive))
    assert answer.status == 400
    assert "invalid tar header" in answer.json["message"]


@pytest.mark.parametrize("path", ["/images/load", "/containers/{box}/archive?path=/tmp"])
def test_a_client_that_breaks_off_is_no_error(api: Client, box: str, daemon: Longshored, path: str) -> None:
    seen = daemon.log.stat().st_size
    method = "PUT" if "archive" in path else "POST"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        head = f"{method} {path.format(box=box)} HTTP/1.1\r\nHost: d\r\nContent-Length: 100000\r\n\r\n"
        client.sendall(head.encode() + tar_of("manifest.json", b"[]" * 4000)[:5000])
        time.sleep(0.3)
    time.sleep(0.5)
    assert api.get("/_ping").status == 200
    with daemon.log.open("rb") as log:
        log.seek(seen)
        told = log.read().decode()
    assert "level=error" not in told
    assert "Traceback" not in told
