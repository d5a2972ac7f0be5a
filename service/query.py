"""A query in, neighbours out: pictures, items and URLs to one vector per space, then the index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from index import Collection, Item, Neighbour, Verification
from models import Extractor, Region
from models.preparation import check_region
from service import grids, verification
from service.batcher import Vectors
from service.clock import Clock
from service.engine import Engine
from service.problems import Problem

NEGATIVE = 0.2
"""Rocchio's γ/β = 0.15/0.75 (Manning, Raghavan & Schütze 2008, section 9.1.1)."""

Example = bytes | str | tuple[str, str]
"""An encoded picture, the id of an item, or ("url", address)."""


@dataclass(frozen=True)
class Query:
    """What a search asks for; see `SearchOptions` for the meaning of the fields."""

    positives: Sequence[Example]
    negatives: Sequence[Example] = ()
    k: int = 10
    offset: int = 0
    space: str | Mapping[str, float] | None = None
    region: Region | None = None
    filter: Mapping[str, Any] | None = None
    expansion: Mapping[str, float] | None = None
    rerank: str | Mapping[str, Any] | None = None
    verify: Verification | None = None


@dataclass(frozen=True)
class Answer:
    """Neighbours, best first; `took_ms` by stage; `more` says whether others follow."""

    neighbours: list[Neighbour]
    space: str | Mapping[str, float]
    took_ms: dict[str, float]
    more: bool


def search(
    engine: Engine, collection: Collection, query: Query, clock: Clock | None = None
) -> Answer:
    """Search a collection, within the time of a clock.

    Raises PictureError, CollectionError, FetchError and Problem (`query-empty`, `overloaded`,
    `request-timeout`, `client-gone`, `item-picture-missing`, and those of `Decoders.prepare`).
    """
    if not query.positives:
        raise Problem(
            "query-empty", "name a picture to search by: a file, an item, a URL or positives"
        )
    if query.region:
        check_region(query.region)
    clock = clock or Clock(engine.settings.request_timeout_s)
    space = default_space(collection) if query.space is None else query.space
    wanted = [space] if isinstance(space, str) else [name for name in space if space[name] > 0]
    collection.check_spaces(wanted)
    asking = _Asking(engine, collection, query.region, wanted, clock)
    positives = [asking.vectors(example) for example in query.positives]
    negatives = [asking.vectors(example) for example in query.negatives]
    vectors = {
        name: combine([p[name] for p in positives], [n[name] for n in negatives]) for name in wanted
    }
    items = [
        example for example in (*query.positives, *query.negatives) if isinstance(example, str)
    ]
    # A verified short list is ordered anew, so that every page is cut from the whole of it.
    first = 0 if query.verify else query.offset
    last = max(query.offset + query.k + 1, query.verify.n if query.verify else 0)
    clock.check("the search")
    with clock.measure("search"):
        found = collection.search(
            vectors,
            last - first,
            space=space,
            filter=query.filter,
            offset=first,
            exclude=items,
            expansion=query.expansion,
            rerank=query.rerank,
        )
    if query.verify:
        subject = asking.subject([*query.positives, *query.negatives])
        found = verification.verified(
            engine, collection, subject, query.region, found, query.verify, clock
        )
        found = found[query.offset :][: query.k + 1]
    for stage, took in clock.took_ms.items():
        engine.metrics.stage_seconds.labels(stage).observe(took / 1000)
    return Answer(found[: query.k], space, clock.took_ms, len(found) > query.k)


def default_space(collection: Collection) -> str:
    """`high` where there is one, otherwise the first."""
    return "high" if "high" in collection.spaces else next(iter(collection.spaces))


def combine(
    positives: Sequence[npt.NDArray[np.float32]], negatives: Sequence[npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """Rocchio: the mean of the positives less 0.2 of the mean of the negatives, L2-normalised.

    >>> [round(float(x), 3) for x in combine([np.float32([1, 0]), np.float32([0, 1])], [])]
    [0.707, 0.707]
    """
    query = np.mean(positives, axis=0)
    if negatives:
        query = query - NEGATIVE * np.mean(negatives, axis=0)
    norm = float(np.linalg.norm(query))
    unit: npt.NDArray[np.float32] = (query / max(norm, 1e-12)).astype(np.float32)
    return unit


@dataclass(frozen=True)
class _Asking:
    """Turns the examples of one query into vectors."""

    engine: Engine
    collection: Collection
    region: Region | None
    spaces: Sequence[str]
    clock: Clock
    fetched: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def vectors(self, example: Example) -> Mapping[str, npt.NDArray[np.float32]]:
        """dim float32 by space."""
        if not isinstance(example, str):
            return self._describe(self.content(example))
        with self.clock.measure("search"):
            if self.region is None:
                return {name: self.collection.vectors([example], name)[0] for name in self.spaces}
            item = self.collection.get(example)
            pooled = grids.pooled(self.engine, self.collection, item, self.region, self.spaces)
        return pooled or self._describe(grids.picture_of(self.collection, item))

    def subject(self, examples: Sequence[Example]) -> bytes | Item:
        """The one picture whose parts are compared with those of its neighbours."""
        if len(examples) != 1:
            raise Problem("verify-several", "verify compares with one picture: search by one")
        (example,) = examples
        return self.collection.get(example) if isinstance(example, str) else self.content(example)

    def content(self, example: bytes | tuple[str, str]) -> bytes:
        """An upload, or what is at an address, which is asked once."""
        if isinstance(example, bytes):
            return example
        if example not in self.fetched:
            # A hundred slow addresses must not hold a thread for an hour.
            self.clock.check(example[1])
            with self.clock.measure("decode"):
                self.fetched[example] = self.engine.fetcher.fetch(example[1])
        return self.fetched[example]

    def _describe(self, content: bytes) -> Vectors:
        return describe(
            self.engine, self.engine.extractor(self.collection), content, self.region, self.clock
        )


def describe(
    engine: Engine,
    extractor: Extractor,
    content: bytes,
    region: Region | None = None,
    clock: Clock | None = None,
) -> Vectors:
    """One picture's descriptors by space, ahead of all bulk work."""
    clock = clock or Clock(engine.settings.request_timeout_s)
    with clock.measure("decode"):
        wanted = extractor.preparation(region)
        prepared = engine.decoders.prepare(content, wanted, "query", clock).prepared
    with clock.measure("forward"):
        return clock.outcome(engine.batcher.submit(extractor, prepared, "query"), "descriptor")
