"""Images, as the API has them: load, import, save, list, inspect, history, tag, remove, prune."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any, BinaryIO, cast

from longshore.engine.bridges import BodyReader, chunks_of, messages_of
from longshore.engine.engine import Engine
from longshore.engine.version import API_VERSION
from longshore.errors import InvalidParameter, NotFound
from longshore.images.describe import as_of_version, summaries_as_of_version
from longshore.images.load import Platform
from longshore.images.reference import parse
from longshore.images.remove import InUse, Use
from longshore.types.container import Config
from longshore.types.filters import Filters
from longshore.types.image import (
    ImageDeleteItem,
    ImageHistoryItem,
    ImageInspect,
    ImagesPruneReport,
    ImageSummary,
)

Message = dict[str, Any]


async def image_load(
    engine: Engine, body: AsyncIterator[bytes], quiet: bool = True, platforms: Iterable[str] = ()
) -> AsyncIterator[Message]:
    """POST /images/load: progress messages. A bad archive raises InvalidParameter and leaves nothing."""
    wanted = _platform(next(iter(platforms), ""))
    reader = BodyReader(body)

    async def messages() -> AsyncIterator[Message]:
        def work(emit: Any) -> list[str]:
            return engine.images.load(_buffered(reader), emit, quiet, wanted)

        try:
            async for message in messages_of(work):
                yield message
                if (name := str(message.get("stream", ""))).startswith("Loaded image"):
                    _loaded_event(engine, name)
        finally:
            reader.cancel()

    return messages()


async def image_import(
    engine: Engine,
    source: str,
    repo: str,
    tag: str,
    message: str,
    changes: list[str],
    platform: str,
    body: AsyncIterator[bytes],
) -> AsyncIterator[Message]:
    """POST /images/create?fromSrc=-: an image of one layer from the archive of a file system."""
    if source != "-":
        raise InvalidParameter(
            f"cannot import from {source}: fetch the archive and pipe it, "
            "as in `docker import - < archive.tar`"
        )
    from longshore.build.changes import apply_changes

    wanted = _platform(platform)
    config = apply_changes(Config(), changes)
    reader = BodyReader(body)

    async def messages() -> AsyncIterator[Message]:
        def work(emit: Any) -> str:
            return engine.images.import_(_buffered(reader), repo, tag, message, config, wanted, emit, source)

        try:
            async for line in messages_of(work):
                if (id := str(line.get("status", ""))).startswith("sha256:"):
                    if repo:
                        image_event(
                            engine, "tag", id, f"{repo}:{tag}" if tag else parse(repo).tagged.familiar
                        )
                    image_event(engine, "import", id, id)
                yield line
        finally:
            reader.cancel()

    return messages()


async def image_save(engine: Engine, names: list[str], platforms: Iterable[str] = ()) -> AsyncIterator[bytes]:
    """GET /images/get: one archive of all the named images. Raises NotFound, InvalidParameter."""
    del platforms  # Every image here has one platform; resolve() below says if the name is unknown.
    if not names:
        raise InvalidParameter("no image names given")
    for name in names:
        await _known(engine, name)
        try:
            id = engine.images.resolve(name).id
        except NotFound:
            id = name  # of all tags of a repository
        image_event(engine, "save", id, id)
    return chunks_of(lambda write: engine.images.save(names, write))


async def image_list(
    engine: Engine,
    all: bool = False,
    filters: Filters | None = None,
    shared_size: bool = False,
    digests: bool = False,
    manifests: bool = False,
    version: tuple[int, ...] = API_VERSION,
    *,
    count_containers: bool = False,
) -> list[ImageSummary]:
    """GET /images/json, newest first. Raises InvalidParameter for a filter that does not exist."""
    del digests, manifests
    in_use = _in_use(engine) if count_containers else None
    found = await asyncio.to_thread(engine.images.list, filters or {}, all, shared_size, in_use)
    return summaries_as_of_version(found, version)


async def image_inspect(
    engine: Engine, name: str, version: tuple[int, ...] = API_VERSION, platform: str = ""
) -> ImageInspect:
    """GET /images/{name}/json, as the API version has it. Raises NotFound."""
    check_platform(engine, name, platform)
    return as_of_version(await asyncio.to_thread(engine.images.inspect, name), version)


async def image_history(engine: Engine, name: str, platform: str = "") -> list[ImageHistoryItem]:
    """GET /images/{name}/history. Raises NotFound."""
    check_platform(engine, name, platform)
    return await asyncio.to_thread(engine.images.history, name)


async def image_tag(engine: Engine, name: str, repo: str, tag: str) -> None:
    """POST /images/{name}/tag. Raises NotFound, InvalidParameter."""
    image = engine.images.resolve(name)
    reference = await asyncio.to_thread(engine.images.tag, name, repo, tag)
    image_event(engine, "tag", image.id, reference.familiar)


async def image_delete(
    engine: Engine, name: str, force: bool = False, noprune: bool = False, platform: str = ""
) -> list[ImageDeleteItem]:
    """DELETE /images/{name}. Raises NotFound, Conflict for an image in use."""
    check_platform(engine, name, platform)
    id = engine.images.resolve(name).id
    known = {image.id for image in engine.images.images.all()}
    items = await asyncio.to_thread(engine.images.delete, name, force, noprune, _in_use(engine))
    _removal_events(engine, items, known, id)
    return items


async def images_prune(engine: Engine, filters: Filters) -> ImagesPruneReport:
    """POST /images/prune. Raises InvalidParameter for a filter that does not exist."""
    known = {image.id for image in engine.images.images.all()}
    report = await asyncio.to_thread(engine.images.prune, filters, _in_use(engine))
    _removal_events(engine, report.ImagesDeleted or [], known)
    engine.events.publish("image", "prune", "", {"reclaimed": str(report.SpaceReclaimed)})
    return report


def check_platform(engine: Engine, name: str, platform: str) -> None:
    """Raises NotFound if the image does not run on `platform`; an empty one is any."""
    if not platform:
        return
    from longshore.images.registry.platforms import Platform, parse_platform, rank

    wanted = parse_platform(platform)
    image = engine.images.resolve(name)
    actual = Platform(image.os, image.architecture, image.variant)
    if rank(wanted, actual) is None:
        raise NotFound(
            f"image with reference {name} was found but its platform ({actual}) "
            f"does not match the specified platform ({wanted})"
        )


def _removal_events(
    engine: Engine, items: Sequence[ImageDeleteItem], known: Collection[str], id: str = ""
) -> None:
    """Of what was removed, names and images have events, layers have none.

    `known` are the images that there were. The names are of the image `id`, or of the one removed next.
    """
    for index, item in enumerate(items):
        if item.Untagged:
            of = id or next((each.Deleted for each in items[index:] if each.Deleted in known), "")
            image_event(engine, "untag", of, of)
        elif item.Deleted in known:
            image_event(engine, "delete", item.Deleted, item.Deleted)


def _in_use(engine: Engine) -> InUse:
    """Who uses which image now; a snapshot, safe to ask from a thread."""
    uses: dict[str, list[Use]] = {}
    for container in engine.containers:
        uses.setdefault(container.record.Image, []).append(Use(container.id, container.state.Running))
    return lambda image_id: uses.get(image_id, [])


async def _known(engine: Engine, name: str) -> None:
    try:
        engine.images.resolve(name)
    except NotFound:
        # A repository without a tag stands for all its tags.
        if not await asyncio.to_thread(engine.images.list, {"reference": [name]}):
            raise NotFound(f"No such image: {name}") from None


def _loaded_event(engine: Engine, text: str) -> None:
    name = text.partition(": ")[2].strip()
    try:
        id = engine.images.resolve(name).id
        image_event(engine, "load", id, id)
    except NotFound:
        return  # Removed again already.


def image_event(engine: Engine, action: str, id: str, name: str) -> None:
    """Tell listeners what happened to an image, with its labels while it is there."""
    attributes = {"name": name}
    with contextlib.suppress(NotFound, InvalidParameter):
        attributes = {**engine.images.resolve(id).labels, **attributes}
    engine.events.publish("image", action, id, attributes)


def _buffered(reader: BodyReader) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(reader, 1 << 18))


def _platform(text: str) -> Platform:
    """`linux/arm64/v8`; empty matches anything."""
    if not text:
        return Platform()
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(parts):
        raise InvalidParameter(f'"{text}" is an invalid platform: it must be os[/architecture[/variant]]')
    return Platform(*parts)
