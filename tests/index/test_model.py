"""Any sequence of operations gives what a dict and a loop give."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from index import Catalog, Collection, NewItem
from tests.index.making import HIGH, LOW, new_item, stored, unit

IDS = st.sampled_from("abcdefgh")
SEEDS = st.integers(0, 12)
METADATA = st.none() | st.fixed_dictionaries({"n": st.integers(0, 2)})
NEW_ITEMS = st.builds(
    lambda item_id, seed, metadata: new_item(item_id, seed, metadata, HIGH, LOW),
    IDS,
    SEEDS,
    METADATA,
)


class CollectionAgainstDict(RuleBasedStateMachine):
    """`there` is what the collection must be: id -> (content, metadata)."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[str, tuple[str, dict[str, Any]]] = {}
        self.vectors: dict[str, dict[str, np.ndarray]] = {}

    @initialize()
    def create(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.catalog = Catalog.open(Path(self.folder.name))
        self.catalog.create_collection("shoes", [HIGH, LOW], {})

    @property
    def collection(self) -> Collection:
        return self.catalog.collection("shoes")

    @rule(items=st.lists(NEW_ITEMS, max_size=5))
    def add(self, items: list[NewItem]) -> None:
        assert [one.status for one in self.collection.add(items)] == [
            self._expected(item) for item in items
        ]

    def _expected(self, item: NewItem) -> str:
        before = self.there.get(item.id)
        kept = before[1] if before else {}
        now = (item.sha256, kept if item.metadata is None else dict(item.metadata))
        self.there[item.id] = now
        self.vectors[item.id] = {
            space.name: stored(item.descriptors[space.name], space) for space in (HIGH, LOW)
        }
        return "added" if before is None else "unchanged" if before == now else "replaced"

    @rule(ids=st.lists(IDS, max_size=3, unique=True))
    def remove(self, ids: list[str]) -> None:
        assert self.collection.remove(ids) == [
            self.there.pop(item_id, None) is not None for item_id in ids
        ]

    @rule()
    def compact(self) -> None:
        self.collection.compact()

    @rule()
    def reopen(self) -> None:
        self.catalog.close()
        self.catalog = Catalog.open(Path(self.folder.name))

    @rule(
        seed=st.integers(100, 110),
        k=st.integers(1, 10),
        offset=st.integers(0, 3),
        n=st.none() | st.integers(0, 2),
        exclude=st.sets(IDS, max_size=2),
        weight=st.sampled_from([0.0, 0.3, 1.0]),
    )
    def search(
        self, seed: int, k: int, offset: int, n: int | None, exclude: set[str], weight: float
    ) -> None:
        queries = {"high": unit(seed), "low": unit(seed, LOW.dim)}
        scores = {
            item_id: sum(
                share * float(self.vectors[item_id][space] @ queries[space])
                for space, share in (("high", weight), ("low", 1 - weight))
            )
            for item_id, (_, metadata) in self.there.items()
            if item_id not in exclude and (n is None or metadata.get("n") == n)
        }
        found = self.collection.search(
            queries,
            k,
            space={"high": weight, "low": 1 - weight},
            filter=None if n is None else {"n": n},
            offset=offset,
            exclude=exclude,
        )
        # Items of one content have one score and may stand in either order.
        best = sorted(scores.values(), reverse=True)[offset : offset + k]
        assert [one.score for one in found] == pytest.approx(best, abs=1e-5)
        assert len({one.id for one in found}) == len(found)
        for one in found:
            assert one.score == pytest.approx(scores[one.id], abs=1e-5)
            assert one.metadata == self.there[one.id][1]

    @invariant()
    def holds_exactly_what_it_must(self) -> None:
        if hasattr(self, "catalog"):
            held = {item.id: (item.sha256, item.metadata) for item in self.collection.items()}
            assert held == self.there
            assert self.collection.status()["items"] == len(self.there)

    def teardown(self) -> None:
        if hasattr(self, "catalog"):
            self.catalog.close()
            self.folder.cleanup()


CollectionAgainstDict.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None
)
test_any_sequence_of_operations_gives_what_a_dict_gives = CollectionAgainstDict.TestCase
