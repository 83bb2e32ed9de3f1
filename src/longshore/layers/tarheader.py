"""Headers of an archive's entries: the very bytes that `tarfile` writes, most of them without it."""

from __future__ import annotations

import tarfile
import zlib
from typing import NamedTuple

_TAIL = b"ustar\x0000".ljust(255, b"\0")
"""What follows the target of a link: magic, no names of owners, no device, no prefix."""
_LONGEST_NAME = 100
_IDS, _LENGTHS = 1 << 21, 1 << 33
"""The first numbers that seven and eleven octal digits do not hold."""
_BLANK_CHECKSUM = 8 * 0x20


class Header(NamedTuple):
    """An entry of the format PAX. `mtime` in seconds; `pax` are more records for it."""

    name: str
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    linkname: str = ""
    major: int = 0
    minor: int = 0
    pax: dict[str, str] | None = None

    def encode(self) -> bytes:
        """One block, or several if the names or numbers are long."""
        if (
            self.pax
            or self.type in (tarfile.CHRTYPE, tarfile.BLKTYPE)
            or not (self.name.isascii() and len(self.name) <= _LONGEST_NAME)
            or not (self.linkname.isascii() and len(self.linkname) <= _LONGEST_NAME)
            or not (0 <= self.uid < _IDS and 0 <= self.gid < _IDS)
            or not (0 <= self.size < _LENGTHS and 0 <= self.mtime < _LENGTHS)
        ):
            return self._rare()
        start = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (
            self.name.encode().ljust(_LONGEST_NAME, b"\0"),
            self.mode,
            self.uid,
            self.gid,
            self.size,
            self.mtime,
        )
        end = self.type + self.linkname.encode().ljust(_LONGEST_NAME, b"\0") + _TAIL
        # The sum of all bytes, the checksum's own taken as blanks. Adler-32's low half is one plus the sum
        # modulo 65521, which 512 bytes of ASCII do not reach, and comes from C.
        checksum = (zlib.adler32(end, zlib.adler32(start)) & 0xFFFF) - 1 + _BLANK_CHECKSUM
        return b"%b%06o\0 %b" % (start, checksum, end)

    def _rare(self) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.type, info.mode, info.uid, info.gid = self.type, self.mode, self.uid, self.gid
        info.size, info.mtime, info.linkname = self.size, self.mtime, self.linkname
        info.devmajor, info.devminor = self.major, self.minor
        info.pax_headers = self.pax or {}
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
