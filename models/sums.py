"""The full hashes of a folder's files, in a `SHA256SUMS` as sha256sum writes and checks it."""

import errno
import os
import re
from pathlib import Path

from models import download
from models.errors import WeightsError

NAME = "SHA256SUMS"


def read(folder: Path) -> dict[str, str]:
    """SHA-256 (64 hex digits) by file name; empty where the folder has no `SHA256SUMS`.

    Raises WeightsError (`weights-sums`) for a line of any other form.
    """
    path = folder / NAME
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    sums = {}
    for line in filter(str.strip, lines):
        entry = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if entry is None:
            raise WeightsError(
                "weights-sums",
                f"{path} has a line that sha256sum would not write, {line!r}: remove it",
            )
        sums[entry[2]] = entry[1]
    return sums


def add(folder: Path, file: str, digest: str) -> None:
    """Write down the hash of a file.

    Raises OSError where the folder cannot be written, or is declared read-only to everybody, which
    would not stop a service that runs as root.
    """
    if not folder.stat().st_mode & 0o222:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    with download.claimed(folder / f"{NAME}.part") as aside:
        aside.truncate(0)
        sums = read(folder) | {file: digest}
        aside.write("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode())
        download.publish(aside, Path(aside.name), folder / NAME)
