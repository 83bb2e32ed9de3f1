"""Registries on loopback: Debian's docker-registry, and one that misbehaves on request."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from harness.images import Layer

USER, PASSWORD = "user", "secret"
_HTPASSWD = "user:$2b$05$SMIksAub9903.klfT1kI5ezXl.GJ/GrPjNvRQRVRrwU4bprG1k95O"


class Registry:
    """A docker-registry with a storage of its own. `address` is host and port."""

    def __init__(
        self,
        *,
        auth: bool = False,
        certificate: tuple[Path, Path] | None = None,
        address: str = "",
        inside: Sequence[str] = (),
    ) -> None:
        """`inside` is a command that runs another in the namespaces where the registry shall be."""
        self.root = Path(tempfile.mkdtemp(prefix="lsh-registry-"))
        self.address = address or f"127.0.0.1:{free_port()}"
        self._inside = inside
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.root / "store")}},
            "http": {"addr": self.address},
        }
        if auth:
            (self.root / "htpasswd").write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "basic", "path": str(self.root / "htpasswd")}}
        if certificate:
            config["http"]["tls"] = {"certificate": str(certificate[0]), "key": str(certificate[1])}
        (self.root / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*inside, "docker-registry", "serve", str(self.root / "config.yml")], stdout=log, stderr=log
            )
        self._wait()

    @staticmethod
    def missing() -> bool:
        """Whether there is no such program here."""
        return shutil.which("docker-registry") is None

    def manifest(self, path: str, tag: str) -> tuple[str, dict[str, Any]]:
        """Digest and content of a manifest, as the registry has it."""
        request = urllib.request.Request(
            f"http://{self.address}/v2/{path}/manifests/{tag}",
            headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        )
        with urllib.request.urlopen(request) as answer:
            return str(answer.headers["Docker-Content-Digest"]), json.load(answer)

    def close(self) -> None:
        """End it and delete its storage."""
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.root, ignore_errors=True)

    def _wait(self) -> None:
        deadline = time.monotonic() + 15
        while not self._listens():
            assert self.process.poll() is None, (self.root / "log").read_text()
            assert time.monotonic() < deadline, "docker-registry does not answer"
            time.sleep(0.05)

    def _listens(self) -> bool:
        host, port = self.address.split(":")
        connect = f"import socket; socket.create_connection(({host!r}, {port}), 1).close()"
        probe = [*self._inside, sys.executable, "-c", connect]
        if self._inside:
            return subprocess.run(probe, capture_output=True).returncode == 0
        with suppress(OSError):
            socket.create_connection((host, int(port)), 1).close()
            return True
        return False


Behaviour = Callable[["_Handler"], bool]
"""Answers a request in its own way and returns True, or leaves it to the registry."""


class FakeRegistry:
    """A registry in this process whose answers a test can spoil. Counts what it was asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.behave: Behaviour = lambda _: False
        handler = type("Handler", (_Handler,), {"registry": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No more answers."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Store it; its descriptor."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def image(
        self,
        name: str,
        layers: list[Layer],
        *,
        compress: Callable[[bytes], bytes] = lambda tar: tar,
        architecture: str = "amd64",
        variant: str = "",
        oci: bool = False,
    ) -> dict[str, Any]:
        """Store an image under `name`, as in `team/app:tag`; its manifest's descriptor."""
        kind = "application/vnd.oci.image" if oci else "application/vnd.docker"
        tars = [layer.tar() for layer in layers]
        config = {
            "architecture": architecture,
            "os": "linux",
            "variant": variant,
            "config": {"Cmd": ["/bin/true"], "Labels": {"made": "here"}},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars],
            },
        }
        config_type = f"{kind}.config.v1+json" if oci else f"{kind}.container.image.v1+json"
        layer_type = f"{kind}.layer.v1.tar" if oci else f"{kind}.image.rootfs.diff.tar.gzip"
        manifest_type = f"{kind}.manifest.v1+json" if oci else f"{kind}.distribution.manifest.v2+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": self.blob(json.dumps(config).encode(), config_type),
            "layers": [self.blob(compress(tar), layer_type) for tar in tars],
        }
        return self.manifest(name, manifest, manifest_type)

    def manifest(self, name: str, document: dict[str, Any], media_type: str) -> dict[str, Any]:
        """Store it under `name`, and under its digest; its descriptor."""
        content = json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        path, _, tag = name.partition(":")
        self.manifests[f"{path}/manifests/{tag}"] = content, media_type
        self.manifests[f"{path}/manifests/{digest}"] = content, media_type
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def asked(self, method: str, part: str) -> int:
        """How many requests were made whose path has `part` in it."""
        return sum(1 for verb, path, _ in self.requests if verb == method and part in path)


class _Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry
    protocol_version = "HTTP/1.1"
    body = b""

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._receive()

    def do_PATCH(self) -> None:
        self._receive()

    def do_PUT(self) -> None:
        self._receive()

    def do_DELETE(self) -> None:
        self._receive()

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        """A whole answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def cut_off(self, content: bytes, keep: int) -> None:
        """Promise all of `content`, send its beginning, and hang up."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:keep])
        self.wfile.flush()
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def handle(self) -> None:
        """Clients that hang up are part of what is tested."""
        with suppress(ConnectionError, ssl.SSLError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""

    def _serve(self) -> None:
        registry = self.registry
        registry.requests.append((self.command, self.path, dict(self.headers)))
        if registry.behave(self):
            return
        path = self.path.removeprefix("/v2/")
        if not path:
            self.answer(200, b"{}")
        elif path in registry.manifests:
            content, media_type = registry.manifests[path]
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            self.answer(200, content, Content_Type=media_type, Docker_Content_Digest=digest)
        elif (digest := path.rpartition("/")[2]) in registry.blobs:
            self._blob(registry.blobs[digest])
        else:
            code = "MANIFEST_UNKNOWN" if "/manifests/" in path else "BLOB_UNKNOWN"
            error = {"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}
            self.answer(404, json.dumps(error).encode(), Content_Type="application/json")

    def _receive(self) -> None:
        """One request of an upload; what came so far is kept under its URL."""
        registry = self.registry
        registry.requests.append((self.command, self.path, dict(self.headers)))
        body = self.body = self._body()
        if registry.behave(self):
            return
        path, _, query = self.path.partition("?")
        name = path.removeprefix("/v2/")
        if self.command == "POST":
            location = f"{path}{len(registry.requests)}"
            registry.uploads[location] = b""
            self.answer(202, b"", Location=location)
        elif self.command == "DELETE":
            registry.uploads.pop(path, None)
            self.answer(204, b"")
        elif self.command == "PATCH":
            registry.uploads[path] += body
            self.answer(202, b"", Location=path)
        elif "/manifests/" in name:
            registry.manifests[name] = body, self.headers["Content-Type"]
            self.answer(201, b"")
        else:
            content = registry.uploads.pop(path) + body
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            wanted = unquote(query.rpartition("digest=")[2])
            registry.blobs |= {digest: content} if digest == wanted else {}
            self.answer(201 if digest == wanted else 400, b"{}")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _blob(self, content: bytes) -> None:
        start = self.headers.get("Range", "")
        if not start:
            self.answer(200, content)
            return
        offset = int(start.removeprefix("bytes=").rstrip("-"))
        rest = content[offset:]
        self.answer(206, rest, Content_Range=f"bytes {offset}-{len(content) - 1}/{len(content)}")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def gzipped(tar: bytes) -> bytes:
    """The same bytes for the same input."""
    import gzip

    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(tar)
    return buffer.getvalue()
