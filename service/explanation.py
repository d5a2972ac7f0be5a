"""Why an item is a neighbour of a query: heatmaps, shares of the spaces, where it matches."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from index import Collection, Item
from index.ranking import fusion
from models import DescriptorSpace, DescriptorSpec, Region
from models.explanation import Side, explain, shares
from models.preparation import check_region
from models.region import box, match
from models.spec import find_layer
from service import grids
from service.clock import Clock
from service.engine import Engine
from service.grids import Seen


@dataclass(frozen=True, eq=False)
class Part:
    """One space: its weight, its cosine, its share of the whole, and either side of it.

    `left_out` are the scales of its descriptors that are not in the cosine explained here.
    """

    space: str
    weight: float
    score: float
    share: float
    query: Side
    neighbour: Side
    left_out: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Why:
    """The score, its parts, the greatest first, and where in the neighbour the query was found."""

    score: float
    parts: list[Part]
    where: Region | None


def why(
    engine: Engine,
    collection: Collection,
    query: bytes | Item,
    neighbour: Item,
    space: str | Mapping[str, float],
    region: Region | None = None,
    clock: Clock | None = None,
) -> Why:
    """Explain the score of an item.

    Raises PictureError (`picture-region-invalid`, …), CollectionError (`space-unknown`,
    `space-weights-invalid`) and Problem
    (`item-picture-missing`, `overloaded`, `request-timeout`).
    """
    if region:
        check_region(region)
    weights = fusion.weights({space: 1.0} if isinstance(space, str) else space)
    collection.check_spaces(weights)
    described = engine.extractor(collection).spaces
    layers = list(dict.fromkeys(grid for name in weights for grid in described[name].spec.grids))
    clock = clock or Clock(engine.settings.request_timeout_s)
    if region and isinstance(query, Item) and _flattened(described, weights):
        query = grids.picture_of(collection, query)  # Fewer cells would be fewer dimensions.
    asked = _seen(engine, collection, query, layers, region, clock)
    found = _seen(engine, collection, neighbour, layers, None, clock)
    covers = asked.covers, found.covers
    explained = {
        name: explain(asked.grids, found.grids, described[name], covers) for name in weights
    }
    share = shares({name: one.score for name, one in explained.items()}, weights)
    parts = [
        Part(
            space=name,
            weight=weight,
            score=explained[name].score,
            share=share[name],
            query=explained[name].query,
            neighbour=explained[name].neighbour,
            left_out=described[name].spec.scales[1:],
        )
        for name, weight in weights.items()
    ]
    parts.sort(key=lambda part: -part.share)
    gridded = (part.space for part in parts if _deepest_is_grid(described[part.space].spec))
    best = next(gridded, None)
    where = _where(asked, found, described[best]) if best else None
    return Why(sum(part.weight * part.score for part in parts), parts, where)


def _seen(
    engine: Engine,
    collection: Collection,
    picture: bytes | Item,
    layers: list[str],
    region: Region | None,
    clock: Clock,
) -> Seen:
    if isinstance(picture, Item):
        return grids.of_item(engine, collection, picture, layers, region, clock)
    extractor = engine.extractor(collection)
    return grids.passed(engine, extractor, picture, layers, region, clock)


def _flattened(described: Mapping[str, DescriptorSpace], names: Iterable[str]) -> bool:
    return any(described[name].spec.pooling == "flatten" for name in names)


def _deepest_is_grid(spec: DescriptorSpec) -> bool:
    return find_layer(spec.network, spec.layers[-1]).stride is not None


def _where(asked: Seen, found: Seen, described: DescriptorSpace) -> Region:
    """Of joined layers the deepest looks for the whole of the query."""
    layer = described.spec.grids[-1]
    there, _ = match(asked.grids[layer], found.grids[layer], described)
    return box(there, found.covers[layer], *found.grids[layer].shape[1:])
