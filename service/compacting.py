"""Compaction in the background: one collection at a time, each asked for once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import structlog

from index import Collection

logger = structlog.get_logger(__name__)

COMPACTION_S = 3600.0
"""A compaction that takes longer is taken for one that never ends."""


class Compactor:
    """A thread that seals new generations; where it hangs, another takes its place."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._under_way: tuple[str, float] | None = None
        self._stopping = threading.Event()
        self._thread = _thread()

    def soon(self, collection: Collection) -> None:
        """Seal a new generation in the background, unless that is under way already."""
        with self._lock:
            if collection.name in self._asked or self._stopping.is_set():
                return
            self._asked.add(collection.name)
            self._thread.submit(self._compact, collection)

    def stop(self) -> None:
        """Stop the compaction that is under way, and begin none: the service is draining."""
        self._stopping.set()

    def close(self) -> None:
        """Wait until it has stopped."""
        self.stop()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def failing(self) -> str | None:
        """What is wrong with the thread, if anything."""
        under_way = self._under_way
        if under_way is None or time.monotonic() - under_way[1] < COMPACTION_S:
            return None
        return f"a compaction takes more than {COMPACTION_S:g} s"

    def restart(self, why: str) -> None:
        """Leave the thread to what it hangs in; other collections are compacted by another.

        Those that waited behind it are asked for anew, by their next writes.
        """
        logger.error("the compactor is replaced", why=why)
        with self._lock:
            hung, self._under_way = self._under_way, None
            self._asked &= {hung[0]} if hung else set()
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = _thread()

    def _compact(self, collection: Collection) -> None:
        own = (collection.name, time.monotonic())
        with self._lock:
            self._under_way = own
        try:
            collection.compact(self._stopping)
        except Exception:
            logger.exception("compaction failed; searches go on", collection=collection.name)
        finally:
            with self._lock:
                if self._under_way is own:
                    self._under_way = None
                self._asked.discard(collection.name)


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="compact")
