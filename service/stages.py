"""How busy the stages of bulk work are, and which of them limits it.

    read      bytes from a file, an archive or another machine, and their SHA-256
    decode    bytes to network input, in the bulk lane's processes
    store     thumbnails and originals, as far as they are kept
    forward   network input to descriptors: the network with its pooling, in one thread
    commit    items, descriptors and outcomes into the catalog

Each has workers of its own. One that is never without work limits all the others.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["read", "decode", "store", "forward", "commit"]

STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which a picture goes through them."""


@dataclass(frozen=True)
class Limit:
    """The stage that limits: `share`, 0…1, is how much of their time its workers were busy.

    >>> print(Limit("forward", 0.94))
    forward limits (94 %)
    """

    stage: Stage
    share: float

    def __str__(self) -> str:
        return f"{self.stage} limits ({self.share:.0%})".replace("%", " %")


@dataclass(frozen=True)
class Mark:
    """Seconds that each stage had been busy at an instant."""

    at: float
    busy: Mapping[Stage, float]


class Stages:
    """Counts the seconds; safe to use from many threads.

    >>> stages = Stages({"decode": 2, "forward": 1})
    >>> before = Mark(100.0, stages.seconds())
    >>> stages.add("decode", 12.0)
    >>> stages.add("forward", 9.0)
    >>> stages.between(before, Mark(110.0, stages.seconds()))  # decode: 12 of 20 s
    Limit(stage='forward', share=0.9)
    """

    def __init__(self, workers: Mapping[Stage, int]) -> None:
        """`workers` are how many each stage has; a stage without any is not there."""
        self._workers = workers
        self._lock = threading.Lock()
        self._busy: dict[Stage, float] = dict.fromkeys(workers, 0.0)
        self._waited: dict[Stage, float] = dict.fromkeys(workers, 0.0)

    def add(self, stage: Stage, busy: float = 0.0, waited: float = 0.0) -> None:
        """A worker was busy for so many seconds, and pictures waited for it so long, in all."""
        with self._lock:
            self._busy[stage] += busy
            self._waited[stage] += waited

    @contextmanager
    def working(self, stage: Stage) -> Iterator[None]:
        """A worker is busy inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began)

    def seconds(self) -> dict[Stage, float]:
        """Busy seconds by stage, of all its workers."""
        with self._lock:
            return dict(self._busy)

    def waited(self) -> dict[Stage, float]:
        """Seconds that pictures have waited before a stage, as far as they queue there."""
        with self._lock:
            return dict(self._waited)

    def mark(self) -> Mark:
        """Now."""
        return Mark(time.monotonic(), self.seconds())

    def between(self, first: Mark, last: Mark) -> Limit | None:
        """The stage with the highest utilisation, busy / (time × workers); None: none worked."""
        time_s = last.at - first.at
        if time_s <= 0:
            return None
        shares = {
            stage: (last.busy[stage] - first.busy[stage]) / (time_s * workers)
            for stage, workers in self._workers.items()
        }
        stage = max(shares, key=lambda one: shares[one])
        return Limit(stage, round(min(1.0, shares[stage]), 3)) if shares[stage] > 0 else None
