"""Which name means which image: `image/<driver>/repositories.json`."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from longshore.errors import Conflict, InvalidParameter, NotFound
from longshore.images.reference import Reference, parse
from longshore.linux.files import sync_directory, write_atomically


class ReferenceStore:
    """Names to image ids, both ways. Every method may be called in threads."""

    def __init__(self, path: Path) -> None:
        """`path` is the JSON file, which need not exist yet."""
        self._path = path
        self._lock = threading.RLock()
        self._repositories: dict[str, dict[str, str]] = {}
        if path.exists():
            stored = msgspec.json.decode(path.read_bytes())
            self._repositories = stored.get("Repositories") or {}

    def add_tag(self, reference: Reference, id: str, force: bool = True) -> None:
        """Let the tag mean the image. Raises Conflict if it means another one and not `force`.

        Raises InvalidParameter for a name that would be taken for an id.
        """
        tagged = reference._replace(digest="").tagged
        if tagged.familiar_name == "sha256":
            raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
        with self._lock:
            names = self._repositories.setdefault(tagged.familiar_name, {})
            before = names.get(tagged.familiar)
            if before == id:
                return
            if before is not None and not force:
                raise Conflict(
                    f"Conflict: Tag {tagged.familiar} is already set to image {before}, "
                    "if you want to replace it, please use the force option"
                )
            names[tagged.familiar] = id
            self._save()

    def add_digest(self, reference: Reference, id: str) -> None:
        """Let `name@digest` mean the image."""
        canonical = reference._replace(tag="")
        with self._lock:
            names = self._repositories.setdefault(canonical.familiar_name, {})
            if names.get(canonical.familiar) != id:
                names[canonical.familiar] = id
                self._save()

    def delete(self, reference: Reference) -> bool:
        """Forget the name; False if it was not known."""
        key = _key(reference)
        with self._lock:
            names = self._repositories.get(reference.familiar_name, {})
            if names.pop(key, None) is None:
                return False
            if not names:
                del self._repositories[reference.familiar_name]
            self._save()
            return True

    def references(self, id: str) -> list[Reference]:
        """Every name of the image, sorted."""
        with self._lock:
            found = [
                key for names in self._repositories.values() for key, target in names.items() if target == id
            ]
        return [parse(key) for key in sorted(found)]

    def all(self) -> dict[str, list[Reference]]:
        """Names by image id."""
        by_id: dict[str, list[Reference]] = {}
        with self._lock:
            pairs = [pair for names in self._repositories.values() for pair in names.items()]
        for key, id in sorted(pairs):
            by_id.setdefault(id, []).append(parse(key))
        return by_id

    def of_repository(self, reference: Reference) -> list[tuple[Reference, str]]:
        """All names in the repository, with the ids they mean."""
        with self._lock:
            names = dict(self._repositories.get(reference.familiar_name, {}))
        return [(parse(key), id) for key, id in sorted(names.items())]

    def resolve(self, reference: Reference) -> str:
        """The id of the image named so; a digest wins over a tag. Raises NotFound."""
        with self._lock:
            id = self._repositories.get(reference.familiar_name, {}).get(_key(reference))
        if id is None:
            raise NotFound("reference does not exist")
        return id

    def _save(self) -> None:
        write_atomically(self._path, msgspec.json.encode({"Repositories": self._repositories}))
        sync_directory(self._path.parent)


def _key(reference: Reference) -> str:
    if reference.digest:
        return reference._replace(tag="").familiar
    return reference.tagged.familiar
