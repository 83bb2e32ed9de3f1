"""Images made on the spot: layers from dictionaries, written as docker-archive or OCI layout tars.

No daemon and no network is needed, and the same input gives the same bytes, so image ids can be asserted.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CREATED = "2024-01-01T00:00:00Z"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@dataclass(frozen=True)
class Layer:
    """Files by path: bytes are a file, None a directory, a string a symbolic link's target."""

    files: dict[str, bytes | str | None]
    modes: dict[str, int] = field(default_factory=dict)
    owners: dict[str, tuple[int, int]] = field(default_factory=dict)

    def tar(self) -> bytes:
        """The layer as an uncompressed tar."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(self.files):
                _add(archive, path, self.files[path], self.modes.get(path), self.owners.get(path, (0, 0)))
        return buffer.getvalue()


def _add(
    archive: tarfile.TarFile, path: str, content: bytes | str | None, mode: int | None, owner: tuple[int, int]
) -> None:
    entry = tarfile.TarInfo(path)
    entry.mtime = 1704067200
    entry.uid, entry.gid = owner
    if content is None:
        entry.type, entry.mode = tarfile.DIRTYPE, mode or 0o755
        archive.addfile(entry)
    elif isinstance(content, str):
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, content, 0o777
        archive.addfile(entry)
    else:
        entry.size, entry.mode = len(content), mode or 0o644
        archive.addfile(entry, io.BytesIO(content))


def find_busybox() -> Path:
    """A busybox that is linked statically: the machine's, or the one that `make setup` unpacked."""
    tools = Path(__file__).resolve().parents[2] / "build/tools"
    for candidate in (Path("/bin/busybox"), Path("/usr/bin/busybox"), *tools.glob("**/bin/busybox")):
        if candidate.exists():
            linked = subprocess.run(["ldd", candidate], capture_output=True, text=True)
            if "=>" not in linked.stdout:
                return candidate
    raise FileNotFoundError("there is no static busybox: run `make setup`")


class Busybox:
    """A root file system of busybox and a few users, as a layer."""

    @staticmethod
    def layer() -> Layer:
        program = find_busybox()
        applets = subprocess.run(
            [program, "--list"], capture_output=True, text=True, check=True
        ).stdout.split()
        files: dict[str, bytes | str | None] = dict.fromkeys(
            ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var", "www")
        )
        files["bin/busybox"] = program.read_bytes()
        files |= {f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"}
        files["etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n"
        files["etc/group"] = b"root:x:0:\nuser:x:1000:\nwheel:x:10:user\n"
        files["www/index.html"] = b"Hello from a container.\n"
        return Layer(files, modes={"bin/busybox": 0o755, "tmp": 0o1777, "root": 0o700})

    @staticmethod
    def archive(path: Path, tag: str = "busybox:latest", **config: Any) -> Path:
        """Write a docker-archive of it to `path`; `config` adds to the image's Config (Cmd is sh)."""
        docker_archive(path, [Busybox.layer()], [tag], {"Cmd": ["sh"], **config})
        return path


def _image_config(layers: list[bytes], config: dict[str, Any]) -> bytes:
    environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    return json.dumps(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "created": CREATED,
            "config": {"Env": environment, **config},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(tar)}" for tar in layers]},
            "history": [
                {"created": CREATED, "created_by": f"layer {number}"} for number in range(len(layers))
            ],
        },
        sort_keys=True,
    ).encode()


def docker_archive(
    path: Path, layers: list[Layer], tags: list[str], config: dict[str, Any] | None = None
) -> str:
    """Write what `docker save` writes and `docker load` reads; returns the image id (`sha256:…`)."""
    tars = [layer.tar() for layer in layers]
    image = _image_config(tars, config or {})
    image_id = _digest(image)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        names = []
        for number, tar in enumerate(tars):
            names.append(f"{number}-{_digest(tar)[:16]}/layer.tar")
            _add(archive, names[-1], tar, None, (0, 0))
        _add(archive, f"{image_id}.json", image, None, (0, 0))
        manifest = [{"Config": f"{image_id}.json", "RepoTags": tags or None, "Layers": names}]
        _add(archive, "manifest.json", json.dumps(manifest).encode(), None, (0, 0))
    return f"sha256:{image_id}"


def oci_archive(
    path: Path, layers: list[Layer], tags: list[str], config: dict[str, Any] | None = None
) -> str:
    """Write an OCI image layout in a tar, without the legacy manifest.json; returns the image id."""
    tars = [layer.tar() for layer in layers]
    image = _image_config(tars, config or {})
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", image),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", tar) for tar in tars],
        }
    ).encode()
    described = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    entries = [
        described | {"annotations": {"io.containerd.image.name": f"docker.io/library/{tag}"}} for tag in tags
    ]
    index = {"schemaVersion": 2, "manifests": entries or [described]}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', None, (0, 0))
        _add(archive, "index.json", json.dumps(index).encode(), None, (0, 0))
        for blob in {_digest(data): data for data in (*tars, image, manifest)}.items():
            _add(archive, f"blobs/sha256/{blob[0]}", blob[1], None, (0, 0))
    return f"sha256:{_digest(image)}"


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{_digest(data)}", "size": len(data)}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":  # images.py OUTPUT.tar [TAG]: the demonstration's image
    target = Path(sys.argv[1])
    temporary = target.with_suffix(f".{os.getpid()}")
    Busybox.archive(temporary, *sys.argv[2:3])
    shutil.move(temporary, target)
