"""The program of a decoding process: pictures in on its standard input, pixels out.

It imports neither torch nor anything of the service, may use so much memory and no more, and ends
with whoever started it.
"""

import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from models.decode import Limits
from models.errors import PictureError
from models.preparation import Preparation, prepare_picture
from models.preprocess import Preprocessing
from service.decoding import wire

BYTES_PER_PIXEL = 32
"""What the most expensive way takes: two copies in 32 bits, two in float32, and an opacity."""

WORKING_BYTES = 256 * 2**20

LONGEST_MESSAGE = 500


def main() -> None:
    """Arguments: the file that closes with the service, that of the pictures, and the limits."""
    lifeline, file, allowed = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    limits = Limits(**allowed["limits"])
    os.nice(allowed["nice"])
    for name in (signal.SIGINT, signal.SIGTERM):  # these are for the service, which ends us
        signal.signal(name, signal.SIG_IGN)
    end_with(lifeline)
    bound_memory(limits)
    service = socket.socket(fileno=os.dup(0))
    wire.send(service, {"ready": True})
    while True:
        try:
            asked = wire.receive(service)
        except wire.LostError:
            return
        wire.send(service, answer(asked, file, limits))


def answer(asked: Mapping[str, Any], file: int, limits: Limits) -> Mapping[str, Any]:
    """Prepare the picture in the file, put what came of it in its place, and say so."""
    try:
        content = os.pread(file, asked["size"], 0)
        found = prepare_picture(content, limits, understood(asked["wanted"]))
        pixels = [each.data.cast("B") for each in found.prepared.pixels]
        parts = wire.put(file, [*pixels, found.thumbnail or b""])
    except PictureError as error:
        return {"code": error.code, "message": str(error)[:LONGEST_MESSAGE]}
    except Exception as error:  # noqa: BLE001 - the service decides what to make of it
        return {"error": f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE]}
    return {
        "width": found.width,
        "height": found.height,
        "cut": found.cut,
        "shapes": found.prepared.shapes,
        "parts": parts,
    }


@lru_cache(maxsize=64)
def understood(wanted: str) -> Preparation:
    """A Preparation of its JSON, which is the same for picture after picture."""
    asked = json.loads(wanted)
    hows = tuple(Preprocessing(**how) for how in asked.pop("hows"))
    region = asked.pop("region")
    return Preparation(hows, region=tuple(region) if region else None, **asked)


def end_with(lifeline: int) -> None:
    """Have the kernel end this process when the other end of the pipe is closed, stuck or not."""
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    if select.select([lifeline], [], [], 0)[0]:
        sys.exit(0)  # closed before the kernel was told


def bound_memory(limits: Limits) -> None:
    """Allow what the largest picture takes on top of what is in use, and no core dumps.

    What is in files in memory counts as such, and has a bound of its own.
    """
    most = 2 * limits.max_bytes + BYTES_PER_PIXEL * limits.max_pixels + WORKING_BYTES
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most_in_file = max(limits.max_bytes, wire.MOST_BODY)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_in_file, most_in_file))
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + most, used + most))


if __name__ == "__main__":
    main()
