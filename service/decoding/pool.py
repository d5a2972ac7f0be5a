"""Processes that decode pictures: one that hangs or crashes costs its picture, and is replaced.

Each lane has processes of its own, started when they are first needed, and the operating system
gives those of a busier lane what the others leave: a query's picture never waits for a job's.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any

import numpy as np
import structlog

from models import Limits, PictureError, Preparation, Prepared, PreparedPicture
from service.clock import Clock
from service.decoding import wire
from service.lanes import Lane
from service.problems import Problem
from service.stages import Stages

logger = structlog.get_logger(__name__)

NICE: Mapping[Lane, int] = {"query": 0, "upload": 5, "bulk": 10}
"""How far a lane's processes stand back: what a query needs of a processor it gets first."""

ENVIRONMENT: Mapping[str, str] = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}
"""One thread each; and glibc keeps the memory of one picture for the next one."""

START_S = 60.0
"""A process that has not imported its decoders by then is given up."""

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
            lane: _Crew(most, partial(_Worker, limits, nice)) for lane, nice in NICE.items()
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

    def __init__(self, most: int, start: Callable[[], "_Worker"]) -> None:
        self.closed = False
        self.failing: str | None = None
        self._most = most
        self._start = start
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._starting = 0
        self._changed = threading.Condition()

    def take(self, clock: Clock) -> "_Worker":
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

    def give_back(self, worker: "_Worker") -> None:
        with self._changed:
            if not self.closed:
                self._idle.append(worker)
            self._changed.notify()

    def replace(self, worker: "_Worker") -> str:
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

    def _free(self, clock: Clock) -> "_Worker | None":
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

    def _new(self) -> "_Worker":
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

    def _forget(self, worker: "_Worker") -> None:
        with self._changed:
            self._all.discard(worker)
            self._changed.notify()


PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV", "PYTHONHOME")
CODE = re.compile(r"picture-[a-z-]{1,40}")
LONGEST_MESSAGE = 500
MOST_BYTES = 3 * 4096**2
"""Of pixels for one network: far above any input size, far below what memory holds."""


class _Worker:
    """One process, and the two ends of what is between it and us."""

    def __init__(self, limits: Limits, nice: int) -> None:
        """Start it; raises OSError."""
        self.was_ready = False
        self._deadline = time.monotonic() + START_S
        allowed = json.dumps({"limits": asdict(limits), "nice": nice})
        self._file = wire.in_memory()
        # Not by `end`, which may come while another thread reads: the number could be another's.
        weakref.finalize(self, os.close, self._file)
        self._socket, theirs = socket.socketpair()
        lifeline, self._alive = os.pipe()
        program = [sys.executable, "-P", "-m", "service.decoding.worker"]
        command = [*program, str(lifeline), str(self._file), allowed]
        places = os.pathsep.join(place for place in sys.path if place)
        try:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**_passed_on(), **ENVIRONMENT, "PYTHONPATH": places},
                pass_fds=[lifeline, self._file],
            )
        except OSError:
            self._socket.close()
            os.close(self._alive)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self._ending = threading.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> bool:
        """False: it has ended. Raises TimeoutError."""
        if self._process.poll() is not None:
            return False
        if not self.was_ready:
            try:
                wire.receive(self._socket, self._deadline)
            except (wire.LostError, ConnectionError):
                return False
            self.was_ready = True
        return True

    def prepare(self, content: bytes, wanted: Preparation, seconds: float) -> PreparedPicture:
        """Raises PictureError, LostError, OSError and TimeoutError."""
        deadline = time.monotonic() + seconds
        try:
            wire.put(self._file, [content])
        except OSError as error:  # It is we who have no memory left.
            raise Problem("decoder-unavailable", f"no decoding now: {error}") from error
        self._socket.settimeout(max(seconds, 0.001))
        wire.send(self._socket, {"wanted": _said(wanted), "size": len(content)})
        head = wire.receive(self._socket, deadline)
        try:
            return self._found(head, len(wanted.hows))
        finally:
            wire.forget(self._file, len(content))

    def _found(self, head: Mapping[str, Any], networks: int) -> PreparedPicture:
        """The picture of an answer; raises as `prepare`."""
        if "code" in head:
            raise _refused(head)
        if "error" in head:
            raise RuntimeError(f"a decoding process: {head['error']}")
        try:
            return _understood(head, wire.taken(self._file, head["parts"]), networks)
        except (KeyError, TypeError, ValueError) as error:
            raise wire.LostError(f"an answer that makes no sense: {error}") from error

    def end(self) -> str:
        """End it if it still runs, in whatever state it is; says how it ended."""
        with self._ending:
            self._socket.close()
            if self._alive >= 0:
                os.close(self._alive)
                self._alive = -1
            found = self._ended()
            if found is None:
                self._process.kill()
                self._process.wait()
                return "was ended"
        return f"ended by {signal.Signals(-found).name}" if found < 0 else f"ended with {found}"

    def _ended(self) -> int | None:
        """Its exit status, which a crash sets a moment after the connection has closed."""
        try:
            return self._process.wait(0.2 if self._process.poll() is None else 0)
        except subprocess.TimeoutExpired:
            return None


def _passed_on() -> dict[str, str]:
    """What a process that reads hostile bytes may know of our environment: no secrets."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


@lru_cache(maxsize=64)
def _said(wanted: Preparation) -> str:
    """What is wanted as JSON, which is the same for picture after picture."""
    return json.dumps(asdict(wanted))


def _refused(head: Mapping[str, Any]) -> Exception:
    """What a process says is wrong with a picture, as far as it may say such things."""
    code, message = head["code"], str(head.get("message"))[:LONGEST_MESSAGE]
    if not (isinstance(code, str) and CODE.fullmatch(code)):
        return wire.LostError("an error that is none of a picture")
    return PictureError(code, message)


def _understood(head: Mapping[str, Any], parts: list[bytearray], networks: int) -> PreparedPicture:
    *pixels, small = parts
    if len(pixels) != networks or len(head["shapes"]) != networks:
        raise ValueError(f"{len(pixels)} pictures for {networks}")
    if max(map(len, pixels), default=0) > MOST_BYTES:
        raise ValueError("more pixels than any network takes")
    arrays = [
        np.frombuffer(part, np.uint8).reshape([int(side) for side in shape])
        for part, shape in zip(pixels, head["shapes"], strict=True)
    ]
    sides = [int(side) for side in (head["width"], head["height"], *head["cut"])]
    if not all(0 < side < 2**31 for side in sides):
        raise ValueError(f"a picture with sides of {sides}")
    width, height, *cut = sides
    return PreparedPicture(
        Prepared(tuple(arrays)),
        width,
        height,
        (cut[0], cut[1]),
        bytes(small) or None,
    )
