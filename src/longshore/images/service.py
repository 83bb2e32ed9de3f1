"""What the engine asks of images. Synchronous: call it in threads."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from longshore.errors import InvalidParameter, NotFound
from longshore.images import describe, remove
from longshore.images.importing import import_image
from longshore.images.load import Platform, load_images
from longshore.images.progress import ProgressCallback
from longshore.images.reference import Reference, parse, parse_any, with_tag
from longshore.images.refstore import ReferenceStore
from longshore.images.remove import InUse
from longshore.images.save import save_images
from longshore.images.store import Image, ImageStore
from longshore.layers.store import LayerStore
from longshore.types.container import Config
from longshore.types.filters import Filters
from longshore.types.image import (
    ImageDeleteItem,
    ImageHistoryItem,
    ImageInspect,
    ImagesPruneReport,
    ImageSummary,
)


class ImageService:
    """Images, their names, and their layers, together."""

    def __init__(self, root: Path, layers: LayerStore) -> None:
        """`root` is the data root that `layers` uses, too."""
        self.layers = layers
        self.images = ImageStore(root, layers)
        self.references = ReferenceStore(root / "image" / layers.driver_name / "repositories.json")
        self._spool = root / "tmp"

    def resolve(self, name: str) -> Image:
        """The image of that name, id, or unambiguous beginning of an id.

        Raises NotFound as `No such image: busybox:latest`, InvalidParameter for what cannot be a name.
        """
        wanted = parse_any(name)
        if isinstance(wanted, str):
            try:
                return self.images.get(wanted)
            except NotFound:
                raise NotFound(f"No such image: {wanted}") from None
        try:
            return self.images.get(self.references.resolve(wanted))
        except NotFound:
            found = self.images.search(name)
        if len(found) == 1:
            return self.images.get(found[0])
        raise NotFound(f"No such image: {wanted.tagged.familiar}")

    def load(
        self,
        stream: BinaryIO,
        progress: ProgressCallback,
        quiet: bool = False,
        platform: Platform | None = None,
    ) -> builtins.list[str]:
        """Load an archive, plain or compressed; returns the images' ids.

        `progress` gets Docker's messages, those about layers unless `quiet`. Raises InvalidParameter for a
        bad archive, of which then nothing is kept.
        """
        about_layers: ProgressCallback = (lambda _: None) if quiet else progress
        loaded = load_images(
            stream,
            self.layers,
            self.images,
            self._spool,
            progress=about_layers,
            platform=platform or Platform(),
        )
        for image in loaded:
            for reference in image.references:
                self._announce_renaming(reference, image.id, progress)
                self._set_tag(reference, image.id)
                progress({"stream": f"Loaded image: {reference.familiar}\n"})
        if not any(image.references for image in loaded):
            for image in loaded:
                progress({"stream": f"Loaded image ID: {image.id}\n"})
        return [image.id for image in loaded]

    def import_(
        self,
        stream: BinaryIO,
        repo: str = "",
        tag: str = "",
        message: str = "",
        config: Config | None = None,
        platform: Platform | None = None,
        progress: ProgressCallback = lambda _: None,
        source: str = "-",
    ) -> str:
        """Make an image of one layer from the archive of a file system; returns its id."""
        if repo and parse(repo).digest:
            raise InvalidParameter("cannot import digest reference")
        reference = self._new_reference(repo, tag) if repo else None
        comment = message or f"Imported from {source}"
        id = import_image(
            stream,
            self.layers,
            self.images,
            comment=comment,
            config=config or Config(),
            platform=platform or Platform(),
        )
        if reference is not None:
            self._set_tag(reference, id)
        progress({"status": id})
        return id

    def save(self, names: builtins.list[str], out: Callable[[bytes], object]) -> None:
        """Write an archive of the images, which is Docker's and an OCI layout at once, piece by piece.

        A name without tag stands for all tags of the repository. Raises NotFound before anything is written.
        """
        wanted: dict[str, builtins.list[Reference]] = {}
        for name in names:
            id, references = self._to_save(name)
            tags = wanted.setdefault(id, [])
            for each, reference in references:
                tags = wanted.setdefault(each, [])
                if reference not in tags:
                    tags.append(reference)
        selected = [(self.images.get(id), tags) for id, tags in wanted.items()]
        save_images(selected, self.images, self.layers, out)

    def tag(self, name: str, repo: str, tag: str = "") -> Reference:
        """Give the image one more name. Raises InvalidParameter, NotFound."""
        image = self.resolve(name)
        reference = self._new_reference(repo, tag)
        self._set_tag(reference, image.id)
        return reference

    def delete(
        self, name: str, force: bool = False, noprune: bool = False, in_use: InUse = remove.nothing_in_use
    ) -> builtins.list[ImageDeleteItem]:
        """Remove a name, and the image with its unneeded parents once it has no other name.

        `in_use` tells the containers made from an image. Raises Conflict with Docker's reasons.
        """
        return remove.delete(self, name, force, not noprune, in_use)

    def inspect(self, name: str) -> ImageInspect:
        """All about one image."""
        return describe.inspect(self, self.resolve(name))

    def history(self, name: str) -> builtins.list[ImageHistoryItem]:
        """How the image came to be, newest step first."""
        return describe.history(self, self.resolve(name))

    def prune(
        self, filters: Filters | None = None, in_use: InUse = remove.nothing_in_use
    ) -> ImagesPruneReport:
        """Delete images no container uses: the nameless ones, or with the filter dangling=false all."""
        return remove.prune(self, filters or {}, in_use)

    def _to_save(self, name: str) -> tuple[str, builtins.list[tuple[str, Reference]]]:
        parsed = parse_any(name)
        if isinstance(parsed, Reference) and not parsed.tag and not parsed.digest:
            tags = [
                (id, reference)
                for reference, id in self.references.of_repository(parsed)
                if reference.tag and not reference.digest
            ]
            if tags:
                return tags[0][0], tags
        id = self.resolve(name).id
        if isinstance(parsed, Reference) and parsed.tag and not parsed.digest:
            try:
                if self.references.resolve(parsed) == id:
                    return id, [(id, parsed)]
            except NotFound:
                pass
        return id, []

    def _announce_renaming(self, reference: Reference, id: str, progress: ProgressCallback) -> None:
        try:
            before = self.references.resolve(reference)
        except NotFound:
            return
        if before != id:
            progress(
                {
                    "stream": f"The image {reference.familiar} already exists, "
                    f"renaming the old one with ID {before} to empty string\n"
                }
            )

    def _set_tag(self, reference: Reference, id: str) -> None:
        self.references.add_tag(reference, id)
        if not self.images.has(id):  # Removed while it had no name, or none that kept it.
            self.references.delete(reference)
            raise NotFound(f"No such image: {id}")
        self.images.touch(id)

    def _new_reference(self, repo: str, tag: str) -> Reference:
        reference = parse(repo)
        if reference.digest:
            raise InvalidParameter("refusing to create a tag with a digest reference")
        return (with_tag(reference, tag) if tag else reference).tagged

    def list(
        self,
        filters: Filters | None = None,
        all: bool = False,
        shared_size: bool = False,
        in_use: InUse | None = None,
    ) -> builtins.list[ImageSummary]:
        """Newest first. With `in_use`, containers are counted."""
        return describe.summaries(self, filters or {}, all, shared_size, in_use)
