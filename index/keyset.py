"""A set of keys that one search after another is restricted to, or leaves out."""

from functools import cached_property
from typing import Any

import faiss as typed_faiss
import numpy as np
import numpy.typing as npt

from index.item import Keys

faiss: Any = typed_faiss  # its stubs know the signatures of C++, not the ones that Python has

SMALL_BITMAP = 2**23
"""Keys, of which a bitmap takes a MiB."""
BITS_PER_KEY = 64
"""Of a sparser bitmap than this a set takes less memory, and its making less time."""


class KeySet:
    """Ascending keys, each once. What FAISS needs of them is made once and then kept.

    >>> KeySet(np.array([2, 5])).has(np.array([1, 2, 5, 9])).tolist()
    [False, True, True, False]
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    @property
    def size(self) -> int:
        """How many keys."""
        return self.keys.size

    def upto(self, key: int) -> int:
        """How many of them are no greater than `key`."""
        return int(np.searchsorted(self.keys, key, side="right"))

    def has(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which of `keys` are among them."""
        return np.isin(keys, self.keys)

    @cached_property
    def within(self) -> Any:
        """FAISS's selector of these keys: one bit for each up to the greatest, or a set of few."""
        greatest = int(self.keys[-1]) if self.size else 0
        if greatest > max(SMALL_BITMAP, BITS_PER_KEY * self.size):
            return faiss.IDSelectorBatch(self.keys)
        bits = np.zeros(greatest + 1, dtype=np.bool_)
        bits[self.keys] = True
        return faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))

    @cached_property
    def outside(self) -> Any:
        """FAISS's selector of all other keys; None, which is cheaper, where there are no keys."""
        return faiss.IDSelectorNot(self.within) if self.size else None


NONE = KeySet(np.empty(0, dtype=np.int64))
