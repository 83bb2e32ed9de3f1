"""Single files of what a build came to, for clients that look into it before they decide."""

from __future__ import annotations

import os
import stat

from longshore.buildkit import gomode
from longshore.buildkit.progress import clean
from longshore.buildkit.proto import control_pb2 as pb
from longshore.engine.engine import Engine
from longshore.errors import NotFound, System
from longshore.linux.openat import openat2
from longshore.linux.rootfs_open import read_in_root


def read_file(engine: Engine, image: str, path: str) -> bytes:
    """The content of a file of the image. Blocks. Raises NotFound, System."""
    with engine.layers.view(engine.images.images.get(image).chain_id or None) as root:
        try:
            content = read_in_root(root, path)
        except OSError as exc:
            raise System(f"open {path}: {(exc.strerror or str(exc)).lower()}") from None
    if content is None:
        raise NotFound(f"open {path}: no such file or directory")
    return content


def stat_file(engine: Engine, image: str, path: str) -> pb.FileStat:
    """What a file of the image is; links are followed within it. Blocks. Raises NotFound."""
    with engine.layers.view(engine.images.images.get(image).chain_id or None) as root:
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            file = openat2(directory, path or ".", os.O_PATH)
        except OSError:
            raise NotFound(f"stat {path}: no such file or directory") from None
        finally:
            os.close(directory)
        try:
            found = os.fstat(file)
        finally:
            os.close(file)
    uid, gid = engine.layers.ids.to_container(found.st_uid, found.st_gid)
    return pb.FileStat(
        path=clean(os.path.basename(path)),  # noqa: PTH119
        mode=gomode.from_stat(found.st_mode),
        uid=uid,
        gid=gid,
        size=found.st_size if stat.S_ISREG(found.st_mode) else 0,
        modTime=found.st_mtime_ns,
    )
