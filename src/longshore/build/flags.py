"""The `--flags` of an instruction."""

from __future__ import annotations

from longshore.errors import InvalidParameter


class Flags:
    """Each flag is asked for by name; `end` then refuses those that nobody asked for."""

    def __init__(self, words: list[str]) -> None:
        self._given: dict[str, list[str | None]] = {}
        for word in words:
            name, equals, value = word[2:].partition("=")
            self._given.setdefault(name, []).append(value if equals else None)

    def text(self, name: str) -> str:
        """The value; "" without the flag. Raises InvalidParameter."""
        values = self.texts(name)
        if len(values) > 1:
            raise InvalidParameter(f"duplicate flag specified: {name}")
        return values[0] if values else ""

    def texts(self, name: str) -> list[str]:
        """The values of a flag that may be repeated. Raises InvalidParameter."""
        values = self._given.pop(name, [])
        if None in values:
            raise InvalidParameter(f"missing a value on flag: {name}")
        return [value for value in values if value is not None]

    def truth(self, name: str) -> bool:
        """A flag with `=true`, `=false` or nothing; false without it. Raises InvalidParameter."""
        return self.choice(name) or False

    def choice(self, name: str) -> bool | None:
        """As `truth`; None without the flag. Raises InvalidParameter."""
        values = self._given.pop(name, [])
        if len(values) > 1:
            raise InvalidParameter(f"duplicate flag specified: {name}")
        if not values:
            return None
        text = "true" if values[0] is None else values[0].lower()
        if text not in ("true", "false"):
            raise InvalidParameter(f"expecting boolean value for flag {name}, not: {values[0]}")
        return text == "true"

    def end(self) -> None:
        """Raises InvalidParameter for a flag that is left."""
        for name in self._given:
            raise InvalidParameter(f"unknown flag: {name}")
