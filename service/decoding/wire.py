"""What the service and its decoding processes say to each other: JSON over a socket.

Bytes lie in a file in memory that both have open and neither maps: the service puts a picture into
it, the process puts its pixels there instead. The file's pages stay, so a picture costs two copies.
Nothing that comes back is unpickled: a decoder that has been taken over by its picture can say
something wrong, and nothing else.
"""

import json
import os
import socket
import struct
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

_LENGTH = struct.Struct("<I")

MOST_HEAD = 2**16
MOST_BODY = 2**28
"""Bytes of a message and of what lies in the file; whoever says more is not listened to."""

KEPT = 8 * 2**20
"""Of a file's bytes between two pictures; what a larger one took is given back."""


class LostError(Exception):
    """The other end is gone, or says what makes no sense."""


def send(to: socket.socket, head: Mapping[str, Any]) -> None:
    """One message."""
    text = json.dumps(head).encode()
    to.sendall(_LENGTH.pack(len(text)) + text)


def receive(of: socket.socket, deadline: float | None = None) -> dict[str, Any]:
    """One message; nothing may follow it before it is answered.

    Raises LostError, and TimeoutError where it has not come by the `deadline` (monotonic seconds).
    """
    found = _more(of, deadline)
    while len(found) < _LENGTH.size:
        found += _more(of, deadline)
    end = _LENGTH.size + _LENGTH.unpack_from(found)[0]
    if end > MOST_HEAD:
        raise LostError(f"a message of {end} bytes")
    while len(found) < end:
        found += _more(of, deadline)
    try:
        head = json.loads(found[_LENGTH.size :])
    except ValueError as error:
        raise LostError(f"no message: {error}") from error
    if not isinstance(head, dict):
        raise LostError("a message that is no object")
    return head


def _more(of: socket.socket, deadline: float | None) -> bytes:
    if deadline is not None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        of.settimeout(left)
    found = of.recv(MOST_HEAD)
    if not found:
        raise LostError("the connection was closed")
    return found


def in_memory() -> int:
    """A new open file that lies in memory, where the system can do that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("picture", os.MFD_CLOEXEC)
    file, path = tempfile.mkstemp()
    os.unlink(path)  # noqa: PTH108 - the file itself is what is shared
    return file


def put(file: int, parts: Sequence[bytes | memoryview]) -> list[int]:
    """Write these from the file's beginning, one behind the other; gives their sizes."""
    at = 0
    for part in parts:
        left = memoryview(part)
        while left:
            written = os.pwrite(file, left, at)
            at, left = at + written, left[written:]
    return [len(part) for part in parts]


def taken(file: int, sizes: Sequence[int]) -> list[bytearray]:
    """What `put` has written, in copies. Raises LostError where that is not there."""
    if min(sizes, default=0) < 0 or sum(sizes) > MOST_BODY:
        raise LostError(f"parts of {sizes} bytes")
    parts = [bytearray(size) for size in sizes]
    at = 0
    for part in parts:
        left = memoryview(part)
        while left:
            if not (got := os.preadv(file, [left], at)):
                raise LostError("less than was said to be there")
            at, left = at + got, left[got:]
    return parts


def forget(file: int, size: int) -> None:
    """Give the memory of an unusually large picture of `size` bytes back."""
    if size > KEPT:
        os.ftruncate(file, 0)
