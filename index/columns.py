"""Metadata in columns: filters over a million items in milliseconds.

SQL would parse every item's JSON for every filter. Instead, each field that a filter names becomes
a column in memory, read once by the same SQL that defines what a filter means, and then kept up to
date like a view: new items by key, removed and edited ones by their logs. Where a column would be
inexact or too large there is none, and SQL answers as before.
"""

import operator
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Text, bindparam, column, select, table

from index import tables
from index.filters import Term, Test, is_plain, type_at, value_at
from index.item import Keys
from index.keyset import KeySet
from index.prepared import Prepared
from index.recorded import Recorded

Mask = npt.NDArray[np.bool_]

MOST_COLUMNS = 32
"""Of 13 bytes per item each; then the one that was used longest ago goes."""
MOST_WORDS = 100_000
"""Different texts in a column."""
MOST_WORD_BYTES = 16 * 2**20
"""Of all of them, in UTF-8."""
READ_AT_ONCE = 4_096
"""Items whose values are read from the catalog before they are in the column."""
MOST_ANSWERS = 16
"""Filters whose answer is kept until something changes."""
LARGEST_EXACT = 2**53
"""Of integers in float64."""

TYPES = {"null": 1, "true": 2, "false": 3, "integer": 4, "real": 5, "text": 6}
ABSENT, OTHER, NO_WORD = 0, 7, -1
COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}

ITEMS, EDITS, REMOVALS = tables.items, tables.edits, tables.removals
_MINE = ITEMS.c.collection_id == bindparam("collection_id")
ADDED = Prepared(
    select(ITEMS.c.key).where(_MINE, ITEMS.c.key > bindparam("key")).order_by(ITEMS.c.key)
)
REMOVED = Prepared(
    select(REMOVALS.c.seq, REMOVALS.c.key).where(
        REMOVALS.c.collection_id == bindparam("collection_id"), REMOVALS.c.seq > bindparam("seq")
    )
)
EDITED = Prepared(
    select(EDITS.c.seq, EDITS.c.item_key).where(
        EDITS.c.collection_id == bindparam("collection_id"), EDITS.c.seq > bindparam("seq")
    )
)
COUNTED = ("items", "edits", "removals")
GIVEN = Prepared(
    select(column("name"), column("seq"))
    .select_from(table("sqlite_sequence"))
    .where(column("name").in_(tables.listing(bindparam("tables", type_=Text))))
)
"""The last number that each table gave; they only grow, whatever is deleted."""


class Inexact(Exception):
    """A column cannot answer this as SQL would."""


@dataclass
class _Growing:
    """An array with room to grow."""

    room: npt.NDArray[Any]
    size: int = 0

    @property
    def all(self) -> npt.NDArray[Any]:
        return self.room[: self.size]

    def append(self, new: npt.NDArray[Any]) -> None:
        if self.size + new.size > self.room.size:
            room = np.empty(2 * self.size + new.size, dtype=self.room.dtype)
            room[: self.size] = self.all
            self.room = room
        self.room[self.size : self.size + new.size] = new
        self.size += new.size


def _growing(dtype: Any) -> Callable[[], _Growing]:
    return lambda: _Growing(np.empty(0, dtype=dtype))


@dataclass
class _Column:
    """One field of all items: its type, its number, or which word it is."""

    path: str
    types: _Growing = field(default_factory=_growing(np.uint8))
    numbers: _Growing = field(default_factory=_growing(np.float64))
    words: _Growing = field(default_factory=_growing(np.int32))
    known: dict[str, int] = field(default_factory=dict)
    word_bytes: int = 0

    def __post_init__(self) -> None:
        read = select(ITEMS.c.key, type_at(self.path), value_at(self.path)).where(_MINE)
        after = read.where(ITEMS.c.key > bindparam("key")).order_by(ITEMS.c.key)
        self.after = Prepared(after.limit(READ_AT_ONCE))
        listing = tables.listing(bindparam("keys", type_=Text))
        self.of_keys = Prepared(read.where(ITEMS.c.key.in_(listing)).order_by(ITEMS.c.key))

    def append(self, count: int) -> None:
        """Room for so many items, which have no such field."""
        self.types.append(np.full(count, ABSENT, dtype=np.uint8))
        self.numbers.append(np.full(count, np.nan))
        self.words.append(np.full(count, NO_WORD, dtype=np.int32))

    def put(self, keys: Keys, rows: list[tuple[Any, ...]]) -> None:
        """Write (key, type, value) of items whose places `keys` tell. Raises Inexact."""
        if not rows:
            return
        at = np.searchsorted(keys, np.array([row[0] for row in rows], dtype=np.int64))
        types = np.array(
            [ABSENT if row[1] is None else TYPES.get(row[1], OTHER) for row in rows], np.uint8
        )
        numbers = np.full(len(rows), np.nan)
        is_number = (types == TYPES["integer"]) | (types == TYPES["real"])
        found = [rows[place][2] for place in np.flatnonzero(is_number)]
        if any(isinstance(value, int) and abs(value) > LARGEST_EXACT for value in found):
            raise Inexact
        numbers[is_number] = found
        words = np.full(len(rows), NO_WORD, dtype=np.int32)
        for place in np.flatnonzero(types == TYPES["text"]):
            words[place] = self._numbered(rows[place][2])
        self.types.all[at], self.numbers.all[at], self.words.all[at] = types, numbers, words

    def _numbered(self, word: str) -> int:
        number = self.known.get(word)
        if number is None:
            self.word_bytes += len(word.encode())
            if len(self.known) == MOST_WORDS or self.word_bytes > MOST_WORD_BYTES:
                raise Inexact
            number = self.known[word] = len(self.known)
        return number

    def holds(self, test: Test) -> Mask:
        """Of which items a test is true. Raises Inexact."""
        types, value = self.types.all, test.operand
        if test.op == "exists":
            return np.asarray((types != ABSENT) == value)
        if test.op == "in":
            texts = {one for one in value if isinstance(one, str)}
            numbers = [_exact(one) for one in value if is_plain(one) and not isinstance(one, str)]
            others = [_code(one) for one in value if not is_plain(one)]
            found: Mask = np.isin(types, others) | np.isin(self.numbers.all, numbers)
            return found | self._words(texts.__contains__)
        if not is_plain(value):
            return np.asarray(types == _code(value))
        if not isinstance(value, str):
            return np.asarray(COMPARED[test.op](self.numbers.all, _exact(value)))
        if test.op == "eq":
            return np.asarray(self.words.all == self.known.get(value, len(self.known)))
        return self._words(lambda word: COMPARED[test.op](word, value))

    def _words(self, wanted: Callable[[str], bool]) -> Mask:
        chosen = np.fromiter((wanted(word) for word in self.known), np.bool_, len(self.known))
        return np.asarray(np.append(chosen, False)[self.words.all])  # NO_WORD reads the last


class Columns:
    """The columns of one collection that filters asked for. Safe for any number of threads."""

    def __init__(self, collection_id: int, recorded: Recorded) -> None:
        self._mine = {"collection_id": collection_id}
        self._recorded = recorded
        self._using = threading.Lock()
        self._forget()

    def keys(self, connection: Connection, term: Term) -> KeySet | None:
        """The items for which `term` holds, in the snapshot of `connection`; None: ask SQL."""
        with self._using:
            try:
                if not self._followed(connection):
                    return None
                asked = repr(term)  # equal terms may differ: to Python 1 and True are the same
                if asked not in self._answers:
                    keys = self._keys.all[self._alive.all & self._holds(connection, term)]
                    while len(self._answers) >= MOST_ANSWERS:
                        del self._answers[next(iter(self._answers))]
                    self._answers[asked] = KeySet(keys)
                return self._answers[asked]
            except Inexact:
                return None

    def _forget(self) -> None:
        self._keys = _Growing(np.empty(0, dtype=np.int64))
        self._alive = _Growing(np.empty(0, dtype=np.bool_))
        self._columns: dict[str, _Column] = {}
        self._answers: dict[str, KeySet] = {}
        self._inexact: set[str] = set()
        self._read = (0, 0, 0)

    def _holds(self, connection: Connection, term: Term) -> Mask:
        if isinstance(term, Test):
            return self._column(connection, term.path).holds(term)
        parts = (self._holds(connection, part) for part in term.parts)
        if term.op == "not":
            return ~next(parts)
        joined = np.logical_and if term.op == "and" else np.logical_or
        return np.asarray(joined.reduce(list(parts)))

    def _column(self, connection: Connection, path: str) -> _Column:
        if path in self._inexact:
            raise Inexact
        column = self._columns.pop(path, None)
        if column is None:
            column = _Column(path)
            column.append(self._keys.size)
            self._put_after(connection, column, 0)
            if not column.types.all.any():
                return column  # a field that no item has is not worth its room
            while len(self._columns) >= MOST_COLUMNS:
                del self._columns[next(iter(self._columns))]
        self._columns[path] = column  # the last is the one that was used last
        return column

    def _put_after(self, connection: Connection, column: _Column, key: int) -> None:
        """Write what newer items than `key` have, in parts: a text may be long."""
        while rows := column.after.rows(connection, {**self._mine, "key": key}):
            self._put(column, rows)
            key = rows[-1][0]

    def _put(self, column: _Column, rows: list[tuple[Any, ...]]) -> None:
        try:
            column.put(self._keys.all, rows)
        except Inexact:
            self._columns.pop(column.path, None)
            self._inexact.add(column.path)
            raise

    def _followed(self, connection: Connection) -> bool:
        """Read what the catalog has beyond us; False where we are beyond this snapshot of it."""
        given = dict(GIVEN.rows(connection, {"tables": tables.packed(COUNTED)}))
        now = tuple(given.get(name, 0) for name in COUNTED)
        if any(there < here for there, here in zip(now, self._read, strict=True)):
            return False
        if now != self._read:
            try:
                self._follow(connection)
            except BaseException:
                self._forget()  # it may be half done
                raise
            self._read = now
        return True

    def _follow(self, connection: Connection) -> None:
        if self._read[2] < self._recorded.pruned(connection):
            self._forget()
        self._answers = {}
        key, edit, removal = self._read
        added = ADDED.rows(connection, {**self._mine, "key": key})
        keys = np.array([key for (key,) in added], dtype=np.int64)
        self._keys.append(keys)
        self._alive.append(np.ones(keys.size, dtype=np.bool_))
        edited = EDITED.rows(connection, {**self._mine, "seq": edit})
        changed = tables.packed(item for _, item in edited)
        for held in list(self._columns.values()):
            held.append(keys.size)
            with suppress(Inexact):
                if keys.size:
                    self._put_after(connection, held, key)
                if edited:
                    of_keys = {**self._mine, "keys": changed}
                    self._put(held, held.of_keys.rows(connection, of_keys))
        removed = REMOVED.rows(connection, {**self._mine, "seq": removal})
        self._alive.all[np.isin(self._keys.all, [key for _, key in removed])] = False


def _exact(value: float) -> float:
    if isinstance(value, int) and abs(value) > LARGEST_EXACT:
        raise Inexact
    return float(value)


def _code(value: bool | None) -> int:
    return TYPES["null"] if value is None else TYPES["true"] if value else TYPES["false"]
