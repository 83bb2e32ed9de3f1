"""Builds that take something from the web: contexts, repositories, single files."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from differential.builds import archive, build, error
from engine.test_build import CLASSIC, Files, builder, made, refused, text
from engine.test_build_v2 import offering, solve
from engine.test_pull_push import guarded
from harness import Longshored, SessionPeer
from harness.registry import PASSWORD, USER, Registry

__all__ = ["builder", "guarded"]

DOCKERFILE = "FROM busybox\nCOPY . /all\nRUN cat /all/f; ls -A /all\n"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def guess_type(self, path: object) -> str:
        return "text/plain" if str(path).endswith("file") else super().guess_type(str(path))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, and the directory that it serves."""
    root = tmp_path / "web"
    root.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def repository(web: tuple[str, Path], tmp_path: Path) -> str:
    """The URL of a repository: a branch `main`, a branch `other`, a tag `v1` of the first commit."""
    work, bare = tmp_path / "work", web[1] / "r.git"

    def git(*arguments: str, cwd: Path = work) -> None:
        identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)

    work.mkdir()
    git("init", "-q", "-b", "main")
    (work / "f").write_text("of v1\n")
    (work / "Dockerfile").write_text(DOCKERFILE)
    (work / "sub").mkdir()
    (work / "sub/Dockerfile").write_text("FROM busybox\nRUN echo of sub\n")
    (work / "ignored").write_text("")
    (work / ".dockerignore").write_text("ignored\n.git\n")
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")
    git("checkout", "-q", "-b", "other")
    (work / "f").write_text("of other\n")
    git("commit", "-q", "-a", "-m", "two")
    git("checkout", "-q", "main")
    (work / "f").write_text("of main\n")
    git("commit", "-q", "-a", "-m", "three")
    git("clone", "-q", "--bare", str(work), str(bare), cwd=tmp_path)
    git("update-server-info", cwd=bare)
    return f"{web[0]}/r.git"


@pytest.mark.parametrize(
    ("fragment", "content"),
    [("", "main"), ("#main", "main"), ("#other", "other"), ("#v1", "v1"), ("#:sub", "sub")],
)
def test_repositories_as_contexts(builder: Longshored, repository: str, fragment: str, content: str) -> None:
    shown = text(build(builder, b"", remote=repository + fragment))
    assert f"of {content}\n" in shown
    # What .dockerignore excludes is for clients to leave out: nobody has, here.
    assert ("\nignored\n" in shown) is (fragment != "#:sub")


@pytest.mark.parametrize("fragment", ["#nope", "#--upload-pack=touch", "#main:nope"])
def test_repositories_that_are_not_there(builder: Longshored, repository: str, fragment: str) -> None:
    answer = build(builder, b"", remote=repository + fragment)
    assert answer.status in (400, 500)


def test_an_archive_as_context(builder: Longshored, web: tuple[str, Path]) -> None:
    url, root = web
    files: Files = {"f": b"of tar\n", ".dockerignore": b"g", "g": b""}
    (root / "context.tar").write_bytes(archive(DOCKERFILE, files))
    shown = text(build(builder, b"", remote=f"{url}/context.tar"))
    assert "of tar\n" in shown
    assert "\ng\n" in shown  # as dockerd has it, which leaves what .dockerignore says to clients
    assert build(builder, b"", remote=f"{url}/nope.tar").status == 500
    assert build(builder, b"", remote="nonsense").status == 400


def test_a_dockerfile_as_context(builder: Longshored, web: tuple[str, Path]) -> None:
    url, root = web
    (root / "Dockerfile").write_text("FROM busybox\nRUN echo alone\n")
    assert "alone\n" in text(build(builder, b"", remote=f"{url}/Dockerfile"))


def test_adding_files_from_the_web(builder: Longshored, web: tuple[str, Path]) -> None:
    url, root = web
    (root / "a.txt").write_text("a file\n")
    (root / "a.tar").write_bytes(archive("", {"inside": b""}))
    digest = hashlib.sha256(b"a file\n").hexdigest()
    dockerfile = (
        f"FROM busybox\nADD --checksum=sha256:{digest} --chmod=604 {url}/a.txt /new/\n"
        f"ADD {url}/a.tar /tars/\n"
        "RUN cat /new/a.txt; stat -c '%a %u %n' /new/a.txt; ls /tars\n"
    )
    shown = made(builder, dockerfile)
    assert "a file\n604 0 /new/a.txt\na.tar\n" in shown
    assert made(builder, dockerfile).count("Using cache") == 3
    (root / "b.txt").write_text("a file\n")
    made(builder, f"FROM busybox\nADD {url}/a.txt /same/\nRUN ls /same\n")
    assert "\nb.txt\n" in made(builder, f"FROM busybox\nADD {url}/b.txt /same/\nRUN ls /same\n")
    (root / "a.txt").write_text("another\n")
    assert "digest mismatch" in refused(builder, dockerfile)
    assert "404" in refused(builder, f"FROM busybox\nADD {url}/nope /\n")
    assert "cannot determine filename" in refused(builder, f"FROM busybox\nADD {url}/ /\n")


def test_adding_repositories(builder: Longshored, repository: str) -> None:
    shown = made(
        builder,
        f"FROM busybox\nADD {repository}#v1 /r\nADD --keep-git-dir=true {repository}#main:. /k\n"
        "RUN cat /r/f /k/f; ls -A /r; ls -d /k/.git\n",
    )
    assert "of v1\nof main\n" in shown
    assert "\n/k/.git\n" in shown
    assert "\n.git\n" not in shown


def test_repositories_asked_for_in_a_query(builder: Longshored, repository: str, tmp_path: Path) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "v1"], cwd=tmp_path / "work", check=True, capture_output=True, text=True
    ).stdout.strip()
    shown = made(
        builder,
        f"FROM busybox\nADD {repository}?branch=other /o\n"
        f"ADD --checksum={commit[:7]} {repository}?tag=v1 /t\n"
        f"ADD {repository}?subdir=sub&keep-git-dir=false /s\nADD {repository}?commit={commit} /c\n"
        "RUN cat /o/f /t/f /c/f; ls -A /s\n",
    )
    assert "of other\nof v1\nof v1\nDockerfile\n" in shown
    assert "of v1\n" in text(build(builder, b"", remote=f"{repository}?ref=v1"))
    for step, why in (
        (f"--checksum={commit[:7]} {repository}", f"expected checksum to match {commit[:7]}"),
        (f"--checksum=sha256:00 {repository}", "invalid checksum"),
        (f"{repository}?nope=1", "unexpected query 'nope'"),
        (f"{repository}?ref=v1#main", "ref conflicts"),
        (f"{repository}?submodules=maybe", "invalid submodules value"),
    ):
        assert why in refused(builder, f"FROM busybox\nADD {step} /x\n")


def test_unpacking_as_asked(builder: Longshored, web: tuple[str, Path]) -> None:
    url, root = web
    tar = archive("", {"inside": b"in\n"})
    (root / "a.tar").write_bytes(tar)
    shown = made(
        builder,
        f"FROM busybox\nADD --unpack=true {url}/a.tar /u/\nADD --unpack=false a.tar /n/\n"
        "ADD --unpack a.tar /l/\nRUN ls /u /n /l\n",
        {"a.tar": tar},
    )
    assert "/l:\ninside\n\n/n:\na.tar\n\n/u:\ninside\n" in shown
    assert "a.tar\n" in made(builder, f"FROM busybox\nADD {url}/a.tar /u/\nRUN ls /u\n")


class _Guarded(_Quiet):
    """Tells what it was sent as credentials; /nothing is not there."""

    def do_GET(self) -> None:
        self.send_response(404 if self.path.startswith("/nothing") else 200)
        self.end_headers()
        self.wfile.write(f"[{self.headers.get('Authorization')}]\n".encode())


def test_passwords_in_urls_are_for_servers(builder: Longshored) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Guarded)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    host = f"127.0.0.1:{server.server_port}"
    try:
        step = archive(f"FROM busybox\nADD http://me:p%40ss@{host}/file /f\nRUN cat /f\n")
        assert f"[Basic {base64.b64encode(b'me:p@ss').decode()}]" in text(build(builder, step))
        urls = [f"http://me:p%40ss@{host}/nothing", f"http://me:p%40ss@{host}/nothing.git"]
        told = [build(builder, b"", remote=url).message for url in urls]
        told.append(error(build(builder, archive(f"FROM busybox\nADD {urls[0]} /f\n"))))
        told.append(build(builder, b"", remote="http://me:p%40ss@127.0.0.1:1/f").message)
        for each in told:
            assert "xxxxx:xxxxx@" in each or "127.0.0.1" in each, each
            assert "p%40ss" not in each and "p@ss" not in each
        assert "p%40ss" not in builder.log.read_text()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    """Sends to itself, or to a file of the machine."""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", "file:///etc/passwd" if "file" in self.path else self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_servers_that_send_elsewhere(builder: Longshored) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            assert "too many redirects" in refused(builder, f"FROM busybox\nADD {url}/self /x\n")
            assert "file" in refused(builder, f"FROM busybox\nADD {url}/file /x\n")
            assert build(builder, b"", remote=f"{url}/self").status == 500
            assert build(builder, b"", remote=f"{url}/file").status == 500
        finally:
            server.shutdown()
            thread.join()


def test_submodules_cannot_reach_files_of_the_machine(
    builder: Longshored, repository: str, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    environment = (
        "-c",
        "user.name=me",
        "-c",
        "user.email=me@example.org",
        "-c",
        "protocol.file.allow=always",
    )
    (tmp_path / "secret").mkdir()
    for arguments in (
        ("init", "-q", str(tmp_path / "secret")),
        ("-C", str(tmp_path / "secret"), "commit", "-q", "--allow-empty", "-m", "x"),
        ("submodule", "add", "-q", str(tmp_path / "secret"), "stolen"),
        ("commit", "-q", "-m", "evil"),
        ("push", "-q", "-f", str(tmp_path / "web/r.git"), "HEAD:refs/heads/evil"),
        ("-C", str(tmp_path / "web/r.git"), "update-server-info"),
    ):
        subprocess.run(["git", *environment, *arguments], cwd=work, check=True, capture_output=True)
    answer = build(builder, b"", remote=f"{repository}#evil")
    assert "transport 'file' not allowed" in error(answer)


def test_a_base_is_pulled_with_the_clients_credentials(
    builder: Longshored, guarded: Registry, tmp_path: Path
) -> None:
    docker, name = builder.docker, f"{guarded.address}/base:1"
    docker("login", "-u", USER, "-p", PASSWORD, guarded.address)
    try:
        docker("tag", "busybox", name)
        docker("push", name)
        docker("rmi", name)
        dockerfile = f"FROM {name}\nRUN true\n"
        # The archive of a context alone carries no credentials.
        assert "no basic auth credentials" in refused(builder, dockerfile)
        known = {guarded.address: (USER, PASSWORD)}
        with SessionPeer(builder.socket, credentials=known) as peer:
            made(builder, dockerfile, session=peer.id)
            assert peer.seen == [("credentials", guarded.address)]
        docker("rmi", "-f", "made:1", name)
        (tmp_path / "Dockerfile").write_text(dockerfile)
        built = docker("build", "-t", "pulled", ".", cwd=tmp_path, env=CLASSIC).stdout
        assert "Pulling from base" in built
        assert "Pulling from base" not in docker("build", ".", cwd=tmp_path, env=CLASSIC).stdout
        assert "Image is up to date" in docker("build", "--pull", ".", cwd=tmp_path, env=CLASSIC).stdout
        other = f"FROM --platform=linux/s390x {name}\n"
        (tmp_path / "Dockerfile").write_text(other)
        assert docker("build", ".", cwd=tmp_path, env=CLASSIC, check=False).returncode != 0
    finally:
        docker("logout", guarded.address)
        docker("rmi", "-f", name, "pulled", check=False)


def test_steps_are_found_in_an_image_of_a_registry(builder: Longshored, guarded: Registry) -> None:
    docker, name = builder.docker, f"{guarded.address}/cached:1"
    known = {"credentials": {guarded.address: (USER, PASSWORD)}}
    dockerfile = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two\n"
    with offering(builder, dockerfile, **known) as peer:
        first = solve(builder, peer, t=name).image
        docker("login", "-u", USER, "-p", PASSWORD, guarded.address)
        docker("push", name)
        docker("logout", guarded.address)
        docker("rmi", name)
        asked = {"cachefrom": json.dumps([name, f"{guarded.address}/nothing:1"])}
        again = solve(builder, peer, t="again:1", **asked)
    assert again.states["[2/3] RUN echo one > /one"] == again.states["[3/3] RUN echo two > /two"] == "cached"
    assert again.image == first
    assert again.states[f"importing cache manifest from {name}"] == "done"
    assert "not found" in again.states[f"importing cache manifest from {guarded.address}/nothing:1"]
    docker("rmi", "-f", name, "again:1")
