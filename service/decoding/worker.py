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


def main() -> None:
    """Arguments: the file that closes when the service is gone, and what it allows, in JSON."""
    lifeline, allowed = int(sys.argv[1]), json.loads(sys.argv[2])
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
            head, _, (file,) = wire.receive(service)
        except wire.LostError:
            return
        answer(service, head, wire.read_back(file, head["size"]), limits)


def answer(service: socket.socket, asked: dict[str, Any], content: bytes, limits: Limits) -> None:
    """Prepare one picture and say what came of it."""
    try:
        hows = tuple(Preprocessing(**how) for how in asked.pop("hows"))
        region = tuple(asked["region"]) if asked["region"] else None
        wanted = Preparation(hows, asked["min_side"], region, asked["whole"], asked["thumbnail"])
        found = prepare_picture(content, limits, wanted)
    except PictureError as error:
        wire.send(service, {"code": error.code, "message": str(error)})
        return
    except Exception as error:  # noqa: BLE001 - the service decides what to make of it
        wire.send(service, {"error": f"{type(error).__name__}: {error}"})
        return
    head = {
        "width": found.width,
        "height": found.height,
        "cut": found.cut,
        "shapes": found.prepared.shapes,
    }
    pixels = [each.data.cast("B") for each in found.prepared.pixels]
    wire.send(service, head, [*pixels, found.thumbnail or b""])


def end_with(lifeline: int) -> None:
    """Have the kernel end this process when the other end of the pipe is closed, stuck or not."""
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    if select.select([lifeline], [], [], 0)[0]:
        sys.exit(0)  # closed before the kernel was told


def bound_memory(limits: Limits) -> None:
    """Allow what the largest picture takes on top of what is in use, and no core dumps."""
    most = 2 * limits.max_bytes + BYTES_PER_PIXEL * limits.max_pixels + WORKING_BYTES
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + most, used + most))


if __name__ == "__main__":
    main()
