"""Any interleaving of operations gives what a dict and a loop give, where searches are exact.

Two catalogs are open on one folder, as two processes would have it: what one of them writes or
compacts the other must follow.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from index import Catalog, Collection, CollectionError, NewItem
from tests.index.making import HIGH, LOW, new_item, stored, unit

Metadata = dict[str, Any]

IDS = st.sampled_from("abcdefghij")
SEEDS = st.integers(0, 12)
METADATA = st.none() | st.fixed_dictionaries({}, optional={"n": st.integers(0, 3), "s": IDS})
NEW_ITEMS = st.builds(
    lambda item_id, seed, metadata: new_item(item_id, seed, metadata, HIGH, LOW),
    IDS,
    SEEDS,
    METADATA,
)
PATCHES = st.fixed_dictionaries({}, optional={"n": st.none() | st.integers(0, 3), "s": st.none()})
WHICH = st.sampled_from([0, 1])

FILTERS: list[tuple[Mapping[str, Any] | None, Callable[[Metadata], bool]]] = [
    (None, lambda said: True),
    ({"n": 1}, lambda said: said.get("n") == 1),
    ({"n": {"in": [0, 3]}}, lambda said: said.get("n") in (0, 3)),
    ({"n": {"gte": 1, "lt": 3}}, lambda said: said.get("n", 9) in (1, 2)),
    ({"s": {"exists": False}}, lambda said: "s" not in said),
    ({"not": {"n": 1}}, lambda said: said.get("n") != 1),
    ({"or": [{"n": 2}, {"s": "a"}]}, lambda said: said.get("n") == 2 or said.get("s") == "a"),
    ({"n": 17}, lambda said: False),
]


class CollectionAgainstDict(RuleBasedStateMachine):
    """`there` is what the collection must be: id -> (content, metadata)."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[str, tuple[str, Metadata]] = {}
        self.vectors: dict[str, dict[str, np.ndarray]] = {}
        self.catalogs: list[Catalog] = []

    @initialize()
    def create(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.catalogs = [Catalog.open(Path(self.folder.name)) for _ in range(2)]
        self.catalogs[0].create_collection("shoes", [HIGH, LOW], {})

    def collection(self, which: int) -> Collection:
        return self.catalogs[which].collection("shoes")

    @rule(which=WHICH, items=st.lists(NEW_ITEMS, max_size=6))
    def add(self, which: int, items: list[NewItem]) -> None:
        assert [one.status for one in self.collection(which).add(items)] == [
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

    @rule(which=WHICH, ids=st.lists(IDS, max_size=3, unique=True))
    def remove(self, which: int, ids: list[str]) -> None:
        assert self.collection(which).remove(ids) == [
            self.there.pop(item_id, None) is not None for item_id in ids
        ]

    @rule(which=WHICH, item_id=IDS, patch=PATCHES)
    def patch(self, which: int, item_id: str, patch: Metadata) -> None:
        if item_id not in self.there:
            with pytest.raises(CollectionError, match=item_id):
                self.collection(which).patch(item_id, patch)
            return
        content, before = self.there[item_id]
        merged = {name: value for name, value in (before | patch).items() if value is not None}
        assert self.collection(which).patch(item_id, patch).metadata == merged
        self.there[item_id] = (content, merged)

    @rule(which=WHICH)
    def compact(self, which: int) -> None:
        self.collection(which).compact()

    @rule(which=WHICH)
    def reopen(self, which: int) -> None:
        self.catalogs[which].close()
        self.catalogs[which] = Catalog.open(Path(self.folder.name))

    @precondition(lambda self: self.there)
    @rule(
        which=WHICH,
        seed=st.integers(100, 110),
        k=st.integers(1, 12),
        offset=st.integers(0, 4),
        filtered=st.sampled_from(FILTERS),
        exclude=st.sets(IDS, max_size=3),
        weight=st.sampled_from([0.0, 0.3, 1.0]),
    )
    def search(
        self,
        which: int,
        seed: int,
        k: int,
        offset: int,
        filtered: tuple[Mapping[str, Any] | None, Callable[[Metadata], bool]],
        exclude: set[str],
        weight: float,
    ) -> None:
        terms, fits = filtered
        queries = {"high": unit(seed), "low": unit(seed, LOW.dim)}
        weights = {name: w for name, w in (("high", weight), ("low", 1 - weight)) if w}
        scores = {
            item_id: sum(
                share * float(self.vectors[item_id][space] @ queries[space])
                for space, share in weights.items()
            )
            for item_id, (_, metadata) in self.there.items()
            if item_id not in exclude and fits(metadata)
        }
        found = self.collection(which).search(
            queries,
            k,
            space=weights if len(weights) > 1 else next(iter(weights)),
            filter=terms,
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
    def both_hold_exactly_what_they_must(self) -> None:
        for which in range(len(self.catalogs)):
            collection = self.collection(which)
            held = {item.id: (item.sha256, item.metadata) for item in collection.items()}
            assert held == self.there
            assert collection.status()["items"] == len(self.there)

    def teardown(self) -> None:
        for catalog in self.catalogs:
            catalog.close()
        if self.catalogs:
            self.folder.cleanup()


class ForLong(CollectionAgainstDict):
    """The same machine, many more times."""


CollectionAgainstDict.TestCase.settings = settings(
    max_examples=8, stateful_step_count=30, deadline=None
)
ForLong.TestCase.settings = settings(max_examples=500, stateful_step_count=60, deadline=None)

test_any_sequence_of_operations_gives_what_a_dict_gives = CollectionAgainstDict.TestCase
test_any_of_many_sequences_does = pytest.mark.long(ForLong.TestCase)
