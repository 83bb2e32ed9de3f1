"""COPY and ADD: a layer of files from the context, a stage, an image, or elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.build.copying import CopyJob, mode_change, perform_copy
from longshore.build.instructions import Copy
from longshore.build.owners import ROOT, Owner, parse_owner
from longshore.build.patterns import clean
from longshore.build.shell import expand
from longshore.build.sources import Source, find_sources, hash_strings
from longshore.build.stages import find_stage, in_context
from longshore.engine.bridges import evaluated, to_its_end, while_wanted
from longshore.engine.builder.link import linked_layer, resolve_owner, reuse
from longshore.errors import EngineError, InvalidParameter, NotFound, System
from longshore.layers.layer import Layer
from longshore.types.codec import valid_text
from longshore.types.container import Config
from longshore.types.numbers import decimal

if TYPE_CHECKING:
    from longshore.engine.builder.stage import StageRun


async def copy_files(stage: StageRun, instruction: Copy) -> None:
    """Raises NotFound for what is not there, InvalidParameter, OSError."""
    name = "ADD" if instruction.add else "COPY"
    wanted = await evaluated(stage.text_size(instruction), lambda: _expanded(stage, instruction))
    async with AsyncExitStack() as held:
        views = ExitStack()
        held.push_async_callback(to_its_end, views.close)
        root, ownership = await _origin(stage, wanted, views)
        try:
            sources = await _sources(stage, wanted, root, ownership=ownership)
        except EngineError as exc:
            raise type(exc)(f"{name} failed: {exc}") from exc
        if len(sources) + len(wanted.files) > 1 and not wanted.destination.endswith("/"):
            raise InvalidParameter(
                f"When using {name} with more than one source file, "
                "the destination must be a directory and end with a /"
            )
        owner = None
        if instruction.link and wanted.chown:
            owner = await resolve_owner(stage, wanted.chown)
        step = stage.nop(_told(name, wanted, sources, owner), writes=True)
        if await stage.use_cache(step) or (instruction.link and await _reuse(stage, step)):
            return
        try:
            layer = await stage.make_layer(
                lambda check: _layer(stage, wanted, sources, ownership, owner, check)
            )
        except EngineError as exc:
            if wanted.chown and "chown" in exc.message:
                raise
            raise type(exc)(f"failed to copy files: {exc}") from exc
        except (OSError, ValueError) as exc:  # ValueError: a NUL in a name
            told = getattr(exc, "strerror", None) or str(exc)
            raise System(f"failed to copy files: {told.lower()}") from exc
        await stage.commit(step, layer)


async def _reuse(stage: StageRun, step: Config) -> bool:
    """Take the layer that the same --link made on top of something else, if it did."""
    found = stage.build.cache.find_linked(step)
    if not found:
        return False
    try:
        layer = await reuse(stage, found)
    except NotFound:
        return False  # It was removed meanwhile.
    stage.tell(" ---> Using cache\n")
    await stage.commit(step, layer)
    return True


@dataclass(frozen=True)
class _Wanted:
    """The instruction with its variables expanded."""

    instruction: Copy
    patterns: list[str]
    destination: str
    written: str
    """The destination as it was written."""
    chown: str
    chmod: str
    files: list[tuple[str, bytes]]


def _expanded(stage: StageRun, instruction: Copy) -> _Wanted:
    word = stage.state.word
    destination = written = word(instruction.destination)
    if destination in ("", ".") or destination.endswith("/."):
        destination += "/"
    if not destination.startswith("/"):
        destination = (stage.state.config.WorkingDir or "/").rstrip("/") + "/" + destination
    variables = stage.state.variables()
    files = []
    for each in instruction.files:
        text = each.text
        if each.expand:
            text = expand(text, variables, stage.state.escape, quotes=False).text
        files.append((each.name, text.encode("utf-8", "surrogateescape")))
    chmod = word(instruction.chmod)
    if chmod:
        mode_change(chmod)
    patterns = [word(source) for source in instruction.sources]
    return _Wanted(instruction, patterns, destination, written, word(instruction.chown), chmod, files)


async def _origin(stage: StageRun, wanted: _Wanted, views: ExitStack) -> tuple[Path, bool]:
    """The root that files come from, and whether their owners are kept."""
    name = wanted.instruction.origin
    if not name:
        paths = in_context(wanted.patterns, add=wanted.instruction.add)
        return await stage.build.context(paths) if paths else stage.build.space.context, False
    if (named := await stage.build.named_root(name)) is not None:
        return named, False
    index = stage.stage.index
    if name.lower() == stage.stage.begin.name or name == str(index):
        raise InvalidParameter(f"invalid from flag value {name}: refers to current build stage")
    earlier = find_stage(stage.build.program.stages[:index], name)
    if earlier is not None:
        id = await stage.build.result(earlier)
    elif len(name) < 5 and decimal(name) is not None:
        raise InvalidParameter(f"invalid from flag value {name}: stage index out of bounds")
    else:
        try:
            id = await stage.build.base_image(name, stage.build.options.platform, stage.say)
        except EngineError as exc:
            raise type(exc)(f"invalid from flag value {name}: {exc}") from exc
    chain = stage.engine.images.images.get(id).chain_id or None
    view = stage.engine.layers.view(chain)
    root = await to_its_end(lambda: views.enter_context(view))
    return root, not wanted.chown


async def _sources(stage: StageRun, wanted: _Wanted, root: Path, *, ownership: bool) -> list[Source]:
    instruction = wanted.instruction
    if not wanted.patterns:
        return []
    local, found = [], []
    for pattern in wanted.patterns:
        if not instruction.add and pattern.startswith(("http://", "https://")):
            raise InvalidParameter("source can't be a URL for COPY")
        if instruction.add and (fetched := await _fetched(stage, wanted, pattern)) is not None:
            found.append(fetched)
        else:
            local.append(pattern)
    if instruction.checksum and local:
        raise InvalidParameter("checksum can't be specified for non-HTTP(S), non-Git sources")
    if not local:
        return found
    parents = instruction.parents
    if not instruction.origin:
        for pattern in local:
            if clean(pattern.lstrip("/")).split("/")[0] == "..":
                raise InvalidParameter(f"forbidden path outside the build context: {pattern} ()")

    def work(check: Callable[[], None]) -> list[Source]:
        try:
            return find_sources(
                root,
                local,
                instruction.exclude,
                parents=parents,
                ownership=ownership,
                check=check,
                known=stage.build.space.digests_of(root),
            )
        except NotFound as exc:
            if instruction.origin or "no source files" in exc.message:
                raise
            raise NotFound(f"file not found in build context or excluded by .dockerignore: {exc}") from None

    # What is fetched goes first; the order counts for nothing but which of two files of a name is kept.
    return [*found, *await while_wanted(work)]


async def _fetched(stage: StageRun, wanted: _Wanted, pattern: str) -> Source | None:
    """What a source of ADD names somewhere else; None for a path."""
    from longshore.build.git import checked_commit, parse_git_url

    is_url = pattern.startswith(("http://", "https://"))
    git = parse_git_url(pattern, only_certain=True)
    if git is None and not is_url:
        return None
    from longshore.engine.builder import remote

    instruction = wanted.instruction
    checksum = stage.state.word(instruction.checksum)
    if git is not None:
        if checksum:
            git = replace(git, checksum=checked_commit(checksum))
        return await remote.add_git(stage, git, keep_git_dir=instruction.keep_git_dir)
    return await remote.add_url(
        stage, pattern, wanted.destination, checksum, unpack=instruction.unpack or False
    )


def _told(name: str, wanted: _Wanted, sources: list[Source], owner: Owner | None) -> str:
    """The step in the history, which is what it is found by: contents go by their digests.

    Of a --link, it tells all there is to know, so that its layer can be found whatever is below.
    """
    instruction = wanted.instruction
    hashes = [source.hash for source in sources]
    for file, content in wanted.files:
        digest = hashlib.sha256(f"heredoc\0{file}\0".encode("utf-8", "surrogateescape") + content).hexdigest()
        hashes.append(f"file:{digest}")
    if instruction.parents:
        hashes = [f"{each}:{source.path!r}" for each, source in zip(hashes, sources, strict=False)]
    chown = f"{owner.uid}:{owner.gid}" if owner is not None else wanted.chown
    flags = [
        *(["--link"] if instruction.link else []),
        *([f"--chown={chown}"] if chown else []),
        *([f"--chmod={wanted.chmod}"] if wanted.chmod else []),
        *(["--parents"] if instruction.parents else []),
        *([] if instruction.unpack is None else [f"--unpack={str(instruction.unpack).lower()}"]),
        *(f"--exclude={each}" for each in instruction.exclude),
    ]
    known = hashes[0] if len(hashes) == 1 else hash_strings("multi", hashes)
    written = wanted.destination if instruction.link else wanted.written
    return valid_text(" ".join([name, *flags, f"{known} in {written} "]))


def _layer(
    stage: StageRun,
    wanted: _Wanted,
    sources: list[Source],
    ownership: bool,
    linked_owner: Owner | None,
    check: Callable[[], None],
) -> Layer | None:
    layers, instruction = stage.engine.layers, wanted.instruction

    def fill(root: Path) -> None:
        owner: Owner | None = ROOT
        if linked_owner is not None:
            owner = linked_owner
        elif wanted.chown:
            owner = parse_owner(wanted.chown, root)
        elif ownership:
            owner = None
        job = CopyJob(
            sources,
            wanted.destination,
            wanted.files,
            owner,
            wanted.chmod,
            unpack=instruction.add and instruction.unpack is not False,
            parents=instruction.parents,
            exclude=instruction.exclude,
            check=check,
        )
        perform_copy(root, layers.ids, job)

    if instruction.link:
        return linked_layer(stage.engine, stage.parent_chain(), fill)
    return layers.build(stage.parent_chain(), fill)
