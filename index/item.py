"""An item: one indexed picture, and what adding or finding it reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from index.errors import CollectionError

Vector = npt.NDArray[np.float32]
Keys = npt.NDArray[np.int64]
Status = Literal["added", "unchanged", "replaced", "rejected"]

LONGEST_ID = 200


@dataclass(frozen=True)
class NewItem:
    """A picture to be added, with one unit descriptor (dim,) float32 per space.

    `source` says where the picture came from (`upload`, `file:/pictures/a.jpg`), `stamp` how its
    file looked then (`mtime_ns:size`). Metadata None keeps what is there, or begins with {}.
    `duplicate_of` is what a `DuplicateCheck` that flags has found.
    """

    id: str
    sha256: str
    name: str
    source: str
    stamp: str | None
    metadata: Mapping[str, Any] | None
    width: int
    height: int
    descriptors: Mapping[str, Vector]
    duplicate_of: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Item:
    """A picture of the collection.

    `key` is its number in every index: given once, never reused. Other content has another key.
    `duplicate_of` (`id`, `score`, `exact`) is what was found when it was added, where that was
    asked for; that other item may be gone by now.
    """

    key: int
    id: str
    sha256: str
    name: str
    source: str
    stamp: str | None
    metadata: dict[str, Any]
    width: int
    height: int
    added_at: datetime
    duplicate_of: dict[str, Any] | None = None


@dataclass(frozen=True)
class Duplicate:
    """The item that a new one duplicates: `exact` by content, otherwise by its cosine `score`."""

    id: str
    score: float
    exact: bool


@dataclass(frozen=True)
class Outcome:
    """What became of one item of an `add`; `rejected` and flagged ones name what they duplicate."""

    id: str
    status: Status
    duplicate: Duplicate | None = None


@dataclass(slots=True)
class Neighbour:
    """A search result; `score` is what orders it, `similarity` the cosine, in [-1, 1].

    The two are the same, except on the short list of a search that re-ranks. Not frozen, which
    would take three times as long to make.
    """

    key: int
    id: str
    score: float
    similarity: float
    name: str
    metadata: dict[str, Any]
    width: int
    height: int
    inliers: int | None = None
    """Matches that spatial verification found to stand alike; None: it was not verified."""


def check_id(item_id: str) -> None:
    """Refuse an id that cannot stand in an address.

    Raises CollectionError: `item-id-invalid`.
    """
    fits = 1 <= len(item_id) <= LONGEST_ID and item_id == item_id.strip()
    if not fits or "/" in item_id or not item_id.isprintable():
        raise CollectionError(
            "item-id-invalid",
            f"{item_id[:LONGEST_ID]!r} cannot be an item's id: use 1 to {LONGEST_ID} printable "
            "characters without '/' and without a space at either end",
        )
