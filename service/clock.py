"""Where the time of one request goes, how much is left of it, and whether anyone still waits."""

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from service import tracing
from service.problems import Problem

T = TypeVar("T")


@dataclass(eq=False)
class Clock:
    """Milliseconds by stage, of a request that is given `seconds` from now on."""

    seconds: float = math.inf
    started: float = field(default_factory=time.monotonic)
    took_ms: dict[str, float] = field(
        default_factory=lambda: {"decode": 0.0, "forward": 0.0, "search": 0.0}
    )
    _awaited: set[Future[Any]] = field(default_factory=set)
    _abandoned: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count what happens inside."""
        started = time.perf_counter()
        try:
            with tracing.span(stage):
                yield
        finally:
            self.took_ms[stage] += (time.perf_counter() - started) * 1000

    def left(self) -> float:
        """Seconds that are left, at least 0; infinite where no end was set."""
        return max(0.0, self.started + self.seconds - time.monotonic())

    def check(self, what: str) -> None:
        """Raise Problem where nobody waits any more, or no time is left for `what`.

        Codes: `client-gone`, `request-timeout`.
        """
        if self._abandoned:
            raise Problem("client-gone", f"the client closed the connection before {what}")
        if not self.left():
            raise Problem("request-timeout", f"no time was left for {what}")

    def abandon(self) -> None:
        """Nobody waits any more: take what is under way out of the queues."""
        with self._lock:
            self._abandoned = True
            awaited = list(self._awaited)
        for future in awaited:
            future.cancel()

    def outcome(self, future: Future[T], what: str) -> T:
        """Wait for something that was queued; it is taken out where nobody waits any more.

        Raises what it raises, and Problem: `request-timeout`, `client-gone`, `shutting-down`.
        """
        with self._lock:
            self._awaited.add(future)
            abandoned = self._abandoned
        if abandoned:
            future.cancel()
        try:
            return future.result(None if math.isinf(self.seconds) else self.left())
        except CancelledError as error:
            self.check(what)
            raise Problem("shutting-down", "the service is stopping: try again shortly") from error
        except TimeoutError as error:
            if not future.cancel() and future.done():
                return future.result()  # It came just now, or raises a TimeoutError of its own.
            raise Problem("request-timeout", f"no {what} within {self.seconds:g} s") from error
        finally:
            with self._lock:
                self._awaited.discard(future)
