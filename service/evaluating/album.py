"""The pictures of an evaluation by name: those of a folder, or those kept by a collection."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

from index import Collection, Item
from service.indexing.folder import FolderSource
from service.indexing.source import Entry, SourceError

ITEMS_AT_ONCE = 1_000


class Album(Protocol):
    """Pictures by name."""

    def read(self, name: str) -> bytes:
        """A picture's bytes. Raises SourceError where there is none of that name."""


class FolderAlbum:
    """The pictures under a folder, each known by its path in it.

    Ground truth may name them by path, by file name, or by file name without suffix, as far as only
    one picture is meant.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Raises SourceError: `folder-missing`."""
        self.folder = folder.expanduser().resolve()
        entries = list(FolderSource(self.folder, [self.folder], max_bytes).entries())
        self._entries: Mapping[str, Entry] = {entry.reference: entry for entry in entries}
        self._short = _unambiguous(self._entries)

    @property
    def names(self) -> list[str]:
        """The paths of all pictures."""
        return list(self._entries)

    @property
    def labels(self) -> list[str | None]:
        """The folder that each picture lies in, in the order of `names`; None: in none."""
        return [(entry.place or {}).get("folder") or None for entry in self._entries.values()]

    def read(self, name: str) -> bytes:
        """A picture's bytes.

        Raises SourceError: `picture-missing`, and those of `read_under`.
        """
        path = self.path(name)
        if path is None:
            why = "names several pictures" if name in self._short else "is not"
            raise SourceError("picture-missing", f"{name!r} {why} in {self.folder}")
        return self._entries[path].read()

    def path(self, name: str) -> str | None:
        """The path of the one picture that is meant; None where there is none, or several."""
        return name if name in self._entries else self._short.get(name)


def _unambiguous(paths: Mapping[str, Entry]) -> dict[str, str | None]:
    """Paths by file name with and without suffix; None where several have it."""
    short: dict[str, str | None] = {}
    forms: tuple[Callable[[PurePosixPath], str], ...] = (lambda p: p.name, lambda p: p.stem)
    for form in forms:
        seen: dict[str, str | None] = {}
        for path in paths:
            key = form(PurePosixPath(path))
            seen[key] = None if key in seen else path
        short = seen | short
    return short


class CollectionAlbum:
    """What a collection keeps of its items' pictures, each known by the item's id."""

    def __init__(self, collection: Collection) -> None:
        self.items: Mapping[str, Item] = {item.id: item for item in _items(collection)}
        self._pictures = collection.pictures

    def read(self, name: str) -> bytes:
        """An item's thumbnail, or its original. Raises SourceError: `picture-missing`."""
        get = partial(self._pictures.get, self.items[name].sha256)
        content = get("thumbnail") or get("original")
        if content is None:
            raise SourceError("picture-missing", f"no picture of the item {name!r} is kept")
        return content


def _items(collection: Collection) -> Iterator[Item]:
    after = None
    while page := collection.items(after, ITEMS_AT_ONCE):
        yield from page
        after = page[-1].id
