"""Grids of pictures for one request: those that a collection keeps, or from a forward pass."""

from collections.abc import Collection as Several
from collections.abc import Mapping
from dataclasses import dataclass

from index import Collection, Item
from index.grids import unpack
from models import Extractor, Region
from models.explanation import describe_grids
from models.extractor import Grid
from models.region import WHOLE, box, cells, covered
from service.batcher import Vectors
from service.clock import Clock
from service.engine import Engine, kept_grids
from service.problems import Problem


@dataclass(frozen=True, eq=False)
class Seen:
    """What networks saw of a picture: grids by layer, `network/layer`, and the box each covers."""

    grids: Mapping[str, Grid]
    covers: Mapping[str, Region]
    width: int
    height: int

    def cut(self, region: Region) -> "Seen | None":
        """The cells in a region, of every grid; None where a grid does not reach there."""
        grids, covers = {}, {}
        for layer, grid in self.grids.items():
            rows, columns = grid.shape[1:]
            found = cells(region, self.covers[layer], rows, columns)
            if found is None:
                return None
            grids[layer] = found.of(grid)
            covers[layer] = box(found, self.covers[layer], rows, columns)
        return Seen(grids, covers, self.width, self.height)


def kept(engine: Engine, collection: Collection, item: Item, layers: Several[str]) -> Seen | None:
    """The kept grids of an item; None where one of `layers` is not kept.

    Raises CollectionError: `grids-damaged`.
    """
    if not set(layers) <= set(kept_grids(collection)):
        return None
    content = collection.pictures.get(item.sha256, "grids")
    if content is None:
        return None
    grids = unpack(content)
    extractor = engine.extractor(collection)
    covers = {
        layer: covered(item.width, item.height, extractor.preprocessing(layer)) for layer in layers
    }
    return Seen({layer: grids[layer] for layer in layers}, covers, item.width, item.height)


def passed(
    engine: Engine,
    extractor: Extractor,
    content: bytes,
    layers: Several[str],
    region: Region | None,
    clock: Clock,
) -> Seen:
    """The grids of an encoded picture, or of a region of it, from a forward pass of its own."""
    with clock.measure("decode"):
        wanted = extractor.preparation(region)
        picture = engine.decoders.prepare(content, wanted, "query", clock)
    with clock.measure("forward"):
        waiting = engine.batcher.submit(extractor, picture.prepared, "query", layers)
        arrays = clock.outcome(waiting, "grids")
    width, height = picture.width, picture.height
    covers = {
        layer: covered(width, height, extractor.preprocessing(layer), region or WHOLE)
        for layer in layers
    }
    return Seen({layer: arrays[layer] for layer in layers}, covers, width, height)


def picture_of(collection: Collection, item: Item) -> bytes:
    """The best that is kept of an item's picture. Raises Problem (`item-picture-missing`)."""
    for kind in ("original", "thumbnail"):
        content = collection.pictures.get(item.sha256, kind)
        if content is not None:
            return content
    raise Problem(
        "item-picture-missing",
        f"collection {collection.name!r} keeps no picture of item {item.id!r}, and no grid that "
        "would do: upload the picture instead, or make a collection that keeps one of them",
    )


def of_item(
    engine: Engine,
    collection: Collection,
    item: Item,
    layers: Several[str],
    region: Region | None,
    clock: Clock,
) -> Seen:
    """The grids of an item: kept ones where they reach, otherwise from what is kept of it."""
    with clock.measure("search"):
        whole = kept(engine, collection, item, layers)
        there = whole.cut(region) if whole and region else whole
    if there:
        return there
    extractor = engine.extractor(collection)
    return passed(engine, extractor, picture_of(collection, item), layers, region, clock)


def pooled(
    engine: Engine, collection: Collection, item: Item, region: Region, spaces: Several[str]
) -> Vectors | None:
    """Descriptors of a region of an item from its kept grids; None where they do not reach."""
    described = engine.extractor(collection).spaces
    specs = [described[name].spec for name in spaces]
    # Fewer cells are fewer dimensions, and what is kept of several scales is one.
    if any(spec.pooling == "flatten" or spec.multiscale for spec in specs):
        return None
    layers = {grid for spec in specs for grid in spec.grids}
    whole = kept(engine, collection, item, layers)
    there = whole.cut(region) if whole else None
    if there is None:
        return None
    return {name: describe_grids(there.grids, described[name]) for name in spaces}
