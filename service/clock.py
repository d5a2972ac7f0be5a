"""Where the time of one request goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service import tracing
from service.problems import Problem


@dataclass
class Clock:
    """Milliseconds by stage."""

    started: float = field(default_factory=time.monotonic)
    took_ms: dict[str, float] = field(
        default_factory=lambda: {"decode": 0.0, "forward": 0.0, "search": 0.0}
    )

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count what happens inside."""
        started = time.perf_counter()
        try:
            with tracing.span(stage):
                yield
        finally:
            self.took_ms[stage] += (time.perf_counter() - started) * 1000

    def check(self, seconds: float, what: str) -> None:
        """Raise Problem (`request-timeout`) where the request began more than `seconds` ago."""
        if time.monotonic() - self.started > seconds:
            raise Problem("request-timeout", f"no time was left for {what}")
