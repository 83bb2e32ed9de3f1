"""Detach keys: the sequence that, typed on a terminal, leaves the container running and ends the attach."""

from __future__ import annotations

from longshore.errors import InvalidParameter

DEFAULT_DETACH_KEYS = b"\x10\x11"
"""ctrl-p, ctrl-q"""

_CONTROL = {f"ctrl-{key}": code for code, key in enumerate("@abcdefghijklmnopqrstuvwxyz[\\]^_")} | {
    "DEL": 127
}


def parse_detach_keys(keys: str) -> bytes:
    """Parse e.g. `ctrl-a,b`; an empty string is the default. Raises InvalidParameter (moby/term ToBytes)."""
    if not keys:
        return DEFAULT_DETACH_KEYS
    codes = bytearray()
    for key in keys.split(","):
        if key in _CONTROL:
            codes.append(_CONTROL[key])
        elif len(key.encode()) == 1:
            codes += key.encode()
        else:
            raise InvalidParameter(f"Invalid detach keys ({keys}) provided")
    return bytes(codes)


class DetachFilter:
    """Watches what is typed for the detach keys, which may arrive one by one."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to go to the container, and whether the keys were completed (the rest is dropped then).

        A beginning of the keys is held back until it is known not to be them.
        """
        keys = self._keys
        if not keys or (not self._matched and keys[0] not in data):
            return data, False
        passed = bytearray()
        for code in data:
            if code != keys[self._matched]:
                passed += keys[: self._matched]
                self._matched = 0
            if code == keys[self._matched]:
                self._matched += 1
                if self._matched == len(keys):
                    return bytes(passed), True
            else:
                passed.append(code)
        return bytes(passed), False
