"""Reads a flatbuffer within its bounds, many tables of one kind at once.

A flatbuffer (https://flatbuffers.dev/internals/) is a tree of tables, vectors and strings, which refer to each other by
offsets. The package `flatbuffers` follows them without a check, and so does LiteRT. Its verifier exists only in C++.
Here every offset is checked before it is followed, and one call of NumPy reads the same field of all tables of a kind.
"""

from typing import Any, NamedTuple

import numpy as np

MOST = 1_000_000  # entries of all vectors of one kind, as in the verifier for C++; a small file may name one often


class StructureError(ValueError):
    """A flatbuffer whose structure is not valid."""


def require(condition: Any, claim: str) -> None:
    """Raises `StructureError` unless a condition holds, or all of an array of them."""
    if not (condition if isinstance(condition, bool) else condition.all()):
        raise StructureError(claim)


class Ragged(NamedTuple):
    """Lists of different lengths, one after the other."""

    values: np.ndarray  # [total]
    owners: np.ndarray  # [total]  for each value, the number of its list


class Flatbuffer:
    """The content of a flatbuffer.

    Args:
        content: its bytes.

    Raises:
        StructureError: if the content is too short for a flatbuffer. All methods, also those of `Tables`, raise it
            if an offset leads out of the content.
    """

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._content = content
        self.root = Tables(self, self.numbers(np.zeros(1, np.int64), "<u4").astype(np.int64))

    def numbers(self, places: np.ndarray, kind: str) -> np.ndarray:
        """The numbers at places in the content, counted in bytes.

        Args:
            places: `[n]` int64.
            kind: the type of the numbers in NumPy, e.g. `<u4`. Their places must be multiples of its size.
        """
        width = np.dtype(kind).itemsize
        if len(places) == 0:  # as often as not, since tables leave most fields out
            return np.zeros(0, kind)
        require(bool(places.min() >= 0 and places.max() <= self.size - width), "an offset leads out of the file")
        if width > 1:
            require(places % width == 0, "an offset leads to a place that is not aligned")
        return np.frombuffer(self._content, kind, self.size // width)[places // width]


class Tables:
    """Tables of one kind.

    Args:
        buffer: their flatbuffer.
        places: the place of each table, `[n]` int64.
    """

    def __init__(self, buffer: Flatbuffer, places: np.ndarray) -> None:
        self.buffer, self._places = buffer, places
        self._layouts = places - buffer.numbers(places, "<i4")  # of the list of the offsets of a table's fields
        self._lengths = buffer.numbers(self._layouts, "<u2").astype(np.int64)
        self._sizes = buffer.numbers(self._layouts + 2, "<u2").astype(np.int64)
        require((self._lengths >= 4) & (self._lengths % 2 == 0), "a table has no valid layout")
        require(self._layouts + self._lengths <= buffer.size, "the layout of a table leads out of the file")
        require(places + self._sizes <= buffer.size, "a table leads out of the file")

    def __len__(self) -> int:
        return len(self._places)

    def _fields(self, slot: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The places of a field in the tables that have it, and the numbers of these tables."""
        owners = (self._lengths > 4 + 2 * slot).nonzero()[0]
        if len(owners) == 0:
            return owners, owners
        offsets = self.buffer.numbers(self._layouts[owners] + 4 + 2 * slot, "<u2").astype(np.int64)
        owners, offsets = owners[offsets > 0], offsets[offsets > 0]
        require((offsets >= 4) & (offsets + width <= self._sizes[owners]), "a field is outside of its table")
        return self._places[owners] + offsets, owners

    def has(self, *slots: int) -> bool:
        """Whether any of the tables has any of these fields."""
        return any(len(self._fields(slot, 0)[0]) > 0 for slot in slots)

    def numbers(self, slot: int, kind: str, default: int = 0) -> np.ndarray:
        """A field that is a number, `[n]` int64."""
        places, owners = self._fields(slot, np.dtype(kind).itemsize)
        result = np.full(len(self), default, np.int64)
        result[owners] = self.buffer.numbers(places, kind).astype(np.int64)
        return result

    def _targets(self, slot: int) -> tuple[np.ndarray, np.ndarray]:
        """The places to which a field refers, and the numbers of the tables that have it."""
        places, owners = self._fields(slot, 4)
        return places + self.buffer.numbers(places, "<u4"), owners

    def lengths(self, slot: int, kind: str = "u1") -> np.ndarray:
        """The number of entries of a field that is a vector, `[n]` int64; 0 for tables without the field."""
        targets, owners = self._targets(slot)
        counts = self.buffer.numbers(targets, "<u4").astype(np.int64)
        width = np.dtype(kind).itemsize
        require(targets + 4 + counts * width <= self.buffer.size, "a vector leads out of the file")
        require((counts == 0) | ((targets + 4) % width == 0), "a vector is not aligned")
        result = np.zeros(len(self), np.int64)
        result[owners] = counts
        return result

    def _entries(self, slot: int, kind: str) -> Ragged:
        """The place of every entry of a field that is a vector."""
        counts = self.lengths(slot, kind)
        require(counts.sum() <= MOST, f"it has more than {MOST:,} entries of one kind")
        targets, owners = self._targets(slot)
        starts = np.zeros(len(self), np.int64)
        starts[owners] = targets + 4
        rows = np.repeat(np.arange(len(self)), counts)
        numbers = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return Ragged(starts[rows] + np.dtype(kind).itemsize * numbers, rows)

    def vectors(self, slot: int, kind: str) -> Ragged:
        """The values of a field that is a vector of numbers."""
        places, owners = self._entries(slot, kind)
        return Ragged(self.buffer.numbers(places, kind), owners)

    def children(self, slot: int) -> tuple["Tables", np.ndarray]:
        """The tables in a field that is a vector of tables, each with the number of the table that has it."""
        places, owners = self._entries(slot, "<u4")
        return Tables(self.buffer, places + self.buffer.numbers(places, "<u4")), owners

    def child(self, slot: int) -> tuple["Tables", np.ndarray]:
        """The tables in a field that is a table, each with the number of the table that has it."""
        targets, owners = self._targets(slot)
        return Tables(self.buffer, targets), owners

    def check_texts(self, *slots: int) -> None:
        """Checks fields that are texts: within the file, and with a zero at the end, on which C++ relies."""
        for slot in slots:
            targets, owners = self._targets(slot)
            ends = targets + 4 + self.lengths(slot)[owners]
            require(self.buffer.numbers(ends, "u1") == 0, "a text has no end")

    def select(self, rows: np.ndarray) -> "Tables":
        """Some of the tables, by a mask, `[n]` bool."""
        return Tables(self.buffer, self._places[rows])
