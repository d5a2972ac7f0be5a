"""Dynamic batching: queries and bulk work meet here before the network.

No wait when idle: a lone picture runs at once. Under load, what arrived during one forward pass
shares the next. Queries overtake bulk work. A batch that fails is halved until the culprit is
alone, so that out of memory costs a retry and one bad picture costs only itself.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import structlog
import torch

from models import Extractor, Prepared
from service import tracing
from service.problems import Problem

logger = structlog.get_logger(__name__)

Lane = Literal["query", "bulk"]
Vectors = dict[str, npt.NDArray[np.float32]]
"""One picture's descriptors by space, dim float32 each, and grids by layer, C×H×W float32."""


@dataclass(frozen=True)
class _Waiting:
    extractor: Extractor
    prepared: Prepared
    grids: frozenset[str] = frozenset()
    since: float = field(default_factory=time.monotonic)
    trail: tracing.Trail | None = field(default_factory=tracing.trail)
    future: Future[Vectors] = field(default_factory=Future)

    @property
    def together(self) -> tuple[object, ...]:
        """What must be equal in one forward pass."""
        return id(self.extractor), self.grids, self.prepared.shapes


def awaited(waiting: Future[Vectors], seconds: float) -> Vectors:
    """What a picture's pass gave. Raises Problem (`request-timeout`), and what the pass raised."""
    try:
        return waiting.result(seconds)
    except FutureTimeoutError as error:
        waiting.cancel()
        raise Problem("request-timeout", f"no descriptor within {seconds:g} s") from error


def _stopping() -> Problem:
    return Problem("shutting-down", "the service is stopping: try again shortly")


class Batcher:
    """One thread that owns the device; `submit` from any other."""

    def __init__(
        self,
        batch_size: int,
        capacity: int,
        observe: Callable[[int, float], None],
    ) -> None:
        """At most `batch_size` pictures a pass; `capacity` waiting in each lane.

        `observe` is told the size and the seconds of every pass.
        """
        self.batch_size = batch_size
        self.capacity = capacity
        self._observe = observe
        self._lanes: dict[Lane, deque[_Waiting]] = {"query": deque(), "bulk": deque()}
        self._changed = threading.Condition()
        self._closed = False
        self._pictures_per_s = 10.0
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(
        self, extractor: Extractor, prepared: Prepared, lane: Lane, grids: Collection[str] = ()
    ) -> Future[Vectors]:
        """Queue a picture; `grids` are the layers whose activations are wanted as well.

        A full bulk lane blocks: back pressure. A full query lane raises Problem (`overloaded`),
        whose Retry-After is the time that draining it takes at the measured rate.
        """
        waiting = _Waiting(extractor, prepared, frozenset(grids))
        queue = self._lanes[lane]
        with self._changed:
            if lane == "query" and len(queue) >= self.capacity:
                seconds = max(1, round(len(queue) / self._pictures_per_s))
                raise Problem(
                    "overloaded",
                    f"{len(queue)} pictures are waiting already: try again in {seconds} s",
                    {"Retry-After": str(seconds)},
                )
            while len(queue) >= self.capacity and not self._closed:
                self._changed.wait()
            if self._closed:
                raise _stopping()
            queue.append(waiting)
            self._changed.notify_all()
        return waiting.future

    def close(self) -> None:
        """Finish the pass under way and answer what waits with Problem (`shutting-down`)."""
        with self._changed:
            self._closed = True
            left = [waiting for queue in self._lanes.values() for waiting in queue]
            for queue in self._lanes.values():
                queue.clear()
            self._changed.notify_all()
        for waiting in left:
            if waiting.future.set_running_or_notify_cancel():
                waiting.future.set_exception(_stopping())
        self._thread.join()

    def waiting(self) -> dict[Lane, int]:
        """How many pictures wait in each lane."""
        return {lane: len(queue) for lane, queue in self._lanes.items()}

    def oldest(self) -> dict[Lane, float]:
        """For how many seconds the first picture of each lane has waited; 0 where none waits."""
        now = time.monotonic()
        with self._changed:
            return {
                lane: now - queue[0].since if queue else 0.0 for lane, queue in self._lanes.items()
            }

    def _work(self) -> None:
        while batch := self._next():
            started = time.perf_counter()
            self._run(batch)
            seconds = time.perf_counter() - started
            self._observe(len(batch), seconds)
            tracing.passed([waiting.trail for waiting in batch], seconds)
            self._pictures_per_s += 0.2 * (len(batch) / max(seconds, 1e-6) - self._pictures_per_s)

    def _next(self) -> list[_Waiting]:
        """The next batch: one lane, one kind of pass, in order of arrival. Empty: closed."""
        with self._changed:
            while not (self._lanes["query"] or self._lanes["bulk"] or self._closed):
                self._changed.wait()
            if self._closed:
                return []
            queue = self._lanes["query"] or self._lanes["bulk"]
            batch = [queue.popleft()]
            while queue and len(batch) < self.batch_size and queue[0].together == batch[0].together:
                batch.append(queue.popleft())
            self._changed.notify_all()
            return batch

    def _run(self, batch: Sequence[_Waiting]) -> None:
        # A query whose client has gone needs no answer.
        batch = [w for w in batch if w.future.running() or w.future.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            prepared = [waiting.prepared for waiting in batch]
            seen = batch[0].extractor.forward(prepared, batch[0].grids)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end this thread
            self._isolate(batch, error)
            return
        for at, waiting in enumerate(batch):
            waiting.future.set_result({name: rows[at] for name, rows in seen.items()})

    def _isolate(self, batch: Sequence[_Waiting], error: Exception) -> None:
        if len(batch) == 1:
            logger.warning("a forward pass failed", error=str(error))
            batch[0].future.set_exception(error)
            return
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
        logger.warning("a batch failed and is halved", size=len(batch), error=str(error))
        middle = len(batch) // 2
        self._run(batch[:middle])
        self._run(batch[middle:])
