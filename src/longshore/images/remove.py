"""Removing names and images by Docker's rules (daemon/images/image_delete.go)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from longshore.errors import Conflict, EngineError, NotFound
from longshore.images.reference import Reference, parse_any
from longshore.types.filters import Filters, boolean_filter, check_filters, labels_match, until_filter
from longshore.types.image import ImageDeleteItem, ImagesPruneReport
from longshore.types.timestamp import parse_rfc3339

if TYPE_CHECKING:
    from longshore.images.service import ImageService


class Use(NamedTuple):
    """A container made from an image."""

    id: str
    running: bool


InUse = Callable[[str], list[Use]]
"""Image id to the containers made from it."""

_PRUNE_FILTERS = frozenset(("dangling", "label", "label!", "until"))


def nothing_in_use(_: str) -> list[Use]:
    """For when there are no containers."""
    return []


def delete(
    service: ImageService, name: str, force: bool, prune_parents: bool, in_use: InUse
) -> list[ImageDeleteItem]:
    """DELETE /images/{name}."""
    image = service.resolve(name)
    references = service.references.references(image.id)
    parsed = parse_any(name)
    removal = _Removal(service, in_use)
    named = next(
        (each for each in references if isinstance(parsed, Reference) and _names(parsed, each)), None
    )
    if named is None:
        if _is_single(references):
            # What stands in the way must be found before the name is gone.
            removal.check(image.id, force, ignore_references=True)
            for reference in references:
                removal.untag(reference)
    else:
        if not force and _is_single(references):
            for use in in_use(image.id):
                raise Conflict(
                    f'conflict: unable to remove repository reference "{name}" (must force) - container '
                    f"{use.id[:12]} is using its referenced image {short(image.id)}"
                )
        removal.untag(named)
        references = service.references.references(image.id)
        same = [each for each in references if each.name == named.name]
        if not named.digest and not _tags(same):
            # Digests alone keep no image once the repository's last tag is gone.
            for digest in same:
                removal.untag(digest)
        if service.references.references(image.id):
            return removal.items
    removal.delete(image.id, force, prune_parents, quiet=named is not None)
    return removal.items


def prune(service: ImageService, filters: Filters, in_use: InUse) -> ImagesPruneReport:
    """POST /images/prune."""
    check_filters(filters, _PRUNE_FILTERS)
    dangling_only = boolean_filter(filters, "dangling") is not False
    until = until_filter(filters)
    items: list[ImageDeleteItem] = []
    before = {layer.chain_id: layer.size for layer in service.layers.layers()}
    doomed = [
        image.id
        for image in service.images.all()
        if (service.references.references(image.id) or not service.images.children(image.id))
        and (until is None or parse_rfc3339(image.created) <= until)
        and labels_match(filters, image.labels)
    ]
    for id in doomed:
        references = service.references.references(id)
        if in_use(id) or (dangling_only and _tags(references)):
            continue
        # One with children loses its names, and goes with the last of them.
        for name in [reference.familiar for reference in references] or [id]:
            try:
                items += delete(service, name, False, True, in_use)
            except EngineError:
                continue  # Came into use meanwhile, or went away.
    left = {layer.chain_id for layer in service.layers.layers()}
    reclaimed = sum(size for chain, size in before.items() if chain not in left)
    return ImagesPruneReport(items or None, reclaimed)


def short(id: str) -> str:
    """The id as users see it."""
    return id.removeprefix("sha256:")[:12]


class _Removal:
    """One request's steps, with what to answer about them."""

    def __init__(self, service: ImageService, in_use: InUse) -> None:
        self._service = service
        self._in_use = in_use
        self.items: list[ImageDeleteItem] = []

    def untag(self, reference: Reference) -> None:
        if not self._service.references.delete(reference):
            raise NotFound(f"No such image: {reference.familiar}")
        self.items.append(ImageDeleteItem(Untagged=reference.familiar))

    def delete(self, id: str, force: bool, prune_parents: bool, quiet: bool) -> None:
        """Delete the image, then parents that are no longer of use. `quiet`: what is in use just stays."""
        try:
            self.check(id, force, ignore_references=False)
        except Conflict:
            if quiet:
                return
            raise
        for reference in self._service.references.references(id):
            self.untag(reference)
        parent = self._service.images.parent(id)
        gone = self._service.images.delete(id)
        for reference in self._service.references.references(id):  # Given meanwhile.
            if not self._service.images.has(id):
                self._service.references.delete(reference)
        self.items.append(ImageDeleteItem(Deleted=id))
        self.items += [ImageDeleteItem(Deleted=layer.chain_id) for layer in gone]
        if prune_parents and parent:
            self.delete(parent, False, True, quiet=True)

    def check(self, id: str, force: bool, ignore_references: bool) -> None:
        """Raises Conflict if the image must not be deleted; some reasons give way to force."""
        if self._service.images.children(id):
            raise _conflict(id, False, "image has dependent child images")
        uses = self._in_use(id)
        for use in uses:
            if use.running:
                raise _conflict(id, False, f"image is being used by running container {use.id[:12]}")
        if force:
            return
        if not ignore_references and self._service.references.references(id):
            raise _conflict(id, True, "image is referenced in multiple repositories")
        for use in uses:
            raise _conflict(id, True, f"image is being used by stopped container {use.id[:12]}")


def _conflict(id: str, forcible: bool, reason: str) -> Conflict:
    way = "must be forced" if forcible else "cannot be forced"
    return Conflict(f"conflict: unable to delete {short(id)} ({way}) - {reason}")


def _names(parsed: Reference, reference: Reference) -> bool:
    if parsed.digest:
        return reference == parsed._replace(tag="")
    return reference == parsed.tagged


def _tags(references: list[Reference]) -> list[Reference]:
    return [each for each in references if each.tag and not each.digest]


def _is_single(references: list[Reference]) -> bool:
    """Whether all names are of one repository, with at most one tag among them."""
    if len(references) <= 1:
        return len(references) == 1
    return len(_tags(references)) <= 1 and len({each.name for each in references}) == 1
