"""Notices a stage that is dead or stuck, restarts it, and says so until work has got through again.

A thread that hangs cannot be ended in Python. Each stage says for itself what starting again means:
the network's thread and the requests' threads are abandoned and replaced, decoding processes are
killed, the job runner's thread is started anew.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

logger = structlog.get_logger(__name__)

EVERY_S = 0.5


@dataclass(frozen=True)
class Stage:
    """`failing` says what is wrong, if anything; `restart` is told that."""

    name: str
    failing: Callable[[], str | None]
    restart: Callable[[str], None]


@dataclass
class Watchdog:
    """A thread that looks at every stage twice a second; `restarted` is told the name of a stage.

    A stage that was restarted counts as failing until `proved` says that work went through all of
    them which was begun later.
    """

    stages: list[Stage]
    restarted: Callable[[str], None] = lambda _: None
    _unproved: dict[str, tuple[float, str]] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch from now on."""
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._ended.set()
        if self._thread:
            self._thread.join()

    def failing(self) -> dict[str, str]:
        """What is wrong by stage: what fails now, and what was restarted and is not proved."""
        with self._lock:
            unproved = {name: why for name, (_, why) in self._unproved.items()}
        now = {stage.name: why for stage in self.stages if (why := stage.failing())}
        return {name: f"restarted: {why}" for name, why in unproved.items()} | now

    def proved(self, began: float) -> None:
        """Work that began then (monotonic seconds) went through every stage."""
        with self._lock:
            self._unproved = {
                name: (at, why) for name, (at, why) in self._unproved.items() if at >= began
            }

    def look(self) -> None:
        """Look at every stage once."""
        for stage in self.stages:
            why = stage.failing()
            if why is None:
                continue
            with self._lock:
                self._unproved[stage.name] = (time.monotonic(), why)
            logger.error("a stage is dead or stuck", stage=stage.name, why=why)
            self.restarted(stage.name)
            stage.restart(why)

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_S):
            try:
                self.look()
            except Exception:
                logger.exception("the watchdog failed and goes on")
