"""Duplicates while items are added: the same file under another id, or a picture that looks alike.

The index is asked before the transaction, since a search may take its time and writers wait for
each other. In the transaction follows what that search cannot have seen: items committed since,
and the earlier ones of the same batch. So of two near-identical pictures one is a duplicate, in
whatever order, batch or process they arrive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
from sqlalchemy import Connection, select

from index import descriptors, tables
from index.errors import CollectionError
from index.item import Duplicate, Item, Keys, NewItem, Vector
from index.space import Space
from index.view import View

ITEMS = tables.items

Action = Literal["reject", "flag"]

CANDIDATES = 16
"""Looked up for each new item: some of them may be removed before it is committed."""


@dataclass(frozen=True)
class DuplicateCheck:
    """What is done with a new item that duplicates another: `reject` it, or add it and `flag` it.

    Without `threshold` only the same content counts; otherwise also a cosine of at least
    `threshold` in `space`. An item that comes again under its own id is no duplicate.
    """

    action: Action
    space: str | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Raise CollectionError: `duplicates-invalid`."""
        if self.action not in get_args(Action):
            raise CollectionError(
                "duplicates-invalid", f"{self.action!r} is none of {get_args(Action)}"
            )
        if self.threshold is not None:
            check_threshold(self.threshold)
            if self.space is None:
                raise CollectionError(
                    "duplicates-invalid", "name the space that the threshold is for"
                )


def check_threshold(threshold: float) -> None:
    """Refuse what is no cosine to be reached. Raises CollectionError: `duplicates-invalid`."""
    if not 0 < threshold <= 1:
        raise CollectionError(
            "duplicates-invalid", f"threshold {threshold} is not above 0 and at most 1"
        )


@dataclass(frozen=True)
class Sieve:
    """A check of new items, with what the index says about them."""

    check: DuplicateCheck
    space_id: int
    space: Space | None
    key: int
    near: Sequence[tuple[Keys, Vector]]
    """For each item, what is near it of all items up to `key`."""

    @classmethod
    def of(
        cls,
        check: DuplicateCheck,
        spaces: Mapping[str, tuple[int, Space]],
        items: Sequence[NewItem],
        view: View,
        connection: Connection,
    ) -> "Sieve":
        """Ask the index. Raises CollectionError: `space-unknown`."""
        if check.threshold is None or check.space is None:
            return cls(check, 0, None, 0, [])
        if check.space not in spaces:
            raise CollectionError(
                "space-unknown", f"there is no space {check.space!r}: there are {sorted(spaces)}"
            )
        vectors_of = partial(descriptors.of_keys, connection, *spaces[check.space])
        near = [
            view.search(check.space, item.descriptors[check.space], CANDIDATES, None, vectors_of)
            for item in items
        ]
        return cls(check, *spaces[check.space], view.key, near)

    def sift(
        self,
        connection: Connection,
        collection_id: int,
        items: Sequence[NewItem],
        there: Mapping[str, Item],
    ) -> list[Duplicate | None]:
        """Which item each of `items` duplicates, as if they were added one after another.

        `there` are the items that have one of their ids already.
        """
        known = self._known(connection, collection_id, items)
        contents = _contents(connection, collection_id, items)
        accepted: dict[str, NewItem] = {}
        found: list[Duplicate | None] = []
        for at, item in enumerate(items):
            before = accepted.get(item.id) or there.get(item.id)
            if before is not None and before.sha256 == item.sha256:
                found.append(None)
                continue
            others = [each for each in accepted.values() if each.id != item.id]
            passed = {item.id, *accepted}
            duplicate = (
                _same(item, contents.get(item.sha256, []), passed, others)
                or self._alike(item, known[at] if known else [], passed, others)
            )  # fmt: skip
            found.append(duplicate)
            if duplicate is None or self.check.action == "flag":
                accepted[item.id] = item
        return found

    def _alike(
        self,
        item: NewItem,
        known: Sequence[tuple[str, float]],
        passed: set[str],
        others: Sequence[NewItem],
    ) -> Duplicate | None:
        """The most alike of the items that are there and of those that are about to be."""
        if self.check.threshold is None or self.space is None:
            return None
        name = self.space.name
        alike = [(item_id, score) for item_id, score in known if item_id not in passed]
        if others:
            rows = np.stack([other.descriptors[name] for other in others])
            scores = rows @ item.descriptors[name]
            alike += [(other.id, float(s)) for other, s in zip(others, scores, strict=True)]
        best = max(alike, key=lambda pair: pair[1], default=("", -1.0))
        if best[1] < self.check.threshold:
            return None
        return Duplicate(best[0], min(best[1], 1.0), exact=False)

    def _known(
        self, connection: Connection, collection_id: int, items: Sequence[NewItem]
    ) -> list[list[tuple[str, float]]]:
        """Ids and cosines of the items in the catalog that are near each item."""
        if self.space is None or self.check.threshold is None:
            return []
        near = list(self.near)
        for keys, vectors in descriptors.after(connection, self.space_id, self.space, self.key):
            for at, item in enumerate(items):
                scores = vectors @ item.descriptors[self.space.name]
                before = near[at]
                near[at] = np.append(before[0], keys), np.append(before[1], scores)
        close = [
            (keys[scores >= self.check.threshold], scores[scores >= self.check.threshold])
            for keys, scores in near
        ]
        wanted = {int(key) for keys, _ in close for key in keys}
        query = select(ITEMS.c.key, ITEMS.c.id).where(
            ITEMS.c.collection_id == collection_id, ITEMS.c.key.in_(tables.listed(wanted))
        )
        ids = {row.key: row.id for row in connection.execute(query)}
        return [
            [
                (ids[key], score)
                for key, score in zip(keys.tolist(), scores.tolist(), strict=True)
                if key in ids
            ]
            for keys, scores in close
        ]


def _contents(
    connection: Connection, collection_id: int, items: Sequence[NewItem]
) -> dict[str, list[str]]:
    """The ids that have each content, the oldest first."""
    query = select(ITEMS.c.sha256, ITEMS.c.id).where(
        ITEMS.c.collection_id == collection_id,
        ITEMS.c.sha256.in_(tables.listed({item.sha256 for item in items})),
    )
    found: dict[str, list[str]] = {}
    for row in connection.execute(query.order_by(ITEMS.c.key)):
        found.setdefault(row.sha256, []).append(row.id)
    return found


def _same(
    item: NewItem, there: Sequence[str], passed: set[str], others: Sequence[NewItem]
) -> Duplicate | None:
    same = [item_id for item_id in there if item_id not in passed]
    same += [other.id for other in others if other.sha256 == item.sha256]
    return Duplicate(same[0], 1.0, exact=True) if same else None
