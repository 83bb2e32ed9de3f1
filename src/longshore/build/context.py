"""The build context: a directory filled from an archive, and the Dockerfile in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from longshore.build.patterns import IgnoreRules, clean, read_ignore_file
from longshore.build.sources import content_digest
from longshore.errors import InvalidParameter
from longshore.layers.compression import decompressed
from longshore.layers.copying import CopyExtractor
from longshore.layers.extract import clean as clean_name
from longshore.layers.idmap import IdMap
from longshore.layers.remove import remove_tree
from longshore.layers.tarstream import REGULAR, TarStream, refusing_damage
from longshore.linux.openat import openat2
from longshore.linux.rootfs_open import read_in_root

DEFAULT_DOCKERFILE = "Dockerfile"
IGNORE_FILE = ".dockerignore"
_SMALL = 64 << 10
_MOST_DIGESTS = 100_000


def unpack_context(
    archive: BinaryIO, directory: Path, ids: IdMap, check: Callable[[], None] = lambda: None
) -> dict[str, bytes]:
    """Fill `directory` from an archive, plain or compressed; owners are those that `ids` give. Blocks.

    Nothing in it leads out of `directory`, whatever its names and links say. `check` is called again and
    again, and may raise to end it. Returns the digests of small files' contents by their paths, so that most
    need not be read to be known. Raises InvalidParameter.
    """
    digests: dict[str, bytes] = {}
    stream = TarStream(watched(decompressed(archive), check))
    with CopyExtractor(directory, ids, "/") as extractor:
        for entry in stream:
            with refusing_damage(entry):
                # What a path was before counts no more, whatever takes its place.
                digests.pop(path := clean_name(entry.name), None)
                if entry.size > _SMALL or entry.type != REGULAR or entry.sparse is not None:
                    extractor.add(entry, stream.content())
                    continue
                extractor.add(entry, content := stream.all_content())
                if not entry.xattrs and len(digests) < _MOST_DIGESTS:
                    digests[path] = content_digest(content)
    for _ in stream.rest():
        pass
    return digests


def watched(read: Callable[[], bytes], check: Callable[[], None]) -> Callable[[], bytes]:
    """`read`, with a `check` before each chunk: a few bytes of an archive may stand for any number."""

    def checked() -> bytes:
        check()
        return read()

    return checked


def find_dockerfile(context: Path, name: str) -> bytes:
    """The content of the Dockerfile, which goes from the context if .dockerignore says so.

    So does .dockerignore; the rest of what it excludes is for clients to leave out, and theirs alone: of a
    context that no client has seen, everything is there. Nor does anybody but BuildKit's client look for
    a file of that name behind the Dockerfile's. Raises InvalidParameter if there is no Dockerfile, or nothing
    in it, or no pattern where one should be.
    """
    asked = name or DEFAULT_DOCKERFILE
    if clean(asked.lstrip("/")).split("/")[0] == "..":
        raise InvalidParameter(f"forbidden path outside the build context: {asked} ()")
    name = clean("/" + asked).lstrip("/")
    content = _read(context, name)
    if content is None and name == DEFAULT_DOCKERFILE:
        name = name.lower()
        content = _read(context, name)
    if content is None:
        raise InvalidParameter(f"Cannot locate specified Dockerfile: {asked}")
    if not content:
        raise InvalidParameter(f"the Dockerfile ({name}) cannot be empty")
    ignore_file = _read(context, IGNORE_FILE)
    if ignore_file is not None:
        rules = IgnoreRules(read_ignore_file(ignore_file))
        for path in (IGNORE_FILE, name):
            if rules.excludes(path):
                _remove(context, path)
    return content


def _read(context: Path, name: str) -> bytes | None:
    try:
        return read_in_root(context, name)
    except OSError as exc:
        raise InvalidParameter(f"{name}: {(exc.strerror or str(exc)).lower()}") from None


def _remove(context: Path, path: str) -> None:
    """Remove a file of the context; its directory may be reached by links, but only within."""
    parent, _, base = path.rpartition("/")
    root = os.open(context, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directory = openat2(root, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    finally:
        os.close(root)
    try:
        remove_tree(base, dir_fd=directory)
    finally:
        os.close(directory)
