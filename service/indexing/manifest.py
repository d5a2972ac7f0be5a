"""A manifest: paths or URLs of pictures with ids and metadata, as JSON Lines or CSV."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from index import CollectionError
from index.item import check_id
from service.fetch import FetchError
from service.indexing.roots import Presence, open_under, read_under, resolve_under, stamp_of
from service.indexing.source import Entry, SourceError, given, never, printable, stable_id

_LONGEST_LINE = 1024 * 1024
_OWN_FIELDS = ("path", "url", "id", "name", "metadata")
_PICTURE_BYTES = 64 * 1024 * 1024

Row = Mapping[str, Any]


class ManifestSource:
    """Lines of `{"path": …}` or `{"url": …}`, with `id`, `name` and `metadata` where wanted.

    What begins with `{` is JSON Lines, anything else CSV with a header (commas, semicolons or
    tabs). Fields with other names become metadata: typed in JSON Lines, text in CSV. Relative
    paths are taken from the manifest's own folder, those of an uploaded manifest from the first
    root that has such a file. Without an `id` the path or the URL is what an item is known by.
    A line that cannot be used fails alone and is named by its number.
    """

    def __init__(
        self,
        path: Path,
        roots: Sequence[Path],
        fetch: Callable[[str], bytes],
        *,
        uploaded: bool = False,
        max_bytes: int = _PICTURE_BYTES,
        check: Callable[[], None] = never,
    ) -> None:
        """`max_bytes` is for a picture given by path; `fetch` has a limit of its own;
        `check` is called for every line, and may raise to end it.

        Raises SourceError `manifest-not-allowed` where a manifest that was not uploaded is
        outside the roots, and `manifest-unreadable`.
        """
        self._path = path
        self._roots = tuple(roots)
        self._fetch = fetch
        self._max_bytes = max_bytes
        self._check = check
        self._bases = self._roots if uploaded else (path.parent,)
        # What was uploaded is a file of our own.
        self._presence = Presence([*self._roots, *self._bases])
        self._readable = (path.parent,) if uploaded else self._roots
        if not uploaded:
            try:
                self._path = resolve_under(path, roots)
            except SourceError as error:
                raise SourceError("manifest-not-allowed", error.detail) from error
        try:
            with open_under(self._path, self._readable) as file:
                _rows(file)
        except SourceError as error:
            raise SourceError("manifest-unreadable", error.detail) from error
        except OSError as error:
            detail = f"{printable(path.name)} cannot be read: {error.strerror}"
            raise SourceError("manifest-unreadable", detail) from error

    def count(self) -> int:
        """How many lines there are, those that cannot be used included."""
        return sum(1 for _ in self._numbered())

    def entries(self) -> Iterator[Entry]:
        """An entry per line; nothing is opened or fetched before its `read`."""
        return (self._entry(number, row) for number, row in self._numbered())

    def _numbered(self) -> Iterator[tuple[int, Row | SourceError]]:
        with open_under(self._path, self._readable) as file:
            lines, rows = _rows(file)
            while True:
                self._check()
                try:
                    row: Row | SourceError = next(rows)
                except StopIteration:
                    return
                except (ValueError, csv.Error) as error:
                    row = SourceError("manifest-line-invalid", f"line {lines.number}: {error}")
                yield lines.number, row

    def _entry(self, number: int, row: Row | SourceError) -> Entry:
        try:
            if isinstance(row, SourceError):
                raise row
            return self._picture(number, row)
        except (ValueError, CollectionError) as error:
            row = SourceError("manifest-line-invalid", f"line {number}: {error}")
        except OSError as error:
            row = SourceError("source-file-unreadable", f"line {number}: {error.strerror}")
        except SourceError as error:
            row = error
        reference = f"line {number}"
        return Entry(reference, reference, None, None, None, f"manifest:{reference}", given(row))

    def _picture(self, number: int, row: Row) -> Entry:
        path, url = _text(row, "path"), _text(row, "url")
        if (path is None) == (url is None):
            raise _LineError("give a `path` or a `url`, and not both")
        item_id = row.get("id")
        if isinstance(item_id, int) and not isinstance(item_id, bool):
            item_id = str(item_id)
        elif item_id is not None:
            item_id = _text(row, "id")
        if item_id is not None:
            check_id(item_id)
        metadata, name = _metadata(row), _text(row, "name")
        reference, stamp = f"line {number}: {printable(path or url or '')}", None
        read: Callable[[], bytes]
        if url is not None:
            source, read = url, partial(self._fetched, url)
            name = name or PurePosixPath(unquote(urlsplit(url).path)).name or urlsplit(url).netloc
        else:
            found = self._found(Path(path or ""))
            source, stamp = f"file:{found}", _stamp(found, row)
            read = partial(self._read, found)
            name = name or found.name
        shown, item_id = printable(source), item_id or stable_id(source)
        return Entry(
            reference,
            printable(name),
            item_id,
            metadata,
            stamp,
            shown,
            read,
            fetched=url is not None,
        )

    def _found(self, path: Path) -> Path:
        """Where a path of the manifest leads; SourceError where that is outside the roots."""
        places = [base / path for base in self._bases]
        present = (place for place in places if path.is_absolute() or place.exists())
        return resolve_under(next(present, places[0] if places else path), self._roots)

    def _read(self, path: Path) -> bytes:
        try:
            return read_under(path, self._roots, self._max_bytes)
        except SourceError:
            self._presence.check()
            raise

    def _fetched(self, url: str) -> bytes:
        try:
            return self._fetch(url)
        except FetchError as error:
            raise SourceError(error.code, error.detail) from error


def _stamp(path: Path, row: Row) -> str | None:
    """What changes when the file does, or what the manifest says of it."""
    said = hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:16]
    stamp = stamp_of(path)
    return stamp and f"{stamp}:{said}"


class _LineError(ValueError):
    """What is wrong with one line."""


class _Lines:
    """Text lines of a file; one that is too long or no UTF-8 is an error, and then the next."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(_LONGEST_LINE + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > _LONGEST_LINE:
            while line and not line.endswith(b"\n"):
                line = self._file.readline(_LONGEST_LINE)
            raise _LineError(f"it is longer than {_LONGEST_LINE:,} bytes")
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _LineError("it is no UTF-8 text") from error


def _rows(file: IO[bytes]) -> tuple[_Lines, Iterator[Row]]:
    """The lines, and what each says; SourceError `manifest-unreadable` for no manifest."""
    lines = _Lines(file)
    try:
        first = next(filter(str.strip, lines), "")
    except _LineError as error:
        raise SourceError("manifest-unreadable", f"its first line: {error}") from error
    if first.lstrip().startswith("{"):
        return lines, map(_json_row, filter(str.strip, chain([first], lines)))
    delimiter = max(",;\t", key=first.count)
    header = [field.strip() for field in next(csv.reader([first], delimiter=delimiter), [])]
    if not {"path", "url"} & set(header) or len(set(header)) < len(header):
        raise SourceError(
            "manifest-unreadable",
            "a manifest is JSON Lines, or CSV whose first line names its columns, each once, "
            "`path` or `url` among them",
        )
    return lines, map(_csv_row, csv.DictReader(lines, header, delimiter=delimiter))


def _json_row(line: str) -> Row:
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise _LineError("it is nested too deep") from error
    if not isinstance(row, dict):
        raise _LineError("it is no JSON object")
    return row


def _csv_row(row: dict[str | Any, Any]) -> Row:
    """Empty fields are absent ones; `metadata` is a JSON object in its field."""
    if None in row:
        raise _LineError("it has more fields than the first line has columns")
    given_fields = {field: value for field, value in row.items() if value}
    if "metadata" in given_fields:
        given_fields["metadata"] = json.loads(given_fields["metadata"])
    return given_fields


def _text(row: Row, field: str) -> str | None:
    value = row.get(field)
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise _LineError(f"`{field}` must be text that is not empty")
    return value


def _metadata(row: Row) -> dict[str, Any] | None:
    """The metadata object and the fields with names of their own; None where there are none."""
    own = row.get("metadata", {})
    if not isinstance(own, dict):
        raise _LineError("`metadata` must be a JSON object")
    others = {field: value for field, value in row.items() if field not in _OWN_FIELDS}
    return {**others, **own} or None
