"""What a batch-indexing job reads: a source is counted, then read entry by entry."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

# Files that lie beside pictures and never are one. Everything else is tried, with or without a
# suffix, and what is no picture then fails alone and says so.
_NEVER_PICTURES = {
    "notes": "txt md rst html htm pdf csv tsv json jsonl yaml yml toml xml log ini cfg",
    "sidecars": "xmp aae thm lrcat lrdata cos pp3 dop db sqlite npy npz",
    "sound": "mp3 wav flac ogg oga m4a aac opus",
    "film": "mp4 mov avi mkv webm m4v 3gp mts m2ts wmv mpg mpeg lrv",
    "packed": "zip tar gz tgz bz2 xz 7z rar zst",
    "code": "py js css sh ipynb",
}
NEVER_PICTURE_SUFFIXES = frozenset(
    f".{suffix}" for suffixes in _NEVER_PICTURES.values() for suffix in suffixes.split()
)
PACKED_SUFFIXES = frozenset(f".{suffix}" for suffix in _NEVER_PICTURES["packed"].split())


class SourceError(Exception):
    """A source, or one entry of it, cannot be read; `code` is stable, `detail` names the remedy."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class SourceVanishedError(SourceError):
    """What holds the files is gone, as a volume that was unmounted: none of them has failed."""


class Interrupted(Exception):
    """Raised by the `check` of a source to end it."""


def never() -> None:
    """A `check` that ends nothing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture to be indexed, not yet read.

    `reference` is unique within the source and the same in every run over the same files, so that
    a job that goes on after a restart can pass over what it has finished. `item_id` is None where
    the content decides. `stamp` changes when the file does ("mtime_ns:size"); None: unknown.
    `source` says where the item came from ("file:/…", "archive:…", "https://…").

    `metadata` is what somebody said of the picture and replaces what was said before; `place` is
    where it lies (`path`, `folder`): the metadata of an item that is new and has none. `held` is
    how many bytes an entry keeps in memory until it is read.

    `fetched` says that `read` asks another machine. `read` gives the bytes or raises SourceError;
    it may be called from any thread, once, also after the iterator has moved on or was closed.
    """

    reference: str
    name: str
    item_id: str | None
    metadata: Mapping[str, Any] | None
    stamp: str | None
    source: str
    read: Callable[[], bytes]
    place: Mapping[str, Any] | None = None
    held: int = 0
    fetched: bool = False


class Source(Protocol):
    """Something with pictures in it. Making one raises SourceError where it cannot be read at all.

    Once it is made, neither method raises: what is wrong with a part of it is an entry whose
    `read` says so. Two things pass: SourceVanishedError, also from an entry's `read`, says that
    nothing is left to read, and what the `check` raises that a source is made with. Both methods
    may be called any number of times; `entries` holds files open until it is exhausted or closed.
    """

    def count(self) -> int:
        """How many entries there will be: a full pass without reading pictures."""

    def entries(self) -> Iterator[Entry]:
        """Every entry, always in the same order."""


HANDFUL = 16
HANDFUL_BYTES = 64 * 1024 * 1024


def handfuls(entries: Iterable[Entry | None]) -> Iterator[list[Entry]]:
    """Entries a few at a time, to be looked up together; fewer where they hold their bytes.

    None says that the next one is not there yet: what is there comes at once, if it is nothing.
    """
    few: list[Entry] = []
    for entry in entries:
        if entry is not None:
            few.append(entry)
        if entry is None or len(few) == HANDFUL or sum(each.held for each in few) >= HANDFUL_BYTES:
            yield few
            few = []
    if few:
        yield few


def given(content: bytes | SourceError) -> Callable[[], bytes]:
    """A `read` whose outcome is known already: bytes to give, or an error to raise."""

    def read() -> bytes:
        if isinstance(content, SourceError):
            raise content
        return content

    return read


def stable_id(source: str) -> str:
    """The item id of something that is known by where it lies: 32 hex digits.

    >>> stable_id("file:/pictures/a.jpg")
    '717b506cc0772768c25bb3d64e429b05'
    """
    return hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def is_hidden(path: PurePosixPath) -> bool:
    """Whether a file, or a folder that it lies in, is hidden or kept by the system for itself.

    >>> is_hidden(PurePosixPath("a/.cache/b.jpg")), is_hidden(PurePosixPath("a/b.jpg"))
    (True, False)
    """
    return any(part.startswith(".") and part != ".." for part in path.parts) or (
        "__MACOSX" in path.parts
    )


def is_never_picture(path: PurePosixPath) -> bool:
    """Whether a file's suffix says that it is no picture.

    >>> [is_never_picture(PurePosixPath(name)) for name in ("notes.TXT", "a.jpg", "a")]
    [True, False, False]
    """
    return path.suffix.lower() in NEVER_PICTURE_SUFFIXES


def printable(path: str) -> str:
    r"""A file name as text that can be stored: bytes that are no UTF-8 become escapes.

    >>> print(printable("caf\udce9.jpg"))
    caf\xe9.jpg
    """
    try:
        encoded = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # A lone surrogate that came in JSON, not from a file system.
        encoded = path.encode("utf-8", "backslashreplace")
    return encoded.decode("utf-8", "backslashreplace")
