"""Requests that compute: so many at work, so many waiting, the rest refused at once.

Each kind has threads of its own, so that slow work holds up neither another kind nor the small
requests, which run in the server's pool. Every request ends: by its answer, at its deadline, or
when its client has gone.
"""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
from fastapi import Request

from service.clock import Clock
from service.problems import Problem
from service.threads import one_for_faiss

logger = structlog.get_logger(__name__)

T = TypeVar("T")

GRACE_S = 1.0
"""By so much the work may itself say that its time is over; then its answer is not waited for."""

SHARE = 0.5
"""Of its time a request may be expected to wait; where it is more, it is refused at once."""

OVERRUN_S = 30.0
"""Work that is so late is taken for work that will never end."""


class Admission:
    """The threads of one kind of request, and the queue before them."""

    def __init__(self, name: str, threads: int, waiting: int, timeout_s: float) -> None:
        """At most `threads` requests at work and `waiting` before them, for `timeout_s` each."""
        self.name = name
        self.timeout_s = timeout_s
        self._most_threads = threads
        self._most_waiting = waiting
        self._arrived = 0
        self._inside: dict[Clock, bool] = {}
        self._each_s = 0.0
        self._lock = threading.Lock()
        self._threads = self._pool()
        self._is_closed = False

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """A request from its arrival to its answer, counted while its body is still received.

        Raises Problem (`overloaded`) as `check` does, before anything was done for it.
        """
        self.check()
        self._arrived += 1  # in the one thread of the server
        try:
            yield
        finally:
            self._arrived -= 1

    def check(self) -> None:
        """Raise Problem (`overloaded`) where a request of this kind would be refused now.

        Retry-After is the time that those inside take at the measured rate.
        """
        self._refuse(max(self._arrived, len(self._inside)))

    def _refuse(self, inside: int) -> None:
        expected = inside * self._each_s
        full = inside >= self._most_threads + self._most_waiting
        if full or (inside > self._most_threads and expected > SHARE * self.timeout_s):
            seconds = max(1, round(expected))
            raise Problem(
                "overloaded",
                f"{inside} {self.name} are under way already: try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )

    async def run(self, request: Request, work: Callable[[Clock], T]) -> T:
        """The outcome of `work`, in a thread; the request's body must have been received.

        Raises Problem: `overloaded`, `request-timeout`, `client-gone`; and what `work` raises.
        """
        self._refuse(len(self._inside))
        clock = Clock(self.timeout_s)
        working = asyncio.wrap_future(self._submitted(clock, work))
        leaving = asyncio.ensure_future(_left(request))
        try:
            both: set[asyncio.Future[Any]] = {working, leaving}
            ended, _ = await asyncio.wait(
                both,
                timeout=self.timeout_s + GRACE_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if working in ended:
                if working.cancelled():
                    raise self._dropped()
                return working.result()
            if leaving in ended:
                raise Problem("client-gone", "the client closed the connection")
            raise Problem("request-timeout", f"no answer within {self.timeout_s:g} s")
        finally:
            leaving.cancel()
            if not working.done():
                working.cancel()
                clock.abandon()

    def inside(self) -> int:
        """How many requests are at work or wait."""
        return len(self._inside)

    def failing(self) -> str | None:
        """Whether work that will never end holds every thread."""
        with self._lock:
            at_work = [clock for clock, begun in self._inside.items() if begun]
        late = [clock for clock in at_work if _late(clock)]
        if len(late) < self._most_threads:
            return None
        return f"{len(late)} {self.name} are {OVERRUN_S:g} s over their time"

    def restart(self, why: str) -> None:
        """Leave the threads to what they hang in, and go on with others; who waits is refused."""
        logger.error("requests hang", why=why)
        with self._lock:
            inside = self._inside.items()
            self._inside = {clock: begun for clock, begun in inside if not (begun and _late(clock))}
            hung, self._threads = self._threads, self._pool()
        hung.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Refuse what waits. What is at work ends by itself."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _dropped(self) -> Problem:
        if self._is_closed:
            return _stopping()
        return Problem(
            "overloaded",
            f"the {self.name} under way hang and were given up: try again",
            {"Retry-After": "1"},
        )

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._most_threads, self.name, initializer=one_for_faiss)

    def _submitted(self, clock: Clock, work: Callable[[Clock], T]) -> Future[T]:
        context = contextvars.copy_context()
        with self._lock:
            self._inside[clock] = False
            ahead = len(self._inside)

        def begin() -> T:
            with self._lock:
                if clock in self._inside:
                    self._inside[clock] = True
            clock.check("beginning")
            return context.run(work, clock)

        def ended(future: Future[T]) -> None:
            with self._lock:
                self._inside.pop(clock, None)
                if not future.cancelled():
                    each = (time.monotonic() - clock.started) / ahead
                    self._each_s += 0.2 * (each - self._each_s) if self._each_s else each

        try:
            future = self._threads.submit(begin)
        except RuntimeError as error:
            with self._lock:
                self._inside.pop(clock, None)
            raise _stopping() from error
        future.add_done_callback(ended)
        return future


def _stopping() -> Problem:
    return Problem("shutting-down", "the service is stopping: try again shortly")


def _late(clock: Clock) -> bool:
    return time.monotonic() > clock.started + clock.seconds + OVERRUN_S


async def _left(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
