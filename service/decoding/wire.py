"""What the service and its decoding processes say to each other: a JSON head, then bytes.

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

MOST_HEAD = 2**20
MOST_BODY = 2**30
"""Bytes of a message; whoever sends more is not listened to."""


class LostError(Exception):
    """The other end is gone, or says what makes no sense."""


def send(
    to: socket.socket,
    head: Mapping[str, Any],
    parts: Sequence[bytes | memoryview] = (),
    file: int | None = None,
) -> None:
    """A message of a head and any number of byte strings, with an open file beside it."""
    text = json.dumps({**head, "parts": [len(part) for part in parts]}).encode()
    start = _LENGTH.pack(len(text)) + text
    sent = socket.send_fds(to, [start], [file]) if file is not None else to.send(start)
    to.sendall(start[sent:])
    for part in parts:
        to.sendall(part)


def receive(
    of: socket.socket, deadline: float | None = None
) -> tuple[dict[str, Any], list[bytearray], list[int]]:
    """A message: its head, its byte strings, its open files.

    Raises LostError, and TimeoutError where it has not come by the `deadline` (monotonic seconds).
    """
    _until(of, deadline)
    start, files, _, _ = socket.recv_fds(of, _LENGTH.size, 1)
    if not start:
        raise LostError("the connection was closed")
    start += bytes(_exactly(of, _LENGTH.size - len(start), deadline))
    (length,) = _LENGTH.unpack(start)
    if length > MOST_HEAD:
        raise LostError(f"a head of {length} bytes")
    try:
        head = json.loads(bytes(_exactly(of, length, deadline)))
        sizes = [int(size) for size in head["parts"]]
    except (ValueError, TypeError, KeyError) as error:
        raise LostError(f"no head: {error}") from error
    if min(sizes, default=0) < 0 or sum(sizes) > MOST_BODY:
        raise LostError(f"parts of {sizes} bytes")
    return head, [_exactly(of, size, deadline) for size in sizes], files


def _exactly(of: socket.socket, size: int, deadline: float | None) -> bytearray:
    found = bytearray(size)
    view, got = memoryview(found), 0
    while got < size:
        _until(of, deadline)
        few = of.recv_into(view[got:])
        if not few:
            raise LostError("the connection was closed")
        got += few
    return found


def _until(of: socket.socket, deadline: float | None) -> None:
    if deadline is not None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        of.settimeout(left)


def in_memory(content: bytes) -> int:
    """An open file of these bytes that lies in memory, where the system can do that."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("picture", os.MFD_CLOEXEC)
    else:
        file, path = tempfile.mkstemp()
        os.unlink(path)  # noqa: PTH108 - the file itself is what is handed over
    view, at = memoryview(content), 0
    try:
        while at < len(view):
            at += os.write(file, view[at:])
    except OSError:
        os.close(file)
        raise
    return file


def read_back(file: int, size: int) -> bytes:
    """The bytes of an open file, from its beginning; the file is closed."""
    with os.fdopen(file, "rb") as opened:
        opened.seek(0)
        return opened.read(size)
