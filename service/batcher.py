"""Dynamic batching: queries, uploads and bulk work meet here before the network.

No wait when idle: a lone picture runs at once. Under load, what arrived during one forward pass
shares the next. Queries overtake uploads, and both overtake bulk work, whose passes are kept short
while queries come. A batch that fails is halved until the culprit is alone; sizes that do not fit
into memory are remembered (`service.fitting`).

One thread owns the device. Where a pass kills it or never ends, `restart` abandons it: Python
cannot end a thread, so its pictures fail, a new thread takes over, and whatever the old one still
computes is thrown away.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import structlog

from models import Extractor, Prepared
from service import tracing
from service.fitting import Fitting, is_out_of_memory, release_memory
from service.lanes import LANES, Lane
from service.problems import Problem
from service.stages import Stages

logger = structlog.get_logger(__name__)

Vectors = dict[str, npt.NDArray[np.float32]]
"""One picture's descriptors by space, dim float32 each, and grids by layer, C×H×W float32."""

QUERIES_COME_S = 10.0
"""So long after a query the next one is expected, and bulk passes are kept short."""

BULK_PASSES = 1.5
"""How long a bulk pass may then be, in passes of a lone picture: it bounds what a query waits."""

MOST_ZOMBIES = 3
"""Abandoned threads that still hang; with more the process has to be started again."""


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

    def is_wanted(self) -> bool:
        """A query whose client has gone needs no answer, nor what was given up meanwhile."""
        if self.future.done() and not self.future.cancelled():
            return False
        try:
            return self.future.running() or self.future.set_running_or_notify_cancel()
        except InvalidStateError:
            return False

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(eq=False)
class _Shift:
    """The time for which one thread owns the device."""

    thread: threading.Thread | None = None
    under_way: list[_Waiting] = field(default_factory=list)
    since: float | None = None
    """When the pass under way began; None: it waits for work."""


def _stopping() -> Problem:
    return Problem("shutting-down", "the service is stopping: try again shortly")


def _hopeless() -> Problem:
    return Problem("forward-lost", "forward passes hang: the service must be restarted")


class Batcher:
    """One thread that owns the device; `submit` from any other."""

    def __init__(
        self,
        batch_size: int,
        capacity: int,
        observe: Callable[[int, float], None],
        stuck_s: float = 120.0,
        stages: Stages | None = None,
    ) -> None:
        """At most `batch_size` pictures a pass; `capacity` waiting in each lane.

        `observe` is told the size and the seconds of every pass. A pass of more than `stuck_s` is
        taken for one that will never end. `stages` counts how long they took, and what waited.
        """
        self.batch_size = batch_size
        self.capacity = capacity
        self.stuck_s = stuck_s
        self._observe = observe
        self._stages = stages or Stages({"forward": 1})
        self._lanes: dict[Lane, deque[_Waiting]] = {lane: deque() for lane in LANES}
        self._changed = threading.Condition()
        self._closed = False
        self._pictures_per_s = 10.0
        self._last_query = -math.inf
        self._fitting = Fitting(batch_size)
        self._zombies: list[threading.Thread] = []
        self._shift = self._started()

    def submit(
        self, extractor: Extractor, prepared: Prepared, lane: Lane, grids: Collection[str] = ()
    ) -> Future[Vectors]:
        """Queue a picture; `grids` are the layers whose activations are wanted as well.

        A full lane blocks who feeds it: back pressure. A full query lane raises Problem
        (`overloaded`), whose Retry-After is the time that draining it takes at the measured rate.
        """
        return self.submit_together(extractor, [prepared], lane, grids)[0]

    def submit_together(
        self,
        extractor: Extractor,
        pictures: Sequence[Prepared],
        lane: Lane,
        grids: Collection[str] = (),
    ) -> list[Future[Vectors]]:
        """Queue pictures at once, as `submit` does one, so that they share a pass if they can."""
        if not pictures:  # No pass is wanted: no full lane refuses that.
            return []
        waiting = [_Waiting(extractor, prepared, frozenset(grids)) for prepared in pictures]
        queue = self._lanes[lane]
        with self._changed:
            if lane == "query":
                self._last_query = time.monotonic()
                if len(queue) >= self.capacity:
                    seconds = max(1, round(len(queue) / self._pictures_per_s))
                    raise Problem(
                        "overloaded",
                        f"{len(queue)} pictures are waiting already: try again in {seconds} s",
                        {"Retry-After": str(seconds)},
                    )
            while len(queue) >= self.capacity and not self._closed and not self.hopeless():
                self._changed.wait()
            if self._closed:
                raise _stopping()
            if self.hopeless():
                raise _hopeless()
            queue.extend(waiting)
            self._changed.notify_all()
        return [one.future for one in waiting]

    def close(self) -> None:
        """Finish the pass under way and answer what waits with Problem (`shutting-down`).

        A pass that hangs is left behind.
        """
        with self._changed:
            self._closed = True
            left = [waiting for queue in self._lanes.values() for waiting in queue]
            for queue in self._lanes.values():
                queue.clear()
            self._changed.notify_all()
        for waiting in left:
            if waiting.future.set_running_or_notify_cancel():
                waiting.fail(_stopping())
        thread = self._shift.thread
        while thread and thread.is_alive() and not self.failing():
            thread.join(0.5)

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

    def failing(self) -> str | None:
        """What is wrong with the thread that owns the device, if anything."""
        shift = self._shift
        if shift.thread and not shift.thread.is_alive() and not self._closed:
            return "the thread that owns the device has ended"
        since = shift.since
        if since is not None and time.monotonic() - since > self.stuck_s:
            return f"a forward pass takes more than {self.stuck_s:g} s"
        return None

    def hopeless(self) -> bool:
        """Whether so many threads hang that a new one would only be the next of them."""
        self._zombies = [thread for thread in self._zombies if thread.is_alive()]
        return len(self._zombies) > MOST_ZOMBIES

    def restart(self, why: str) -> None:
        """Abandon the thread, fail the pictures that it has, and have another go on."""
        waiting: list[_Waiting] = []
        with self._changed:
            lost = self._shift
            if lost.thread in self._zombies and self.hopeless():
                return
            if lost.thread and lost.thread.is_alive() and lost.thread not in self._zombies:
                self._zombies.append(lost.thread)
            pictures = list(lost.under_way)
            if self.hopeless():
                for queue in self._lanes.values():
                    waiting += queue
                    queue.clear()
                self._changed.notify_all()
            elif not self._closed:
                self._shift = self._started()
        for one in waiting:
            one.fail(_hopeless())
        logger.error("the forward stage is restarted", why=why, pictures=len(pictures))
        for one in pictures:
            one.fail(Problem("forward-lost", f"{why}: the picture was given up"))

    def _started(self) -> _Shift:
        shift = _Shift()
        thread = threading.Thread(target=self._work, args=(shift,), name="batcher", daemon=True)
        shift.thread = thread
        self._shift = shift
        thread.start()
        return shift

    def _work(self, shift: _Shift) -> None:
        while batch := self._next(shift):
            started, now = time.perf_counter(), time.monotonic()
            waited = sum(now - waiting.since for waiting in batch)
            self._run(shift, batch)
            seconds = time.perf_counter() - started
            with self._changed:
                if self._shift is not shift:
                    return
                shift.under_way, shift.since = [], None
                # It was given up for good while nothing could take its place, and got through.
                self._zombies = [each for each in self._zombies if each is not shift.thread]
            self._observe(len(batch), seconds)
            self._stages.add("forward", seconds, waited)
            tracing.passed([waiting.trail for waiting in batch], seconds)
            self._pictures_per_s += 0.2 * (len(batch) / max(seconds, 1e-6) - self._pictures_per_s)

    def _next(self, shift: _Shift) -> list[_Waiting]:
        """The next batch: one lane, one kind of pass, in order of arrival. Empty: closed."""
        with self._changed:
            while not (any(self._lanes.values()) or self._closed or self._shift is not shift):
                self._changed.wait()
            if self._closed or self._shift is not shift:
                return []
            lane = next(lane for lane in LANES if self._lanes[lane])
            queue = self._lanes[lane]
            batch = [queue.popleft()]
            most = self._most(batch[0], lane)
            while queue and len(batch) < most and queue[0].together == batch[0].together:
                batch.append(queue.popleft())
            shift.under_way, shift.since = batch, time.monotonic()
            self._changed.notify_all()
            return batch

    def _most(self, first: _Waiting, lane: Lane) -> int:
        """How many pictures of a kind may share the next pass."""
        kind = self._fitting.of(first.extractor, first.together[1:])
        queries_come = time.monotonic() - self._last_query < QUERIES_COME_S
        return kind.within(BULK_PASSES) if queries_come and lane != "query" else kind.most

    def _run(self, shift: _Shift, batch: Sequence[_Waiting]) -> None:
        if self._shift is not shift:
            return
        batch = [waiting for waiting in batch if waiting.is_wanted()]
        if not batch:
            return
        shift.since = time.monotonic()  # Of this pass, however many the batch is halved into.
        first = batch[0]
        kind = self._fitting.of(first.extractor, first.together[1:])
        if len(batch) > kind.most:
            self._run(shift, batch[: kind.most])
            self._run(shift, batch[kind.most :])
            return
        started = time.perf_counter()
        failed: Exception | None = None
        try:
            seen = first.extractor.forward([waiting.prepared for waiting in batch], first.grids)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end this thread
            # Its frames hold the activations of the pass: they must be gone before the next.
            failed = error.with_traceback(None) if len(batch) > 1 else error
        if failed:
            if is_out_of_memory(failed):
                kind.did_not_fit(len(batch))
                release_memory()
            self._isolate(shift, batch, failed)
            return
        kind.fitted(len(batch), time.perf_counter() - started)
        if self._shift is not shift:
            return
        for at, waiting in enumerate(batch):
            with suppress(InvalidStateError):
                waiting.future.set_result({name: rows[at] for name, rows in seen.items()})

    def _isolate(self, shift: _Shift, batch: Sequence[_Waiting], error: Exception) -> None:
        if len(batch) == 1:
            logger.warning("a forward pass failed", error=str(error))
            if is_out_of_memory(error):
                error = Problem("forward-out-of-memory", "there is no memory for this picture")
            batch[0].fail(error)
            return
        logger.warning("a batch failed and is halved", size=len(batch), error=str(error))
        middle = len(batch) // 2
        self._run(shift, batch[:middle])
        self._run(shift, batch[middle:])
