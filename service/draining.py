"""From the first SIGTERM to the end of the process, in bounded time.

| when               | what                                                                       |
|--------------------|----------------------------------------------------------------------------|
| a signal           | `/health/ready` is 503, event streams end; the job under way goes back to  |
|                    | the queue after its commit                                                 |
| + `drain_notice_s` | connections are no longer accepted, requests under way go on               |
| + `drain_s`        | what still waits for the network is answered 503 `shutting-down`           |
| + 1 s              | connections that are left are cut                                          |
| + 1 s              | the process ends, with status 0: nothing acknowledged depends on what      |
|                    | still runs, a compaction for example                                       |
| a second signal    | the process ends at once, with status 128 + its number                     |
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from service.engine import Engine
from service.settings import Settings

logger = structlog.get_logger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)

CLOSING_S = 1.0


class Drain:
    """Takes the signals of a process: before it serves they end it, afterwards they drain it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asked = False
        self._served = threading.Event()
        self._serving: tuple[Engine, FastAPI, uvicorn.Server] | None = None
        for number in SIGNALS:
            signal.signal(number, self._signalled)

    def watch(self, engine: Engine, app: FastAPI, server: uvicorn.Server) -> None:
        """From now on a signal ends this server, well."""
        self._serving = engine, app, server

    def served(self) -> None:
        """No connection is left: what remains is to close what was opened."""
        self._served.set()

    def closed(self) -> None:
        """All is closed: where a signal asked for it, leave the interpreter's own end out.

        It takes seconds with torch loaded, and the clock does not run in it.
        """
        if self._asked:
            _end(0)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if self._asked:
            _end(128 + number)
        self._asked = True
        if self._serving is None:
            sys.exit(0)
        threading.Thread(target=self._drain, args=self._serving, name="drain", daemon=True).start()

    def _drain(self, engine: Engine, app: FastAPI, server: uvicorn.Server) -> None:
        seconds = self._settings.drain_s
        logger.info("draining", seconds=seconds, notice=self._settings.drain_notice_s)
        app.state.stopping.set()
        engine.compactor.stop()
        engine.metrics.observe_probe(ready=False)
        handing_back = threading.Thread(target=_hand_back, args=[app], daemon=True)
        handing_back.start()
        time.sleep(self._settings.drain_notice_s)
        server.should_exit = True
        if not self._served.wait(seconds):
            # A job that is still here would take its pictures for failed.
            if not handing_back.is_alive():
                engine.batcher.close()
            self._served.wait(CLOSING_S)
        time.sleep(CLOSING_S)
        logger.warning("ending with work under way: it is begun anew at the next start")
        _end(0)


def _hand_back(app: FastAPI) -> None:
    if hasattr(app.state, "runner"):  # Otherwise it has not begun yet, and will stop at once.
        app.state.runner.stop()


class Server(uvicorn.Server):
    """A server that leaves the signals to `Drain`."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Do nothing."""
        yield


def _end(status: int) -> None:
    """Without waiting for any thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
