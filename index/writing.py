"""Writing items: what adding them changes, and the statements that change it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection, Row, Text, bindparam, delete, insert, select, update

from index import descriptors, metadata, tables
from index.duplicates import DuplicateCheck
from index.errors import CollectionError
from index.item import Duplicate, Item, NewItem, Outcome, Status, check_id
from index.prepared import Prepared
from index.space import Space

ITEMS, DESCRIPTORS = tables.items, tables.descriptors
EDITS, REMOVALS = tables.edits, tables.removals
ORIGIN = ("collection_id", "id", "sha256", "name", "source", "stamp", "metadata")
INSERTED = (*ORIGIN, "width", "height", "added_at", "duplicate_of")
INSERT_ITEMS = Prepared(insert(ITEMS).values({name: bindparam(name) for name in INSERTED}))
INSERT_DESCRIPTORS = Prepared(
    insert(DESCRIPTORS).values(
        {name: bindparam(name) for name in ("space_id", "item_key", "vector")}
    )
)
KEYS_OF = Prepared(
    select(ITEMS.c.id, ITEMS.c.key).where(
        ITEMS.c.collection_id == bindparam("collection_id"),
        ITEMS.c.id.in_(tables.listing(bindparam("ids", type_=Text))),
    )
)
SHA256 = re.compile("[0-9a-f]{64}")

Spaces = Mapping[str, tuple[int, Space]]
"""By name, with the number that a space has in the catalog."""


@dataclass(frozen=True)
class Change:
    """What is to be written for a sequence of new items, and what is reported of each."""

    outcomes: list[Outcome]
    inserted: list[NewItem]
    updated: list[tuple[int, NewItem]]
    removed: list[Item]
    rejected: set[str]
    """Contents that are not added, since they duplicate others."""


def check(items: Sequence[NewItem], spaces: Mapping[str, Space]) -> None:
    """Refuse items that cannot be stored; the first of them is named.

    Raises CollectionError: `item-id-invalid`, `descriptor-invalid`, `descriptor-zero`,
    `metadata-invalid`.
    """
    sound = descriptors.are_sound([item.descriptors for item in items], spaces)
    for item in items:
        check_id(item.id)
        if not SHA256.fullmatch(item.sha256):
            raise CollectionError(
                "item-id-invalid",
                f"the sha256 of item {item.id!r} is not one: give 64 hexadecimal digits",
            )
        if not sound:
            descriptors.check(item.id, item.descriptors, spaces)
        if item.metadata is not None:
            metadata.check(item.metadata)


def planned(
    there: Mapping[str, Item],
    new: Sequence[NewItem],
    duplicates: Sequence[Duplicate | None] = (),
    check: DuplicateCheck | None = None,
) -> Change:
    """What adding `new` one after another does to the items that are `there`, by id.

    `duplicates` names the item that each of `new` duplicates, `check` what is done about that.
    """
    now: dict[str, Item | NewItem] = dict(there)
    last: dict[str, NewItem] = {}
    outcomes, rejected = [], set()
    for item, duplicate in zip_longest(new, duplicates):
        if duplicate and check and check.action == "reject":
            outcomes.append(Outcome(item.id, "rejected", duplicate))
            rejected.add(item.sha256)
            continue
        before = now.get(item.id)
        whole = item if before is None else _after(before, item)
        outcomes.append(Outcome(item.id, _status(before, whole), duplicate))
        if duplicate:
            whole = replace(whole, duplicate_of=asdict(duplicate))
        now[item.id] = last[item.id] = whole
    same = {
        item_id: last[item_id]
        for item_id in there.keys() & last.keys()
        if there[item_id].sha256 == last[item_id].sha256
    }
    return Change(
        outcomes=outcomes,
        inserted=[item for item_id, item in last.items() if item_id not in same],
        updated=[
            (there[item_id].key, item)
            for item_id, item in same.items()
            if not _same(there[item_id], item)
        ],
        removed=[there[item_id] for item_id in last if item_id in there and item_id not in same],
        rejected=rejected,
    )


def write(connection: Connection, collection_id: int, spaces: Spaces, change: Change) -> None:
    """Write a change; what was acknowledged before it stays, or goes, as it says."""
    remove(connection, collection_id, [item.key for item in change.removed])
    for key, item in change.updated:
        edit(connection, collection_id, key, _changeable(item))
    if change.inserted:
        _insert(connection, collection_id, spaces, change.inserted)


def _insert(
    connection: Connection, collection_id: int, spaces: Spaces, items: Sequence[NewItem]
) -> None:
    now = datetime.now(UTC).timestamp()
    INSERT_ITEMS.many(
        connection,
        [
            (
                collection_id,
                item.id,
                item.sha256,
                item.name,
                item.source,
                item.stamp,
                metadata.encoded(dict(item.metadata or {})),
                item.width,
                item.height,
                now,
                metadata.encoded(dict(item.duplicate_of)) if item.duplicate_of else None,
            )
            for item in items
        ],
    )
    ids = {"collection_id": collection_id, "ids": tables.packed(item.id for item in items)}
    keys = dict(KEYS_OF.rows(connection, ids))
    for name, (space_id, space) in spaces.items():
        blobs = descriptors.to_bytes([item.descriptors[name] for item in items], space)
        rows = ((space_id, keys[item.id], blob) for item, blob in zip(items, blobs, strict=True))
        INSERT_DESCRIPTORS.many(connection, rows)


def edit(connection: Connection, collection_id: int, key: int, changed: Mapping[str, Any]) -> None:
    """Change an item in place, and leave word of it for whoever holds its metadata."""
    connection.execute(update(ITEMS).where(ITEMS.c.key == key).values(changed))
    connection.execute(delete(EDITS).where(EDITS.c.item_key == key))
    connection.execute(insert(EDITS).values(collection_id=collection_id, item_key=key))


def remove(connection: Connection, collection_id: int, keys: Sequence[int]) -> None:
    """Remove items by key, and leave word of it for whoever holds them in an index."""
    if not keys:
        return
    connection.execute(delete(ITEMS).where(ITEMS.c.key.in_(tables.listed(keys))))
    gone = [{"collection_id": collection_id, "key": key} for key in keys]
    connection.execute(insert(REMOVALS), gone)


def items_of(connection: Connection, collection_id: int, ids: Sequence[str]) -> dict[str, Item]:
    """Those of `ids` that are there."""
    query = select(ITEMS).where(
        ITEMS.c.collection_id == collection_id, ITEMS.c.id.in_(tables.listed(ids))
    )
    return {row.id: to_item(row) for row in connection.execute(query)}


def to_item(row: Row[Any]) -> Item:
    """An item from its row."""
    return Item(**{field.name: getattr(row, field.name) for field in fields(Item)})


def _after(before: Item | NewItem, item: NewItem) -> NewItem:
    """The item with its metadata as it will be read back; None keeps what was there before."""
    given = before.metadata if item.metadata is None else item.metadata
    return replace(item, metadata=metadata.checked(given or {}))


def _status(before: Item | NewItem | None, item: NewItem) -> Status:
    if before is None:
        return "added"
    same = before.sha256 == item.sha256 and metadata.same(before.metadata or {}, item.metadata)
    return "unchanged" if same else "replaced"


def _same(before: Item, item: NewItem) -> bool:
    named = (before.name, before.source, before.stamp) == (item.name, item.source, item.stamp)
    return named and metadata.same(before.metadata, item.metadata)


def _changeable(item: Item | NewItem) -> dict[str, Any]:
    """What can differ between two items of the same content."""
    return {
        "name": item.name,
        "source": item.source,
        "stamp": item.stamp,
        "metadata": item.metadata,
    }
