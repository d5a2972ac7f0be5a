"""A query in, neighbours out: pictures, items and URLs to one vector per space, then the index."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from index import Collection, Neighbour
from models import Extractor, Region, decode, scaled_side
from service.batcher import Vectors
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


@dataclass(frozen=True)
class Answer:
    """Neighbours, best first; `took_ms` by stage; `more` says whether others follow."""

    neighbours: list[Neighbour]
    space: str | Mapping[str, float]
    took_ms: dict[str, float]
    more: bool


@dataclass
class _Clock:
    """Milliseconds by stage."""

    started: float = field(default_factory=time.monotonic)
    took_ms: dict[str, float] = field(
        default_factory=lambda: {"decode": 0.0, "forward": 0.0, "search": 0.0}
    )

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.took_ms[stage] += (time.perf_counter() - started) * 1000


def search(engine: Engine, collection: Collection, query: Query) -> Answer:
    """Search a collection.

    Raises PictureError, CollectionError, FetchError and Problem (`query-empty`, `overloaded`,
    `request-timeout`, `item-picture-missing`).
    """
    if not query.positives:
        raise Problem(
            "query-empty", "name a picture to search by: a file, an item, a URL or positives"
        )
    clock = _Clock()
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
    with clock.measure("search"):
        found = collection.search(
            vectors,
            query.k + 1,
            space=space,
            filter=query.filter,
            offset=query.offset,
            exclude=items,
            expansion=query.expansion,
            rerank=query.rerank,
        )
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
    clock: _Clock

    def vectors(self, example: Example) -> Mapping[str, npt.NDArray[np.float32]]:
        """dim float32 by space."""
        if isinstance(example, str) and self.region is None:
            with self.clock.measure("search"):
                return {name: self.collection.vectors([example], name)[0] for name in self.spaces}
        if isinstance(example, str):
            return self._describe(self._kept(example))
        if isinstance(example, tuple):
            # A hundred slow addresses must not hold a thread for an hour.
            if time.monotonic() - self.clock.started > self.engine.settings.request_timeout_s:
                raise Problem("request-timeout", f"no time was left for {example[1]}")
            with self.clock.measure("decode"):
                content = self.engine.fetcher.fetch(example[1])
            return self._describe(content)
        return self._describe(example)

    def _kept(self, item_id: str) -> bytes:
        item = self.collection.get(item_id)
        for kind in ("original", "thumbnail"):
            content = self.collection.pictures.get(item.sha256, kind)
            if content is not None:
                return content
        raise Problem(
            "item-picture-missing",
            f"collection {self.collection.name!r} keeps no pictures, so item {item_id!r} cannot be "
            "searched by region: upload the picture instead",
        )

    def _describe(self, content: bytes) -> Vectors:
        return describe(
            self.engine, self.engine.extractor(self.collection), content, self.region, self.clock
        )


def describe(
    engine: Engine,
    extractor: Extractor,
    content: bytes,
    region: Region | None = None,
    clock: _Clock | None = None,
) -> Vectors:
    """One picture's descriptors by space, ahead of all bulk work."""
    clock = clock or _Clock()
    with clock.measure("decode"), engine.query_decoders:
        side = scaled_side(extractor.min_side, region)
        prepared = extractor.prepare(decode(content, engine.limits, side).image, region)
    with clock.measure("forward"):
        waiting = engine.batcher.submit(extractor, prepared, "query")
        try:
            return waiting.result(engine.settings.request_timeout_s)
        except FutureTimeoutError as error:
            waiting.cancel()
            seconds = engine.settings.request_timeout_s
            raise Problem("request-timeout", f"no descriptor within {seconds:g} s") from error
