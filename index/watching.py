"""Recall, watched while it is used: a few live queries are answered exactly too, afterwards.

A search only leaves a note of what it found, and not even that where too many are waiting. Whoever
calls `measure`, in a thread of its own, compares with every descriptor of the catalog.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean, pstdev

import numpy as np
import numpy.typing as npt

from index import exhaustive, tuning, view
from index.database import Database
from index.gallery import Gallery
from index.generation import Work
from index.item import Keys, Vector
from index.keyset import KeySet
from index.space import Space

MOST_WAITING = 32
"""Notes of a collection; one pass over the catalog answers all of them."""
WINDOW = 200
"""Samples that the rolling recall is of."""
FEWEST = 30
"""Samples below which nothing is concluded."""


@dataclass(frozen=True)
class Note:
    """What a search was asked (`k` of a space, among `allowed` and keys up to `key`) and found."""

    space: str
    query: Vector
    k: int
    allowed: KeySet | None
    key: int
    keys: Keys
    scores: Vector


@dataclass
class Watched:
    """The rolling recall of one space; `samples` were answered and `dropped` ones not."""

    samples: int = 0
    dropped: int = 0
    tunings: int = 0
    recalls: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    asked: deque[tuple[Vector, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """Queries and k of unfiltered searches, to tune with."""

    @property
    def recall(self) -> float | None:
        """The mean of the last samples; None where there are none."""
        return fmean(self.recalls) if self.recalls else None

    def below(self, target: float) -> bool:
        """Whether the recall is below a target by more than its standard error."""
        if len(self.recalls) < FEWEST:
            return False
        error = pstdev(self.recalls) / math.sqrt(len(self.recalls))
        return fmean(self.recalls) + error < target


class Watch:
    """Of one collection: `share` of its searches are checked."""

    def __init__(
        self,
        database: Database,
        collection_id: int,
        spaces: Mapping[str, tuple[int, Space]],
        share: float,
    ) -> None:
        self.spaces = {name: Watched() for name in spaces}
        self._database = database
        self._collection_id = collection_id
        self._spaces = spaces
        self._share = share
        self._waiting: deque[Note] = deque()

    def chosen(self, space: str) -> bool:
        """Whether a search is to leave a note; never more wait than are answered in one pass."""
        if not self._share or random.random() >= self._share:  # noqa: S311 - a sample, no secret
            return False
        if len(self._waiting) < MOST_WAITING:
            return True
        self.spaces[space].dropped += 1
        return False

    def add(self, note: Note) -> None:
        """Leave it for `measure`."""
        self._waiting.append(note)

    def measure(self, work: Work) -> int:
        """Answer what is waiting, one pass over the catalog for each space; how many there were.

        Raises what `work.between` raises.
        """
        notes = sorted(
            (self._waiting.popleft() for _ in range(len(self._waiting))),
            key=lambda note: note.space,
        )
        for space, some in groupby(notes, lambda note: note.space):
            self._answer(space, list(some), work)
        return len(notes)

    def _answer(self, space: str, notes: list[Note], work: Work) -> None:
        space_id, described = self._spaces[space]
        with self._database.reading() as connection:
            gallery = Gallery(connection, self._collection_id, space_id, described)
            there = gallery.vectors(np.unique(np.concatenate([note.keys for note in notes])))[0]
            # What was removed since was a right answer then, and cannot be compared with now.
            notes = [note for note in notes if np.isin(note.keys, there).all()]
            if not notes:
                return
            best = exhaustive.best_scores(
                np.stack([note.query for note in notes]),
                max(note.k for note in notes),
                _barred(notes),
                tuning.paced(gallery.chunks(up_to=max(note.key for note in notes)), work),
            )
        watched = self.spaces[space]
        for note, scores in zip(notes, best, strict=True):
            watched.samples += 1
            best_of = view.bounded(scores[: note.k])  # as the note's are
            watched.recalls.append(exhaustive.recall(note.scores, best_of))
            if note.allowed is None:
                watched.asked.append((note.query, note.k))


def _barred(notes: list[Note]) -> Callable[[Keys], npt.NDArray[np.bool_]]:
    """What a search did not choose from: newer items, and those that its filter left out."""

    def barred(keys: Keys) -> npt.NDArray[np.bool_]:
        return np.stack(
            [
                (keys > note.key) | (False if note.allowed is None else ~note.allowed.has(keys))
                for note in notes
            ]
        )

    return barred
