"""One decoding process, and the two ends of what is between it and us."""

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
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np

from models import Limits, PictureError, Preparation, Prepared, PreparedPicture
from service.decoding import wire
from service.problems import Problem

ENVIRONMENT: Mapping[str, str] = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}
"""One thread each; and glibc keeps the memory of one picture for the next one."""

START_S = 60.0
"""A process that has not imported its decoders by then is given up."""

PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV", "PYTHONHOME")
CODE = re.compile(r"picture-[a-z-]{1,40}")
LONGEST_MESSAGE = 500
MOST_BYTES = 3 * 4096**2
"""Of pixels for one network: far above any input size, far below what memory holds."""


class Process:
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
        """Its number in the operating system."""
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
