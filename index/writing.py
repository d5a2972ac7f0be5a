"""Writing items: what adding them changes, and the statements that change it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from index import descriptors, metadata, tables
from index.duplicates import DuplicateCheck
from index.item import Duplicate, Item, NewItem, Outcome, Status, check_id
from index.space import Space

ITEMS, DESCRIPTORS, REMOVALS = tables.items, tables.descriptors, tables.removals

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


def checked(item: NewItem, spaces: Mapping[str, Space]) -> NewItem:
    """Return an item with its metadata as it will be stored.

    Raises CollectionError: `item-id-invalid`, `descriptor-invalid`, `metadata-invalid`.
    """
    check_id(item.id)
    descriptors.check(item.id, item.descriptors, spaces)
    if item.metadata is None:
        return item
    return replace(item, metadata=metadata.checked(item.metadata))


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
        kept = before.metadata if before else {}
        whole = replace(item, metadata=kept) if item.metadata is None else item
        outcomes.append(Outcome(item.id, _status(before, whole), duplicate))
        if duplicate:
            whole = replace(whole, duplicate_of=asdict(duplicate))
        now[item.id] = last[item.id] = whole
    same = {
        item_id: item
        for item_id, item in last.items()
        if item_id in there and there[item_id].sha256 == item.sha256
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
        connection.execute(update(ITEMS).where(ITEMS.c.key == key).values(_changeable(item)))
    if not change.inserted:
        return
    now = datetime.now(UTC)
    rows = [
        {
            "collection_id": collection_id,
            "id": item.id,
            "sha256": item.sha256,
            "width": item.width,
            "height": item.height,
            "added_at": now,
            "duplicate_of": item.duplicate_of,
            **_changeable(item),
        }
        for item in change.inserted
    ]
    inserting = insert(ITEMS).returning(ITEMS.c.id, ITEMS.c.key)
    keys = {row.id: row.key for row in connection.execute(inserting, rows)}
    vectors = [
        {
            "space_id": space_id,
            "item_key": keys[item.id],
            "vector": descriptors.to_bytes(item.descriptors[name], space),
        }
        for item in change.inserted
        for name, (space_id, space) in spaces.items()
    ]
    connection.execute(insert(DESCRIPTORS), vectors)


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


def _status(before: Item | NewItem | None, item: NewItem) -> Status:
    if before is None:
        return "added"
    same = before.sha256 == item.sha256 and metadata.same(before.metadata, item.metadata)
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
