"""JSON as Go's encoding/json reads and writes it, for msgspec structs.

Clients were written against a Go server, and so rely on what its decoder forgives: a null means "leave the
zero value", and keys match whatever their case. Encoding follows Go too: a field marked omitempty is left
out when it holds its zero value, every other field is always there, null included.
"""

from __future__ import annotations

import re
import typing
from functools import cache
from types import UnionType
from typing import Any, ClassVar, TypeVar, cast

import msgspec

from longshore.errors import InvalidParameter

T = TypeVar("T")

_SURROGATES = re.compile("[\ud800-\udfff]")
_INT64 = range(-(1 << 63), 1 << 63)
"""What an integer of the API may be."""


def names(*words: str) -> frozenset[str]:
    """The names in `words`, which are separated by blanks."""
    return frozenset(" ".join(words).split())


class ApiStruct(msgspec.Struct):
    """Base of every API object. `_omitempty` names the fields left out while they are zero."""

    _omitempty: ClassVar[frozenset[str]] = frozenset()


def decode(raw: bytes, kind: type[T]) -> T:
    """Decode `raw` as `kind` with Go's leniency.

    Raises InvalidParameter, worded as dockerd words it, for malformed JSON or a value of the wrong type.
    """
    try:
        plain = msgspec.json.decode(raw)
    except msgspec.DecodeError as exc:
        raise InvalidParameter(f"invalid JSON: {exc}") from None
    except RecursionError:
        raise InvalidParameter("invalid JSON: exceeded max depth") from None
    return convert(plain, kind)


def convert(plain: object, kind: type[T]) -> T:
    """Turn plain JSON values into `kind`; see `decode`."""
    try:
        return msgspec.convert(_forgive(plain, kind), kind)
    except msgspec.ValidationError as exc:
        raise InvalidParameter(f"invalid JSON: {exc}") from None
    except RecursionError:
        raise InvalidParameter("invalid JSON: exceeded max depth") from None


def encode(value: object) -> bytes:
    """Encode as Go would, without a trailing newline."""
    plain = to_plain(value)
    try:
        return msgspec.json.encode(plain)
    except UnicodeEncodeError:
        return msgspec.json.encode(valid_text(plain))


def valid_text(plain: T) -> T:
    """The same with U+FFFD for each byte that is no UTF-8 (kept by surrogateescape), as Go encodes it."""
    if isinstance(plain, str):
        return plain if plain.isascii() else cast(T, _SURROGATES.sub("\ufffd", plain))
    if isinstance(plain, dict):
        return cast(T, {valid_text(key): valid_text(item) for key, item in plain.items()})
    if isinstance(plain, list):
        return cast(T, [valid_text(item) for item in plain])
    return plain


def to_plain(value: object) -> Any:
    """Structs to dictionaries, with omitempty applied; other values as they are."""
    if isinstance(value, msgspec.Struct):
        plain = {}
        for attribute, key, kind, omitempty, is_plain in _field_plans(type(value)):
            item = getattr(value, attribute)
            if omitempty and not item and not _is_set_pointer(item, kind):
                continue
            plain[key] = item if is_plain else to_plain(item)
        return plain
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def _is_set_pointer(item: object, kind: Any) -> bool:
    # A Go pointer is not empty because what it points to is: a struct, or a number or truth that may be None.
    return isinstance(item, msgspec.Struct) or (isinstance(item, int) and _takes_null(kind))


@cache
def _field_plans(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, Any, bool, bool], ...]:
    """Attribute, key, type, whether it has omitempty, and whether its values are plain as they are."""
    omit: frozenset[str] = getattr(kind, "_omitempty", frozenset())
    return tuple(
        (field.name, field.encode_name, field.type, field.name in omit, _is_plain(field.type))
        for field in msgspec.structs.fields(kind)
    )


def _is_plain(kind: Any) -> bool:
    if typing.get_origin(kind) in (typing.Union, UnionType):
        return all(_is_plain(each) for each in typing.get_args(kind))
    return kind in (str, int, float, bool, type(None))


@cache
def _field_kinds(kind: type[msgspec.Struct]) -> dict[str, tuple[str, Any]]:
    return {f.encode_name.lower(): (f.encode_name, f.type) for f in msgspec.structs.fields(kind)}


def _forgive(plain: object, kind: Any) -> object:
    """Drop nulls and mend the case of keys wherever `kind` expects a struct; refuse integers beyond Go's."""
    if isinstance(plain, dict):
        struct = _struct_in(kind)
        if struct is not None:
            fields = _field_kinds(struct)
            mended = {}
            for key, item in plain.items():
                known = fields.get(key.lower()) if isinstance(key, str) else None
                if known is None:
                    continue
                if item is None and not _takes_null(known[1]):
                    continue
                mended[known[0]] = _forgive(item, known[1])
            return mended
        value_kind = _argument(kind, dict, 1)
        if value_kind is not None:
            return {key: _forgive(item, value_kind) for key, item in plain.items()}
    elif isinstance(plain, list):
        item_kind = _argument(kind, list, 0)
        if item_kind is not None:
            return [_forgive(item, item_kind) for item in plain]
    elif isinstance(plain, int) and not _INT64.start <= plain < _INT64.stop:
        raise InvalidParameter(f"json: cannot unmarshal number {plain} into Go value of type int64")
    return plain


@cache
def _alternatives(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, UnionType):
        return typing.get_args(kind)
    return (kind,)


@cache
def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    for alternative in _alternatives(kind):
        if isinstance(alternative, type) and issubclass(alternative, msgspec.Struct):
            return alternative
    return None


@cache
def _takes_null(kind: Any) -> bool:
    return type(None) in _alternatives(kind)


@cache
def _argument(kind: Any, container: type, position: int) -> Any:
    for alternative in _alternatives(kind):
        if typing.get_origin(alternative) is container:
            return typing.get_args(alternative)[position]
    return None
