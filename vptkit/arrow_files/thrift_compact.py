"""Thrift's compact protocol, as far as Parquet's footers and the headers of its pages need it.

Read here and not by pyarrow, which ends the process over some footers, and makes room for what a page
says of itself. Nothing is ambiguous: a field that comes twice is refused, for readers differ in which
of the two they believe.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Compact"]

_DEPTH = 16
_MOST_PARTS = 1_000_000  # structs and texts; empty ones take a byte in the file and more in memory
_TRUE, _FALSE, _BYTE, _DOUBLE, _TEXT, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_WHOLE = (4, 5, 6)


class Compact:
    """A reader of some bytes.

    Attributes:
        place: of the next byte.
    """

    def __init__(self, content: bytes, what: str) -> None:
        """Begin at the first byte; `what` is the subject of messages."""
        self._content, self._what = content, what
        self._parts = 0
        self.place = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a struct.

        Returns:
            By the numbers of its fields: whole numbers, texts (bytes), structs, and lists of texts or
            structs. Whatever else there is, is skipped.

        Raises:
            ValueError: it does not end, is too deep or too large, or has a field twice.
        """
        if depth > _DEPTH:
            raise ValueError(f"{self._what} is nested too deeply")
        self._count()
        found: dict[int, Any] = {}
        seen: set[int] = set()
        number = 0
        while (byte := self._byte()) != 0:
            number = number + (byte >> 4) if byte >> 4 else self._zigzag()
            if number in seen or not 0 <= number < 1 << 15:
                raise ValueError(f"{self._what} holds a field twice, or one that none has")
            seen.add(number)
            kind = byte & 15
            if kind not in (_TRUE, _FALSE):  # those stand in the field's own byte
                value = self._value(kind, depth)
                if value is not None:
                    found[number] = value
        return found

    def _value(self, kind: int, depth: int) -> Any:
        """A value, None if it was skipped."""
        if kind in _WHOLE:
            return self._zigzag()
        if kind == _TEXT:
            return self._text()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            return self._list(depth + 1)
        if kind in (_BYTE, _TRUE, _FALSE):
            self._skip(1)
        elif kind == _DOUBLE:
            self._skip(8)
        elif kind == _MAP:
            self._map(depth + 1)
        else:
            raise ValueError(f"{self._what} holds what none has")
        return None

    def _list(self, depth: int) -> list[Any] | None:
        if depth > _DEPTH:
            raise ValueError(f"{self._what} is nested too deeply")
        byte = self._byte()
        kind, count = byte & 15, byte >> 4
        if count == 15:
            count = self._varint()
        if count > len(self._content) - self.place:  # each takes a byte at least
            raise ValueError(f"{self._what} does not end")
        kept = kind in (_TEXT, _STRUCT)
        values = []
        for _ in range(count):
            value = self._value(kind, depth)
            if kept:
                values.append(value)
        return values if kept else None

    def _map(self, depth: int) -> None:
        if depth > _DEPTH:
            raise ValueError(f"{self._what} is nested too deeply")
        count = self._varint()
        if count > len(self._content) - self.place:
            raise ValueError(f"{self._what} does not end")
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._value(kinds >> 4, depth)
            self._value(kinds & 15, depth)

    def _text(self) -> bytes:
        self._count()
        length = self._varint()  # first: it moves the place itself
        begin = self.place
        self._skip(length)
        return self._content[begin : self.place]

    def _count(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise ValueError(f"{self._what} has more than {_MOST_PARTS:,} parts")

    def _skip(self, length: int) -> None:
        self.place += length
        if self.place > len(self._content):
            raise ValueError(f"{self._what} does not end")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError(f"{self._what} holds a number without an end")

    def _byte(self) -> int:
        self._skip(1)
        return self._content[self.place - 1]
