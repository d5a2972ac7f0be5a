"""The delta: what is newer than the generation, searched exactly, or nearly so.

A `Delta` never changes. `extended` gives another one that shares the blocks, into the last of which
it writes only beyond what the older one sees; so readers go on with theirs and wait for nobody.
Descriptors stay as the catalog stores them, and FAISS scans them where they lie: at 512 dims that
is half the bytes of float32, and the interpreter is free meanwhile. Beside a generation that is
approximate itself, blocks that are full are not read but estimated, and only the best scored.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import faiss as typed_faiss
import numpy as np
import numpy.typing as npt

from index import estimates
from index.estimates import Estimates, Rows
from index.item import Keys, Vector
from index.keyset import KeySet
from index.space import Space

faiss: Any = typed_faiss  # its stubs know the signatures of C++, not the ones that Python has

BLOCK_ROWS = 8192
BLOCK_BYTES = 16 * 2**20
"""Room of a block, in items and for one space in bytes; it takes memory only as it is filled."""

FEWEST_PASSED_OVER = 4
"""Rows of a block for one that is scored; below that estimates are no quicker."""

Stored = npt.NDArray[Any]
"""(n, dim) in the dtype of its space."""
Mask = npt.NDArray[np.bool_]


@dataclass
class _Block:
    """Arrays of a fixed size; the first `filled` rows are final."""

    keys: Keys
    codes: Mapping[str, Stored]
    filled: int = 0
    estimates: dict[str, Estimates] = field(default_factory=dict)
    """By space, once it is full and somebody has made them."""

    @classmethod
    def of(cls, spaces: Mapping[str, Space]) -> "_Block":
        widest = max(np.dtype(space.dtype).itemsize * space.dim for space in spaces.values())
        rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES // widest))
        codes = {
            name: np.empty((rows, space.dim), dtype=space.dtype) for name, space in spaces.items()
        }
        return cls(np.empty(rows, dtype=np.int64), codes)


@dataclass(frozen=True)
class _Part:
    """What one delta sees of a block: its first rows; `alive` (n,) are those not removed."""

    block: _Block
    alive: Mask
    indexes: dict[str, Any] = field(default_factory=dict)
    selector: list[Any] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.alive.size

    @property
    def keys(self) -> Keys:
        return self.block.keys[: self.size]

    @cached_property
    def dead(self) -> int:
        """How many are removed."""
        return self.size - int(np.count_nonzero(self.alive))

    def extended(self, keys: Keys, codes: Mapping[str, Stored]) -> "_Part":
        """With newer items, for which there is room and nobody's rows."""
        after = self.size + keys.size
        self.block.keys[self.size : after] = keys
        for space, new in codes.items():
            self.block.codes[space][self.size : after] = new
        self.block.filled = after
        return _Part(self.block, np.append(self.alive, np.ones(keys.size, dtype=np.bool_)))

    def only(self, kept: Mask) -> "_Part":
        """With what is alive and `kept`; itself where that is the same."""
        alive = self.alive & kept
        if np.array_equal(alive, self.alive):
            return self
        return _Part(self.block, alive, self.indexes)

    def search(
        self, space: str, query: Vector, k: int, allowed: KeySet | None
    ) -> tuple[Keys, Vector]:
        parameters = faiss.SearchParameters(sel=self._eligible(allowed))
        index = self.indexes.get(space)
        if index is None:
            index = self.indexes[space] = _scanning(self.block.codes[space], self.size)
        scores, rows = index.search(query[None], min(k, self.size), params=parameters)
        found = rows[0] >= 0
        return self.keys[rows[0][found]], scores[0][found]

    def estimated(self, space: str, candidates: int) -> Estimates | None:
        """What finds so many candidates without reading all, unless these or the dead are many."""
        few = self.size < max(self.block.keys.size, FEWEST_PASSED_OVER * candidates)
        if few or self.dead > candidates:
            return None
        return self.block.estimates.get(space)

    def candidates(
        self, estimates: Estimates, query: Vector, candidates: int
    ) -> tuple[Rows, Vector]:
        """The rows of the best estimates, and these."""
        rows, scores = estimates.best(query, min(candidates + self.dead, self.size))
        alive = self.alive[rows]
        return rows[alive], scores[alive]

    def scored(self, space: str, query: Vector, rows: Rows) -> tuple[Keys, Vector]:
        """Keys and inner products of some rows."""
        read = self.block.codes[space][rows].astype(np.float32, copy=False)
        # Unlike a product of matrices this gives equal rows equal scores, wherever they stand.
        return self.keys[rows], np.einsum("nd,d->n", read, query)

    def _eligible(self, allowed: KeySet | None) -> Any:
        if allowed is not None:
            return _selector(self.alive & allowed.has(self.keys))
        if not self.selector:
            self.selector.append(None if self.alive.all() else _selector(self.alive))
        return self.selector[0]


@dataclass(frozen=True)
class Delta:
    """Keys, ascending, with their descriptors in every space."""

    _spaces: Mapping[str, Space]
    _parts: tuple[_Part, ...] = ()

    @classmethod
    def empty(cls, spaces: Mapping[str, Space]) -> "Delta":
        """Of no items, in these spaces."""
        return cls(spaces)

    def __len__(self) -> int:
        """How many items, less the removed ones."""
        return sum(int(np.count_nonzero(part.alive)) for part in self._parts)

    @property
    def keys(self) -> Keys:
        """(n,) int64, removed ones left out."""
        none: Keys = np.empty(0, dtype=np.int64)
        return np.concatenate([none, *(part.keys[part.alive] for part in self._parts)])

    def extended(self, keys: Keys, codes: Mapping[str, Stored]) -> "Delta":
        """This delta with newer items: keys above all of its own, (m, dim) for every space."""
        parts, at = list(self._parts), 0
        while at < keys.size:
            last = parts[-1] if parts else None
            if (
                last is None
                or last.block.filled != last.size
                or last.block.filled == last.block.keys.size
            ):
                last = _Part(_Block.of(self._spaces), np.zeros(0, dtype=np.bool_))
                parts.append(last)
            upto = at + last.block.keys.size - last.size
            new = {space: rows[at:upto] for space, rows in codes.items()}
            parts[-1] = last.extended(keys[at:upto], new)
            at = upto
        return replace(self, _parts=tuple(parts))

    def without(self, keys: Keys) -> "Delta":
        """This delta with some items removed; keys that are not here are ignored."""
        return self._only([~np.isin(part.keys, keys) for part in self._parts])

    def beyond(self, key: int) -> "Delta":
        """This delta with only the keys above `key`."""
        return self._only([part.keys > key for part in self._parts])

    def unestimated(self) -> bool:
        """Whether `estimate` has something to do."""
        return any(True for _ in self._unestimated())

    def estimate(self) -> None:
        """Make estimates of full blocks, 40 ms for each, in any thread; this delta stays as it is.

        Every delta that shares the blocks can be searched `nearly` by them.
        """
        for block, space in self._unestimated():
            block.estimates[space] = Estimates(block.codes[space])

    def search(
        self, space: str, query: Vector, k: int, allowed: KeySet | None, *, nearly: bool = False
    ) -> tuple[Keys, Vector]:
        """At most k best by inner product: keys and scores, in no order.

        `nearly`: where all are allowed, those of full blocks are the best by their estimates, and a
        true one may be missing. Scores are exact in any case.
        """
        wanted = estimates.CANDIDATES * k
        nearly = nearly and allowed is None
        found, quick = [], []
        for part in self._parts:
            by = part.estimated(space, wanted) if nearly else None
            if by is None:
                found.append(part.search(space, query, k, allowed))
            else:
                quick.append((part, *part.candidates(by, query, wanted)))
        if quick:
            found += _scored(space, query, wanted, quick)
        if not found:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        keys = np.concatenate([keys for keys, _ in found])
        scores = np.concatenate([scores for _, scores in found])
        if len(found) == 1 or keys.size <= k:
            return keys, scores
        best = np.argpartition(scores, keys.size - k)[keys.size - k :]
        return keys[best], scores[best]

    def _unestimated(self) -> Iterator[tuple[_Block, str]]:
        for part in self._parts:
            if part.block.filled == part.block.keys.size:
                for name, space in self._spaces.items():
                    if estimates.help_in(space) and name not in part.block.estimates:
                        yield part.block, name

    def _only(self, kept: list[Mask]) -> "Delta":
        parts = [part.only(mask) for part, mask in zip(self._parts, kept, strict=True)]
        return replace(self, _parts=tuple(part for part in parts if part.alive.any()))


def _scored(
    space: str, query: Vector, wanted: int, candidates: list[tuple[_Part, Rows, Vector]]
) -> list[tuple[Keys, Vector]]:
    """Keys and inner products of the best so many of all candidates."""
    every = np.concatenate([scores for _, _, scores in candidates])
    bar = (
        np.partition(every, every.size - wanted)[every.size - wanted]
        if every.size > wanted
        else -np.inf
    )
    return [part.scored(space, query, rows[scores >= bar]) for part, rows, scores in candidates]


def _scanning(codes: Stored, size: int) -> Any:
    """A FAISS index over the first rows of an array, which is not copied."""
    rows, dim = codes.shape
    if codes.dtype == np.float16:
        kind = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexFlat(dim, faiss.METRIC_INNER_PRODUCT)
    view, address = index.codes, faiss.swig_ptr(codes.reshape(-1).view(np.uint8))
    view.is_owned = False
    view.view_data = view.c_ptr = address
    view.view_size = view.c_size = size * (codes.nbytes // rows)
    index.ntotal = size
    return index


def _selector(mask: Mask) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
