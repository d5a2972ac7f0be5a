"""Processes that decode pictures: one that hangs or crashes costs its picture, and is replaced.

Each lane has processes of its own, started when they are first needed, and the operating system
gives those of a busier lane what the others leave: a query's picture never waits for a job's.
"""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from models import Limits, PictureError, Preparation, PreparedPicture
from service.clock import Clock
from service.decoding import wire
from service.decoding.process import START_S, Process
from service.lanes import Lane
from service.problems import Problem
from service.stages import Stages

logger = structlog.get_logger(__name__)

NICE: Mapping[Lane, int] = {"query": 0, "upload": 5, "bulk": 10}
"""How far a lane's processes stand back: what a query needs of a processor it gets first."""

POLL_S = 0.25
"""How soon one who waits for a free process notices that its client has gone."""


class Decoders:
    """At most `most` decoding processes in each lane; safe to use from many threads."""

    def __init__(
        self,
        most: int,
        limits: Limits,
        timeout_s: float,
        lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`timeout_s` is what one picture may take; `lost` is told the code when one took all."""
        self.timeout_s = timeout_s
        self._lost = lost
        self._crews = {
            lane: _Crew(most, partial(Process, limits, nice)) for lane, nice in NICE.items()
        }

    def prepare(
        self,
        content: bytes,
        wanted: Preparation,
        lane: Lane,
        clock: Clock | None = None,
        stages: Stages | None = None,
    ) -> PreparedPicture:
        """Decode and prepare a picture, in a process; `stages` counts what that took.

        Raises PictureError, and Problem: `decode-timeout`, `decoder-lost` where the process ended
        under this picture, `decoder-unavailable` where none can be started, `request-timeout` and
        `client-gone` as the clock says, `shutting-down`.
        """
        clock = clock or Clock()
        clock.check("decoding")
        crew = self._crews[lane]
        stages = stages or Stages({"decode": 1})
        began = time.perf_counter()
        worker = crew.take(clock)
        stages.add("decode", waited=time.perf_counter() - began)
        try:
            clock.check("decoding")
        except Problem:
            crew.give_back(worker)
            raise
        try:
            with stages.working("decode"):
                found = worker.prepare(content, wanted, min(self.timeout_s, clock.left()))
        except PictureError:
            crew.give_back(worker)
            raise
        except TimeoutError as error:
            crew.replace(worker)
            clock.check("decoding")
            self._lost("decode-timeout")
            raise Problem(
                "decode-timeout",
                f"decoding took more than {self.timeout_s:g} s: save the picture again with "
                "another program, or send a smaller one",
            ) from error
        except (wire.LostError, OSError) as error:
            said = crew.replace(worker)
            if crew.closed:
                raise Problem("shutting-down", "the service is stopping: try again") from error
            self._lost("decoder-lost")
            logger.warning("a decoding process was lost", ended=said)
            raise Problem(
                "decoder-lost",
                f"the process that decoded the picture {said}: save it again with another program",
            ) from error
        except BaseException:
            crew.replace(worker)
            raise
        crew.give_back(worker)
        return found

    def warm(self, lane: Lane) -> None:
        """Start a first process of a lane, so that the first picture finds it ready."""
        self._crews[lane].warm()

    def failing(self) -> str | None:
        """Why processes cannot be started; None: the last one could, or none was needed."""
        return next((crew.failing for crew in self._crews.values() if crew.failing), None)

    def restart(self, why: str) -> None:
        """Try again to start what could not be started."""
        logger.error("decoding processes are started anew", why=why)
        for crew in self._crews.values():
            if crew.failing:
                crew.failing = None
                crew.warm()

    def processes(self) -> dict[Lane, list[int]]:
        """The process ids of each lane."""
        return {lane: crew.processes() for lane, crew in self._crews.items()}

    def close(self) -> None:
        """End every process, also those at work."""
        for crew in self._crews.values():
            crew.close()


class _Crew:
    """The processes of one lane: taken by one thread at a time, the last used first."""

    def __init__(self, most: int, start: Callable[[], Process]) -> None:
        self.closed = False
        self.failing: str | None = None
        self._most = most
        self._start = start
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._starting = 0
        self._changed = threading.Condition()

    def take(self, clock: Clock) -> Process:
        while True:
            worker = self._free(clock) or self._new()
            try:
                if worker.wait_until_ready():
                    self.failing = None
                    return worker
                said = worker.end()
            except TimeoutError:
                said = f"was not ready within {START_S:g} s, and {worker.end()}"
            self._forget(worker)
            if worker.was_ready:
                continue  # It ended while it was idle: no picture's fault.
            self.failing = f"a decoding process {said}"
            raise Problem("decoder-unavailable", f"{self.failing}; the service's log says more")

    def give_back(self, worker: Process) -> None:
        with self._changed:
            if not self.closed:
                self._idle.append(worker)
            self._changed.notify()

    def replace(self, worker: Process) -> str:
        """End a process, and start another in its place at once; says how it ended."""
        said = worker.end()
        self._forget(worker)
        self.warm()
        return said

    def warm(self) -> None:
        with self._changed:
            if self.closed or self._idle or len(self._all) + self._starting >= self._most:
                return
            self._starting += 1
        try:
            self.give_back(self._new())
        except Problem as problem:
            self.failing = str(problem)

    def processes(self) -> list[int]:
        with self._changed:
            return [worker.pid for worker in self._all]

    def close(self) -> None:
        with self._changed:
            self.closed = True
            workers = list(self._all)
            self._all.clear()
            self._changed.notify_all()
        for worker in workers:
            worker.end()

    def _free(self, clock: Clock) -> Process | None:
        """An idle process; None: one may be started."""
        with self._changed:
            while True:
                if self.closed:
                    raise Problem("shutting-down", "the service is stopping: try again shortly")
                if self._idle:
                    return self._idle.pop()
                if len(self._all) + self._starting < self._most:
                    self._starting += 1
                    return None
                clock.check("decoding")
                self._changed.wait(min(clock.left(), POLL_S))

    def _new(self) -> Process:
        """One more, which `_starting` has counted already."""
        worker = None
        try:
            worker = self._start()
        except OSError as error:
            self.failing = f"a decoding process could not be started: {error}"
            raise Problem("decoder-unavailable", self.failing) from error
        finally:
            with self._changed:
                self._starting -= 1
                if worker and not self.closed:
                    self._all.add(worker)
                self._changed.notify()
        if self.closed:
            worker.end()
            raise Problem("shutting-down", "the service is stopping: try again shortly")
        return worker

    def _forget(self, worker: Process) -> None:
        with self._changed:
            self._all.discard(worker)
            self._changed.notify()
