"""What is kept of a volume on disk, beside its content."""

from __future__ import annotations

from pathlib import Path

import msgspec

from longshore.linux.files import write_atomically
from longshore.types.timestamp import SECOND, rfc3339_nano
from longshore.volumes.database import VolumeMetadata
from longshore.volumes.local import size_limit

# dockerd's options of a local volume: <volume>/opts.json
_OPTIONS = {"type": "MountType", "o": "MountOpts", "device": "MountDevice"}
_OURS = "longshore.json"


class VolumeRecord(msgspec.Struct):
    """A volume. `created` is RFC 3339; when a plug-in's volume was made, only that knows."""

    name: str
    created: str = ""
    labels: dict[str, str] | None = None
    options: dict[str, str] = {}
    driver: str = "local"


def save(directory: Path, entry: VolumeRecord) -> None:
    """Write the record into the volume's directory; survives a crash at any moment. Raises OSError."""
    if entry.options:
        plain: dict[str, object] = {theirs: entry.options.get(ours, "") for ours, theirs in _OPTIONS.items()}
        quota = {"Quota": {"Size": size_limit(entry.options)}}
        write_atomically(directory / "opts.json", msgspec.json.encode(plain | quota))
    write_atomically(directory / _OURS, msgspec.json.encode(entry))


def load(directory: Path, theirs: VolumeMetadata | None = None) -> VolumeRecord:
    """Read a record; that of a volume that dockerd made is made of its notes, and kept.

    Raises OSError, msgspec.MsgspecError.
    """
    try:
        entry = msgspec.json.decode((directory / _OURS).read_bytes(), type=VolumeRecord)
    except FileNotFoundError:
        born = rfc3339_nano(int(directory.stat().st_mtime) * SECOND)
        entry = VolumeRecord(
            directory.name,
            born,
            theirs.labels if theirs else None,
            (theirs.options if theirs else None) or _their_options(directory),
        )
        save(directory, entry)
    entry.name = directory.name
    return entry


def _their_options(directory: Path) -> dict[str, str]:
    try:
        plain = msgspec.json.decode((directory / "opts.json").read_bytes(), type=dict)
    except FileNotFoundError:
        return {}
    options = {ours: plain[theirs] for ours, theirs in _OPTIONS.items() if plain.get(theirs)}
    quota = plain.get("Quota")
    if isinstance(quota, dict) and isinstance(size := quota.get("Size"), int) and size > 0:
        options["size"] = str(size)
    return options
