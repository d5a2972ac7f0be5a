"""Compaction: all items of one snapshot of the catalog become the next generations.

It runs in a thread of its own, of low priority, steps back while searches run, and can be stopped
between any two chunks; then, as after a crash, nothing is recorded and the old generations go on.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss as typed_faiss
import numpy as np
from sqlalchemy import Connection, func, select

from index import descriptors, generation, planner, tables
from index.database import Database
from index.generation import Generation, Sealed
from index.item import Keys, Vector
from index.space import Space
from index.view import View

faiss: Any = typed_faiss  # its stubs know the signatures of C++, not the ones that Python has

ITEMS, REMOVALS = tables.items, tables.removals
SEED = 1
ROWS_AT_ONCE = 1024
"""Items between two looks at whether to stop or to step back."""
THREADS = max(1, (os.cpu_count() or 1) // 2)
"""Of OpenMP: a compaction is in no hurry, and searches want the other cores."""
NICENESS = 10
LONGEST_PAUSE_S = 0.5


class Cancelled(Exception):  # noqa: N818 - nothing went wrong
    """The compaction was asked to stop."""


@dataclass(frozen=True)
class Pace:
    """How a compaction gives way. `searched` is when a search last began or ended (monotonic s)."""

    stop: threading.Event
    searched: Callable[[], float]

    def chunks(self, chunks: Iterator[tuple[Keys, Vector]]) -> Iterator[tuple[Keys, Vector]]:
        """The same in small pieces, with a pause as long as the work where searches go on."""
        for keys, vectors in chunks:
            for at in range(0, keys.size, ROWS_AT_ONCE):
                began = time.monotonic()
                yield keys[at : at + ROWS_AT_ONCE], vectors[at : at + ROWS_AT_ONCE]
                self.give_way(began)

    def give_way(self, began: float) -> None:
        """Pause after work since `began`. Raises Cancelled."""
        now = time.monotonic()
        busy = self.searched() >= began
        if self.stop.wait(min(now - began, LONGEST_PAUSE_S)) if busy else self.stop.is_set():
            raise Cancelled


@dataclass(frozen=True)
class Compaction:
    """Compactions of one collection."""

    database: Database
    collection_id: int
    spaces: Mapping[str, tuple[int, Space]]
    policy: planner.Policy
    folder: Path

    def run(self, view: View, number: int, pace: Pace) -> dict[str, Generation]:
        """Seal all items of now under `number`: what the disk gives back, not recorded yet.

        Raises OSError when the disk is full, and Cancelled.
        """
        with ThreadPoolExecutor(1, "compaction", initializer=_step_back) as thread:
            sealing = thread.submit(self._run, view, number, pace)
            try:
                return sealing.result()
            except BaseException:  # also an interrupt of whoever waits here
                pace.stop.set()
                raise

    def _run(self, view: View, number: int, pace: Pace) -> dict[str, Generation]:
        with self.database.reading() as connection:
            high_key, removal_seq = self._reach(connection, view)
            return {
                name: self._seal(connection, name, number, high_key, removal_seq, pace)
                for name in self.spaces
            }

    def _seal(
        self,
        connection: Connection,
        name: str,
        number: int,
        high_key: int,
        removal_seq: int,
        pace: Pace,
    ) -> Generation:
        space_id, space = self.spaces[name]
        count = descriptors.count(connection, space_id)
        plan = planner.plan(count, space.dtype, self.policy)
        index = generation.build(
            plan,
            space.dim,
            sample=self._sample(connection, name, plan.lists * planner.POINTS_PER_LIST),
            chunks=pace.chunks(descriptors.after(connection, space_id, space, 0)),
        )
        path = self.folder / f"{name}-{number}.faiss"
        sha256, size = generation.seal(index, path)
        del index  # what is searched from here on is what the disk gives back
        return generation.load(
            path,
            Sealed(
                number=number,
                file=path.name,
                sha256=sha256,
                kind=plan.kind,
                why=plan.why,
                probes=plan.probes,
                count=count,
                bytes=size,
                high_key=high_key,
                removal_seq=removal_seq,
            ),
        )

    def _sample(self, connection: Connection, name: str, size: int) -> Iterator[Vector]:
        """`size` descriptors of a space at random, in chunks."""
        space_id, space = self.spaces[name]
        of_collection = select(ITEMS.c.key).where(ITEMS.c.collection_id == self.collection_id)
        keys = np.fromiter(connection.execute(of_collection).scalars(), dtype=np.int64)
        chosen = np.random.default_rng(SEED).choice(keys, min(size, keys.size), replace=False)
        for part in np.array_split(np.sort(chosen), max(1, chosen.size // 8192)):
            yield descriptors.of_keys(connection, space_id, space, part)[1]

    def _reach(self, connection: Connection, view: View) -> tuple[int, int]:
        """The greatest key and removal of this snapshot; neither ever goes back."""
        greatest = connection.execute(
            select(func.max(ITEMS.c.key)).where(ITEMS.c.collection_id == self.collection_id)
        ).scalar()
        latest = connection.execute(
            select(func.max(REMOVALS.c.seq)).where(REMOVALS.c.collection_id == self.collection_id)
        ).scalar()
        return max(greatest or 0, view.key), max(latest or 0, view.removal)


def _step_back() -> None:
    """Few threads of OpenMP and a low priority, for this thread alone, which is here for this."""
    faiss.omp_set_num_threads(min(faiss.omp_get_max_threads(), THREADS))
    thread = threading.get_native_id()  # to Linux a thread has a priority of its own
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
