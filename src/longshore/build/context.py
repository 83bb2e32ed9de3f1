"""The build context: a directory filled from an archive, and the Dockerfile in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from longshore.build.patterns import IgnoreRules, clean, read_ignore_file
from longshore.errors import InvalidParameter
from longshore.layers.compression import decompressed
from longshore.layers.copying import CopyExtractor
from longshore.layers.idmap import IdMap
from longshore.layers.remove import remove_tree
from longshore.layers.tarstream import TarStream, refusing_damage
from longshore.linux.openat import openat2
from longshore.linux.rootfs_open import read_in_root

DEFAULT_DOCKERFILE = "Dockerfile"
IGNORE_FILE = ".dockerignore"


def unpack_context(
    archive: BinaryIO, directory: Path, ids: IdMap, check: Callable[[], None] = lambda: None
) -> None:
    """Fill `directory` from an archive, plain or compressed; owners are those that `ids` give. Blocks.

    Nothing in it leads out of `directory`, whatever its names and links say. `check` is called again and
    again, and may raise to end it. Raises InvalidParameter.
    """
    stream = TarStream(watched(decompressed(archive), check))
    with CopyExtractor(directory, ids, "/") as extractor:
        for entry in stream:
            with refusing_damage(entry):
                extractor.add(entry, stream.content())
    for _ in stream.rest():
        pass


def watched(read: Callable[[], bytes], check: Callable[[], None]) -> Callable[[], bytes]:
    """`read`, with a `check` before each chunk: a few bytes of an archive may stand for any number."""

    def checked() -> bytes:
        check()
        return read()

    return checked


def find_dockerfile(context: Path, name: str) -> bytes:
    """The content of the Dockerfile, which goes from the context if .dockerignore says so.

    Raises InvalidParameter if there is none, or nothing in it.
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
    rules = ignore_rules(context)
    if rules is not None:
        for path in (IGNORE_FILE, name):
            if rules.excludes(path):
                _remove(context, path)
    return content


def apply_ignore_file(context: Path, keep: str) -> None:
    """Remove what .dockerignore excludes, but neither itself nor the Dockerfile `keep`.

    A `.dockerignore` that is called after the Dockerfile goes before the common one. For contexts that no
    client has filtered. Raises InvalidParameter for a pattern that is none.
    """
    dockerfile = clean("/" + (keep or DEFAULT_DOCKERFILE)).lstrip("/")
    own = f"{dockerfile}{IGNORE_FILE}"
    rules = ignore_rules(context, own) or ignore_rules(context)
    if rules is None:
        return
    kept = {IGNORE_FILE, own, dockerfile}
    _filter(context, "", rules, kept)


def ignore_rules(context: Path, name: str = IGNORE_FILE) -> IgnoreRules | None:
    """What the context's .dockerignore says; None without one. Raises InvalidParameter."""
    content = _read(context, name)
    return None if content is None else IgnoreRules(read_ignore_file(content))


def _filter(directory: Path, prefix: str, rules: IgnoreRules, kept: set[str]) -> None:
    for there in sorted(directory.iterdir()):
        path = prefix + there.name
        if stat.S_ISDIR(there.lstat().st_mode):
            if not rules.excludes(path):
                _filter(there, f"{path}/", rules, kept)
            elif rules.takes_back or any(each.startswith(f"{path}/") for each in kept):
                _filter(there, f"{path}/", rules, kept)
                if not any(there.iterdir()):
                    there.rmdir()
            else:
                remove_tree(there)
        elif rules.excludes(path) and path not in kept:
            remove_tree(there)


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
