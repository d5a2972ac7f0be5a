"""What a collection keeps of its pictures, by content, on any file system that fsspec knows."""

import hashlib
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Literal, get_args

import fsspec
from fsspec.implementations.local import LocalFileSystem

from index import disk
from index.errors import CollectionError
from index.generation import sync_folder

Kind = Literal["thumbnail", "original", "grids"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class PictureStore:
    """Pictures of one collection, named by the SHA-256 of the original.

    A picture is put before its item is committed: an item never lacks its picture, and a picture
    without an item is found again when the same one is added.
    """

    def __init__(self, url: str, discard: Callable[[Path], None] = Path.unlink) -> None:
        """`url` is a folder, or an address of fsspec such as `s3://bucket/pictures/1`.

        `discard` removes a file of a folder.
        """
        self._files, self._root = fsspec.url_to_fs(url)
        self._local = isinstance(self._files, LocalFileSystem)
        self._discard = discard
        self._changing = threading.Lock()
        self._awaited: Counter[str] = Counter()
        """How many items are on their way to each picture."""

    def expect(self, sha256: str) -> None:
        """One more item that refers to this picture is on its way, until one has `arrived`.

        For those who put pictures of the same content at once; a lone `put` expects by itself.
        """
        with self._changing:
            self._awaited[sha256] += 1

    def put(self, sha256: str, kind: Kind, content: bytes) -> None:
        """Keep a picture durably; one that is there already stays.

        Until its item has `arrived` it is not removed. Raises DiskError.
        """
        path = self._path(sha256, kind)
        with self._changing:
            self._awaited[sha256] = max(1, self._awaited[sha256])
        if self._files.exists(path):
            return
        if self._local:
            with disk.reported(Path(path)):
                _write(Path(path), content)
        else:
            self._files.pipe_file(path, content)

    def get(self, sha256: str, kind: Kind) -> bytes | None:
        """A picture's bytes; None: it is not kept.

        Raises CollectionError: `picture-damaged`, for an original that is no longer what it was;
        DiskError.
        """
        path = self._path(sha256, kind)
        with disk.reported(Path(path)):
            try:
                content: bytes = self._files.cat_file(path)
            except FileNotFoundError:
                return None
        if kind == "original" and hashlib.sha256(content).hexdigest() != sha256:
            raise CollectionError(
                "picture-damaged",
                f"the picture kept as {sha256} has other bytes now: add it again",
            )
        return content

    def settle(self, sha256s: Collection[str], used: Callable[[], Collection[str]]) -> None:
        """Items came or went: remove those of these pictures that no item uses.

        `used` tells which of them are used, and is asked when no `put` can come in between. Raises
        DiskError.
        """
        if not sha256s:
            return
        with self._changing, disk.reported(Path(self._root)):
            for sha256 in set(sha256s) - set(used()) - self._awaited.keys():
                for kind in KINDS:
                    self._remove(self._path(sha256, kind))

    def arrived(self, sha256s: Iterable[str]) -> None:
        """Items are committed, or will never be; a picture is named once for each of them."""
        with self._changing:
            self._awaited -= Counter(sha256s)

    def _path(self, sha256: str, kind: Kind) -> str:
        return f"{self._root}/{path_of(sha256, kind)}"

    def _remove(self, path: str) -> None:
        if not self._files.exists(path):
            return
        if self._local:
            self._discard(Path(path))
        else:
            self._files.rm_file(path)


def path_of(sha256: str, kind: Kind) -> str:
    """Where a picture lies in its store.

    >>> path_of("ab12", "thumbnail")
    'thumbnail/ab/ab12'
    """
    if kind not in KINDS or not sha256.isalnum():
        raise ValueError(f"{kind!r} {sha256!r} names no picture")
    return f"{kind}/{sha256[:2]}/{sha256}"


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is whole and durable, or not there."""
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.aside")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    for folder in (path.parent, *(new.parent for new in made)):
        sync_folder(folder)
