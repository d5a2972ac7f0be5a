"""How many pictures share a forward pass: as many as fit into memory, and into a slice of time."""

import gc
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from models import Extractor

PATIENCE = 64
"""Passes of the largest size that fits before one more is tried; doubled when it did not fit."""

_SAYS_NO_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
"""How torch words it on the CPU, where it raises a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a pass failed for want of memory, on a GPU or on the CPU.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"))
    True
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _SAYS_NO_MEMORY)


def release_memory() -> None:
    """Give back what the failed pass left behind, before a smaller one."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass
class Kind:
    """What is known of one kind of pass: an extractor, shapes and layers.

    >>> kind = Kind(16)
    >>> kind.did_not_fit(16)
    >>> kind.most
    8
    >>> for _ in range(PATIENCE):
    ...     kind.fitted(8, 0.1)
    >>> kind.most  # one more is tried
    9
    >>> kind.did_not_fit(9)
    >>> kind.most
    8
    """

    limit: int
    most: int = 0
    fits: int = 0
    """The largest size that went well since memory was last short."""
    _patience: int = PATIENCE
    _at_most: int = 0
    _lone_s: float | None = None
    _picture_s: float | None = None

    def __post_init__(self) -> None:
        self.most = self.most or self.limit

    def did_not_fit(self, size: int) -> None:
        """A pass of this size failed for want of memory."""
        if self.fits == size - 1 > 0:
            self._patience *= 2
        self.fits = self.fits if self.fits < size else size // 2
        self.most = max(1, size // 2, self.fits)
        self._at_most = 0

    def fitted(self, size: int, seconds: float) -> None:
        """A pass of this size took so long."""
        self.fits = max(self.fits, size)
        if size == 1:
            self._lone_s = _smoothed(self._lone_s, seconds)
        else:
            self._picture_s = _smoothed(self._picture_s, seconds / size)
        self._at_most += size == self.most
        if self._at_most >= self._patience and self.most < self.limit:
            self.most, self._at_most = self.most + 1, 0

    def within(self, passes: float) -> int:
        """How many pictures take about as long as so many passes of one; at least 1.

        >>> kind = Kind(16)
        >>> kind.within(1.5)  # nothing is known yet
        1
        >>> kind.fitted(1, 0.010)
        >>> kind.fitted(2, 0.014)
        >>> kind.within(1.5)  # 15 ms at 7 ms each
        2
        """
        if self._lone_s is None:
            return 1
        if self._picture_s is None:
            return min(2, self.most)
        return max(1, min(self.most, int(passes * self._lone_s / self._picture_s)))


def _smoothed(known: float | None, seconds: float) -> float:
    return seconds if known is None else known + 0.2 * (seconds - known)


class Fitting:
    """Kinds of passes, forgotten with their extractors."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kinds: WeakKeyDictionary[Extractor, dict[object, Kind]] = WeakKeyDictionary()

    def of(self, extractor: Extractor, shape: object) -> Kind:
        """What is known of passes of this extractor over such pictures."""
        return self._kinds.setdefault(extractor, {}).setdefault(shape, Kind(self._limit))
