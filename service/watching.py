"""The thread that checks the recall of live searches, in a twentieth of one core's time."""

import threading
import time

import structlog

from index import Catalog
from index.generation import Work

logger = structlog.get_logger(__name__)

SHARE_OF_TIME = 1 / 20
SHORTEST_REST_S = 1.0
PAUSE_S = 0.02


class RecallWatcher:
    """Measures and re-tunes the collections in use until it is stopped."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recall", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self) -> None:
        """End within about a second, whatever is being measured or tuned."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        rest = SHORTEST_REST_S
        while not self._stopping.wait(rest):
            started = time.perf_counter()
            for collection in self._catalog.opened():
                try:
                    collection.check_recall(Work(between=self._go_on))
                except _Stopped:
                    return
                except Exception:
                    logger.exception("recall was not measured", collection=collection.name)
            took = time.perf_counter() - started
            rest = max(SHORTEST_REST_S, took * (1 / SHARE_OF_TIME - 1))

    def _go_on(self) -> None:
        """Between two pieces of work, let those who search go first."""
        if self._stopping.wait(PAUSE_S):
            raise _Stopped


class _Stopped(Exception):
    """The service is ending."""
