"""From a peer's bytes to a message: what is no message, or one of too many items, is told as `Malformed`.

Parsing alone would take seconds and a gibibyte for a message of millions of empty items. So the fields of a large
message are counted first, and counting ends where there are too many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from orchestrator.core.labels import labels_text

ITEMS_MAX = 20_000
"""Of a message that a server takes; its fields that hold one value count as items too."""
ITEM_BYTES = 2  # the least that an item takes: its tag, and that it is empty
ID_CHARACTERS = 200
VARINT_BYTES = 10
Nested = Mapping[int, "Nested"]


class Malformed(ValueError):
    """What a peer sent is no message of the protocol. The text says why."""


def reader(of: Descriptor) -> Callable[[bytes], Any]:
    """Parses a message of that type. It returns Malformed rather than raise it: gRPC would hide what is raised."""
    parse = GetMessageClass(of).FromString
    nested = _nested(of)

    def read(data: bytes) -> Any:
        try:
            if len(data) > ITEM_BYTES * ITEMS_MAX and _left(data, 0, len(data), nested, ITEMS_MAX) < 0:
                return Malformed(f"a message has more than {ITEMS_MAX} items")
            return parse(data)
        except (DecodeError, IndexError, Malformed):
            return Malformed(f"a message is no {of.name}")

    return read


def sound(message: Any) -> Any:
    """The same message. Raises Malformed where it is none."""
    if isinstance(message, Malformed):
        raise message
    return message


def require_id(text: str, what: str) -> str:
    """The same text. Raises Malformed for one that is too long to be an id."""
    if len(text) > ID_CHARACTERS:
        raise Malformed(f"{what} has at most {ID_CHARACTERS} characters, not {len(text)}")
    return text


def require_key(text: str) -> str:
    """The same text, empty where a submitter gives no key. Raises Malformed for one that can't be a key."""
    if not text.isprintable():
        raise Malformed("a submission's key has printable characters only")
    return require_id(text, "a submission's key")


def require_labels(text: str) -> str:
    """The same text. Raises Malformed for one that is not what `labels_text` writes."""
    try:
        return labels_text(text) if text else ""
    except ValueError as error:
        raise Malformed(str(error)) from None


def _nested(of: Descriptor) -> dict[int, Nested]:
    """The fields that hold one message, in which there may be many items; with their own such fields."""
    return {
        field.number: _nested(field.message_type)
        for field in of.fields
        if field.message_type is not None
        and not field.is_repeated
        and any(inner.is_repeated for inner in field.message_type.fields)
    }


def _left(data: bytes, at: int, end: int, nested: Nested, left: int) -> int:
    """How many more items than these there may be; negative: there are too many. Raises Malformed or IndexError."""
    while at < end and left >= 0:
        left -= 1
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(data, at)
            inner = nested.get(tag >> 3)
            if inner is not None:
                left = _left(data, at, min(at + length, end), inner, left)
            at += length
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        elif kind > 5:
            raise Malformed("no field")
    return left


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    number = data[at]
    if number < 128:
        return number, at + 1
    number &= 127
    for place in range(1, VARINT_BYTES):
        byte = data[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    raise Malformed("no number")
