"""One pinned file from one address: resumable, bounded, and published only under its hash."""

import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import IO

import httpx
import tenacity

from models.errors import WeightsError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Told the bytes at hand and the bytes in all (None where the server does not say)."""

MAX_BYTES = 4 << 30

_USER = re.compile(r"(?<=://)[^/?#\s]*@")


@dataclass(frozen=True)
class Patience:
    """How long a download waits, in seconds, and how often it tries.

    `connect` bounds the wait for a connection, `silence` the wait between two pieces of the body.
    `pause` comes before the second of `attempts` and doubles before each further one.
    """

    connect: float = 5.0
    silence: float = 30.0
    attempts: int = 6
    pause: float = 0.5


PATIENT = Patience()


class _InterruptionError(Exception):
    """This attempt failed; the next may not."""


def fetch(
    url: str,
    target: Path,
    *,
    expected: str,
    progress: Progress | None = None,
    patience: Patience = PATIENT,
    max_bytes: int = MAX_BYTES,
) -> str:
    """Bring `url` to `target` and give its SHA-256 (64 hex digits).

    `expected` is that SHA-256 or its first digits, at least 8. What has arrived is kept in
    `<target>.part` and a later call goes on from there; the target appears complete, hashed and
    on disk, or not at all. Processes that fetch the same file wait for each other. A stalled,
    reset, truncated or 5xx reply is tried again, any other failure is not; a host that does not
    answer at all is given up at once, so that a machine without a network starts quickly.

    Raises WeightsError: `weights-download` (not reachable, refused, or interrupted too often),
    `weights-hash` (the bytes are not the pinned ones; they are deleted), `weights-too-large`,
    `weights-folder` (the folder cannot be written).
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with claimed(part) as stream:
            if target.is_file() and (digest := hash_of(target)).startswith(expected):
                stream.truncate(0)
                return digest
            digest = _Download(url, expected, progress, patience, max_bytes).complete(stream)
            publish(stream, part, target)
            return digest
    except OSError as why:
        raise WeightsError(
            "weights-folder",
            f"{target.parent} cannot take {target.name}: {why}; make room or set POOL5_WEIGHTS_DIR",
        ) from why


def sha256(stream: BufferedReader | BufferedRandom) -> str:
    """SHA-256 of all of an open file, as 64 hex digits; leaves the stream at its end."""
    stream.seek(0)
    return hashlib.file_digest(stream, "sha256").hexdigest()


def shown(url: str) -> str:
    """An address as it may be logged: without the user and password of a mirror.

    >>> shown("https://me:secret@mirror/alexnet.pth")
    'https://***@mirror/alexnet.pth'
    """
    return _USER.sub("***@", url)


def hash_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as stream:
        return sha256(stream)


def publish(stream: IO[bytes], part: Path, target: Path) -> None:
    """Make the file written aside as `part` the `target`, durably and in one step."""
    stream.flush()
    os.fsync(stream.fileno())
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def claimed(part: Path) -> Iterator[BufferedRandom]:
    """The part file, open for us alone; whoever else wants it waits. Left empty, it goes.

    Give it its final name with `publish` while it is open: nobody sees it half-written.
    """
    while True:
        with part.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Whoever held it before may have published or dropped the file we opened.
            if not _is_at(stream, part):
                continue
            try:
                yield stream
            finally:
                if _is_at(stream, part) and not stream.seek(0, os.SEEK_END):
                    part.unlink()
            return


def _is_at(stream: BufferedRandom, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class _Download:
    """What stays the same over the attempts at one file."""

    url: str
    expected: str
    progress: Progress | None
    patience: Patience
    max_bytes: int

    def complete(self, stream: BufferedRandom) -> str:
        """Fill the stream until it is the expected file, and give its hash."""
        inherited = stream.seek(0, os.SEEK_END) > 0
        while True:
            self._transfer(stream)
            digest = sha256(stream)
            if digest.startswith(self.expected):
                return digest
            stream.truncate(0)
            if not inherited:
                raise WeightsError(
                    "weights-hash",
                    f"{shown(self.url)} gave SHA-256 {digest} where {self.expected} is pinned; the "
                    "download was deleted: try again, or set POOL5_WEIGHTS_MIRROR to a source "
                    "that you trust",
                )
            logger.warning("what was left of a download of %s did not fit: anew", shown(self.url))
            inherited = False

    def _transfer(self, stream: BufferedRandom) -> None:
        """Append what is missing, through as many interruptions as patience allows."""
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_InterruptionError),
            stop=tenacity.stop_after_attempt(self.patience.attempts),
            wait=tenacity.wait_exponential(multiplier=self.patience.pause, max=30.0),
            before_sleep=tenacity.before_sleep_log(logger, logging.WARNING),
            reraise=True,
        )
        # Proxies of the environment are honoured: a download is the operator's own outbound
        # request, to an address that no user of the service can choose.
        client = httpx.Client(
            timeout=httpx.Timeout(self.patience.silence, connect=self.patience.connect),
            follow_redirects=True,
            max_redirects=5,
            trust_env=True,
        )
        with client:
            try:
                attempts(self._attempt, client, stream)
            except (_InterruptionError, httpx.RequestError, httpx.InvalidURL) as why:
                raise WeightsError(
                    "weights-download",
                    f"{shown(self.url)} could not be downloaded: {why}; try again to go on where "
                    "it stopped, or set POOL5_WEIGHTS_MIRROR",
                ) from why

    def _attempt(self, client: httpx.Client, stream: BufferedRandom) -> None:
        """Ask once for what is missing and append it."""
        have = stream.seek(0, os.SEEK_END)
        # Compressed, neither the range nor the length would be the file's.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        try:
            with client.stream("GET", self.url, headers=headers) as response:
                if have and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    return  # Nothing is missing, and whether it is right the hash will tell.
                _check(response, self.url)
                if response.status_code != httpx.codes.PARTIAL_CONTENT:
                    stream.truncate(0)
                    have = 0
                self._append(stream, response, have)
        except _GIVEN_UP_AT_ONCE:
            raise
        except httpx.TransportError as why:
            raise _InterruptionError(str(why) or type(why).__name__) from why

    def _append(self, stream: BufferedRandom, response: httpx.Response, have: int) -> None:
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        for chunk in response.iter_raw():
            have += len(chunk)
            if max(have, total or 0) > self.max_bytes:
                stream.truncate(0)
                raise WeightsError(
                    "weights-too-large",
                    f"{shown(self.url)} is larger than {self.max_bytes} bytes: refused",
                )
            stream.write(chunk)
            if self.progress:
                self.progress(have, total)


_GIVEN_UP_AT_ONCE = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


def _check(response: httpx.Response, url: str) -> None:
    """Refuse a reply that is not the file."""
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise _InterruptionError(f"the server answered {status}")
    hops = [hop.url.scheme for hop in (*response.history, response)]
    # Eight pinned digits are too few to trust what anybody on the way could have written.
    downgraded = hops[0] == "https" and "http" in hops
    if status not in (200, 206) or downgraded:
        reason = "it redirects from https to http" if downgraded else f"it answered {status}"
        raise WeightsError(
            "weights-download",
            f"{shown(url)} is not to be had: {reason}; check POOL5_WEIGHTS_MIRROR, or put the "
            "file into the weights folder",
        )
