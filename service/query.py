"""A query in, neighbours out: pictures, items and URLs to one vector per space, then the index."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from index import Collection, Item, Neighbour, Verification
from models import Extractor, Region
from models.preparation import check_region
from service import grids, verification
from service.batcher import Vectors
from service.clock import Clock
from service.engine import Engine
from service.problems import KNOWN, Problem

NEGATIVE = 0.2
"""Rocchio's γ/β = 0.15/0.75 (Manning, Raghavan & Schütze 2008, section 9.1.1)."""

Vector = npt.NDArray[np.float32]

T = TypeVar("T")

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
    examples = asking.vectors([*query.positives, *query.negatives])
    positives, negatives = examples[: len(query.positives)], examples[len(query.positives) :]
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

    def vectors(self, examples: Sequence[Example]) -> list[Mapping[str, Vector]]:
        """dim float32 by space for each; those that are pictures are described together."""
        known = [self._known(example) for example in examples]
        unknown = [each for each, there in zip(examples, known, strict=True) if there is None]
        described = iter(self._described([self._picture(example) for example in unknown]))
        return [next(described) if there is None else there for there in known]

    def _known(self, example: Example) -> Mapping[str, Vector] | None:
        """What is known of an item; None: its picture has to be described."""
        if not isinstance(example, str):
            return None
        with self.clock.measure("search"):
            if self.region is None:
                return {name: self.collection.vectors([example], name)[0] for name in self.spaces}
            item = self.collection.get(example)
            return grids.pooled(self.engine, self.collection, item, self.region, self.spaces)

    def _picture(self, example: Example) -> bytes:
        if isinstance(example, str):
            return grids.picture_of(self.collection, self.collection.get(example))
        return self.content(example)

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

    def _described(self, pictures: Sequence[bytes]) -> list[Vectors]:
        if not pictures:
            return []
        extractor = self.engine.extractor(self.collection)
        described = []
        for found in describe(self.engine, extractor, pictures, self.clock, self.region):
            if isinstance(found, Exception):
                raise found
            described.append(found)
        return described


def describe(
    engine: Engine,
    extractor: Extractor,
    pictures: Sequence[bytes],
    clock: Clock,
    region: Region | None = None,
) -> list[Vectors | Exception]:
    """Descriptors by space of each picture, ahead of all bulk work; an error is in its place.

    They are decoded side by side, and those that can be share a forward pass. Raises Problem
    (`overloaded`) where the network has too many queries waiting already.
    """
    prepare = partial(
        engine.decoders.prepare, wanted=extractor.preparation(region), lane="query", clock=clock
    )
    with clock.measure("decode"):
        if len(pictures) == 1:  # No other thread has to be woken for it.
            found = [_tried(prepare, pictures[0])]
        else:
            decoding = [engine.examples.submit(prepare, picture) for picture in pictures]
            found = [_tried(clock.outcome, one, "picture") for one in decoding]
    with clock.measure("forward"):
        prepared = [one.prepared for one in found if not isinstance(one, Exception)]
        computing = iter(engine.batcher.submit_together(extractor, prepared, "query"))
        return [
            one if isinstance(one, Exception) else _tried(clock.outcome, next(computing), "result")
            for one in found
        ]


def _tried(work: Callable[..., T], *given: Any) -> T | Exception:
    """What comes of it, also where that is a known error."""
    try:
        return work(*given)
    except KNOWN as error:
        return error
