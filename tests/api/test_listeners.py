"""Where the API listens."""

from __future__ import annotations

import grp
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from longshore.api.listeners import listen
from longshore.config import Config
from longshore.errors import InvalidParameter, System


def test_the_socket_is_for_root_and_the_group(root: None, tmp_path: Path) -> None:
    path = tmp_path / "made" / "api.sock"
    ((sock, context),) = listen(f"unix://{path}", Config(group="daemon"))
    with sock:
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o660
        assert (status.st_uid, status.st_gid) == (0, grp.getgrnam("daemon").gr_gid)
        assert context is None


def test_a_group_that_does_not_exist(root: None, tmp_path: Path) -> None:
    with pytest.raises(System, match="group nosuchgroup not found"):
        listen(f"unix://{tmp_path}/api.sock", Config(group="nosuchgroup"))


def test_a_stale_socket_is_replaced(root: None, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    ((sock, _),) = listen(f"unix://{path}", Config())
    with sock, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(System, match="another daemon listens on it"):
            listen(f"unix://{path}", Config())
    assert path.exists()


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(System, match="no socket is in the way"):
        listen(f"unix://{path}", Config())
    assert path.read_text() == "precious"


def test_tcp_without_tls_warns(caplog: pytest.LogCaptureFixture) -> None:
    for sock, _ in listen("tcp://127.0.0.1:0", Config()):
        sock.close()
    assert "insecure and gives root access" in caplog.text


def test_tls_files_must_be_usable() -> None:
    with pytest.raises(System, match="invalid TLS configuration: cannot use /nonexistent/cert"):
        listen(
            "tcp://127.0.0.1:0", Config(tls=True, tlscert="/nonexistent/cert.pem", tlskey="/nonexistent/k")
        )


@pytest.mark.parametrize("host", ["nonsense", "npipe:////./pipe/docker_engine", "tcp://", "tcp://h:1/path"])
def test_hosts_that_make_no_sense(host: str) -> None:
    with pytest.raises(InvalidParameter):
        listen(host, Config())


def test_no_socket_from_systemd() -> None:
    with pytest.raises(System, match="no sockets found via socket activation"):
        listen("fd://", Config())


def test_sockets_from_systemd(tmp_path: Path) -> None:
    path = tmp_path / "activated.sock"
    program = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
        "from longshore.api.listeners import listen; from longshore.config import Config; "
        "((sock, _),) = listen('fd://', Config()); "
        "print(sock.getsockname(), os.get_inheritable(sock.fileno()), os.environ.get('LISTEN_FDS'))"
    )
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen()
        # systemd passes sockets as the descriptors from 3 on.
        command = [sys.executable, "-c", program, str(passed.fileno())]
        done = subprocess.run(
            command,
            env={**os.environ, "LISTEN_FDS": "1", "PYTHONPATH": ":".join(sys.path)},
            pass_fds=[passed.fileno()],
            capture_output=True,
            text=True,
        )
    assert done.stdout == f"{path} False None\n", done.stderr
