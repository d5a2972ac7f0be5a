"""MAT-files of version 5 to 7 (MATLAB's level 5 format): numbers, text, cells, structures.

The format is MathWorks' "MAT-File Format"; the tables are its tables 1-1 and 1-3. Why not by scipy:
docs/decisions/0008.
"""

import math
import struct
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from index.errors import EvaluationError

MOST_INFLATED = 256 * 2**20
DEEPEST = 16
MOST_SIDES = 32
MOST_FIELDS = 1_000
"""Revisited Oxford's structures have four."""

_NUMBERS: Mapping[int, str] = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
"""How numbers are stored, by type of element."""
_TEXTS: Mapping[int, str] = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_MATRIX, _COMPRESSED = 14, 15

_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
"""Classes of matrices: double, single, and the integers."""
_COMPLEX = 0x0800


def load(name: str, content: bytes, variables: Collection[str]) -> dict[str, Any]:
    """Those of `variables` that the file has.

    Numbers become arrays, text `str`, a cell array the list of its cells and a structure array the
    list of its structures as dicts, both in MATLAB's order.

    Raises EvaluationError: `truth-file-broken`, `truth-file-too-large`.
    """
    if content[:10] == b"MATLAB 7.3" or content[:4] == b"\x89HDF":
        raise _broken(name, "version 7.3 is HDF5 and not read here: save it with -v7")
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        raise _broken(name, "it is no MAT-file of version 5 to 7")
    order: Literal["<", ">"] = "<" if content[126:128] == b"IM" else ">"
    reading = _Reading(name, order)
    try:
        return dict(reading.variables(content[128:], variables))
    except (ValueError, LookupError, struct.error, zlib.error) as error:
        raise _broken(name, str(error)) from error


@dataclass
class _Element:
    kind: int
    content: memoryview


class _Reading:
    def __init__(self, name: str, order: Literal["<", ">"]) -> None:
        self._name = name
        self._order: Literal["<", ">"] = order
        self._inflatable = MOST_INFLATED

    def variables(self, content: bytes, wanted: Collection[str]) -> list[tuple[str, Any]]:
        left = memoryview(content)
        found = []
        while left:
            element, left = self.element(left, padded=False)
            if element.kind == _COMPRESSED:
                element, _ = self.element(memoryview(self._inflate(element.content)))
            if element.kind != _MATRIX:
                raise ValueError(f"it has an element of type {element.kind} among its variables")
            matrix = _Matrix(self, element.content)
            if matrix.name in wanted:
                found.append((matrix.name, matrix.value(0)))
        return found

    def _inflate(self, content: memoryview) -> bytes:
        inflated = zlib.decompressobj().decompress(content, self._inflatable + 1)
        if len(inflated) > self._inflatable:
            raise EvaluationError(
                "truth-file-too-large",
                f"{self._name} unpacks to more than {MOST_INFLATED:,} bytes",
            )
        self._inflatable -= len(inflated)
        return inflated

    def element(self, content: memoryview, *, padded: bool = True) -> tuple[_Element, memoryview]:
        """The first element, and what follows it."""
        kind, size = struct.unpack_from(f"{self._order}II", content)
        start = 8
        if kind >> 16:  # a small element: four bytes of data in the tag itself
            kind, size, start = kind & 0xFFFF, kind >> 16, 4
        end = start + size
        if end > len(content) or (start == 4 and size > 4):
            raise ValueError("it ends before its last element does")
        following = 8 if start == 4 else end + (-end % 8 if padded else 0)
        return _Element(kind, content[start:end]), content[following:]

    def elements(self, content: memoryview) -> "_Elements":
        return _Elements(self, content)

    def numbers(self, element: _Element) -> np.ndarray[Any, np.dtype[Any]]:
        dtype = np.dtype(_NUMBERS[element.kind]).newbyteorder(self._order)
        return np.frombuffer(element.content, dtype)

    def text(self, element: _Element) -> str:
        encoding = _TEXTS[element.kind]
        if encoding == "utf-16":
            encoding += "-le" if self._order == "<" else "-be"
        return str(element.content, encoding)


class _Elements:
    """The elements of a matrix, one after another."""

    def __init__(self, reading: _Reading, content: memoryview) -> None:
        self._reading = reading
        self.left = content

    def next(self) -> _Element:
        element, self.left = self._reading.element(self.left)
        return element


class _Matrix:
    """A matrix whose flags, dimensions and name are read, and whose value may be."""

    def __init__(self, reading: _Reading, content: memoryview) -> None:
        self._reading = reading
        self._elements = reading.elements(content)
        flags = int(reading.numbers(self._elements.next())[0])
        self._class, self._complex = flags & 0xFF, bool(flags & _COMPLEX)
        sides = reading.numbers(self._elements.next())
        if sides.size > MOST_SIDES:
            raise ValueError(f"a matrix has {sides.size:,} sides")
        self._shape = tuple(int(side) for side in sides)
        if any(side < 0 for side in self._shape):
            raise ValueError(f"a matrix has the shape {self._shape}")
        self.name = reading.text(self._elements.next())

    def value(self, depth: int) -> Any:
        if depth > DEEPEST:
            raise ValueError(f"its cells are nested deeper than {DEEPEST}")
        if self._class == _CELL:
            return [self._inner(depth) for _ in range(self._count())]
        if self._class == _STRUCT:
            return self._structures(depth)
        if self._class == _CHAR and self._shape[0] <= 1:
            return self._reading.text(self._elements.next())
        if self._class in _NUMERIC and not self._complex:
            numbers = self._reading.numbers(self._elements.next())
            return numbers.reshape(self._shape, order="F")
        raise ValueError(f"matrices of class {self._class} are not read")

    def _count(self) -> int:
        """How many cells or structures follow: each takes eight bytes at least."""
        count = math.prod(self._shape)
        if count * 8 > len(self._elements.left):
            raise ValueError(f"it has no room for {count:,} cells")
        return count

    def _structures(self, depth: int) -> list[dict[str, Any]]:
        longest = int(self._reading.numbers(self._elements.next())[0])
        names = bytes(self._elements.next().content)
        if longest < 1:
            raise ValueError("a structure has fields without names")
        if len(names) > MOST_FIELDS * longest:
            raise ValueError(f"a structure has more than {MOST_FIELDS:,} fields")
        fields = [
            names[at : at + longest].split(b"\0")[0].decode("latin-1")
            for at in range(0, len(names), longest)
        ]
        return [{field: self._inner(depth) for field in fields} for _ in range(self._count())]

    def _inner(self, depth: int) -> Any:
        element = self._elements.next()
        if element.kind != _MATRIX:
            raise ValueError(f"a cell is an element of type {element.kind}")
        if not element.content:
            return np.empty((0, 0))
        return _Matrix(self._reading, element.content).value(depth + 1)


def _broken(name: str, why: str) -> EvaluationError:
    return EvaluationError("truth-file-broken", f"{name} cannot be read: {why}")
