"""Spatial verification of a short list, from kept grids or from what is kept of the pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from index import Collection, CollectionError, Item, Neighbour, Verification
from index.ranking import spatial
from models import PictureError, Region
from models.geometry import layers
from models.local import LocalDescriptors, local_descriptors
from models.region import covered, reached
from models.spec import find_layer, layer_of_grid, parse
from service import grids
from service.clock import Clock
from service.engine import Engine, kept_grids
from service.problems import Problem

SIDE = {"original": 768, "thumbnail": 320}
"""The longer side of what is recomputed, in pixels, by what is kept of pictures."""

MOST_ACTIVATIONS = 2**24
"""Of any layer of the network for one picture, 64 MB in float32: what a pass needs depends on it.

Only VGGs have more at `SIDE`: they look at 512 px.
"""

HANDFUL = 16
"""Pictures whose grids are in memory at once."""

Subject = bytes | Item
"""The picture that is searched by."""

Described = Callable[[], LocalDescriptors]
"""Local descriptors on their way."""

T = TypeVar("T")


def verified(
    engine: Engine,
    collection: Collection,
    subject: Subject,
    region: Region | None,
    found: Sequence[Neighbour],
    asked: Verification,
    clock: Clock,
) -> list[Neighbour]:
    """`found` with the first `asked.n` in the order of their inliers, the others behind them.

    A neighbour of which nothing is kept that can be read has no `inliers`. Raises what a query that
    cannot be read is refused by, and Problem: `item-picture-missing`, `request-timeout`,
    `verify-no-grid`.
    """
    short, rest = found[: asked.n], found[asked.n :]
    layer = layer_of(collection, asked.layer)
    if collection.settings["keep"] == "nothing" and layer not in kept_grids(collection):
        raise Problem(
            "verify-no-grid",
            f"collection {collection.name!r} keeps neither pictures nor the grids of {layer}: "
            "name a layer that it keeps, or make a collection that keeps one of them",
        )
    looking = _Looking(engine, collection, layer, clock)
    query = looking.at(subject, region)()
    counted: list[Neighbour] = []
    for at in range(0, len(short), HANDFUL):
        clock.check(f"verifying more than {at} neighbours")
        handful = short[at : at + HANDFUL]
        under_way = [looking.neighbour(neighbour) for neighbour in handful]
        described = [_unless_lost(one) if one else None for one in under_way]
        with clock.measure("search"):
            counted += [
                replace(neighbour, inliers=_inliers(query, other))
                for neighbour, other in zip(handful, described, strict=True)
            ]
    order = spatial.reranked([neighbour.inliers or 0 for neighbour in counted], asked.inliers)
    return [*(counted[at] for at in order), *rest]


def layer_of(collection: Collection, asked: str | None = None) -> str:
    """The layer whose positions are compared: the one asked, or the first that is kept.

    Otherwise it is the layer of `mid`, or of the first space with a grid; of joined layers the
    deepest. Raises SpecError, and
    Problem (`verify-no-grid`).
    """
    specs = {name: space.spec for name, space in collection.spaces.items()}
    named = [specs[name] for name in sorted(specs, key=_mid_first)]
    choices = [specs.get(asked, asked)] if asked else [*kept_grids(collection), *named]
    for spec in map(parse, choices):
        for layer, grid in zip(reversed(spec.layers), reversed(spec.grids), strict=True):
            if find_layer(spec.network, layer).stride is not None:
                return grid
    raise Problem(
        "verify-no-grid",
        f"{', '.join(choices)} of collection {collection.name!r}: no grid to verify by; name "
        "another layer",
    )


def side_of(network: str, keep: str) -> int:
    """The longer side, in pixels, at which pictures are looked at again.

    It does not depend on the layer that a client asks for.

    >>> side_of("alexnet", "original"), side_of("vgg19", "original")
    (768, 512)
    """
    side = SIDE.get(keep, SIDE["original"])
    grids = [layer for layer in layers(network).values() if layer.stride is not None]
    most = max(layer.activations(side, side) for layer in grids)
    return int(side * min(1.0, MOST_ACTIVATIONS / most) ** 0.5)


def _mid_first(name: str) -> bool:
    return name != "mid"


def _unless_lost(step: Callable[[], T]) -> T | None:
    """None: what is kept of one neighbour is gone or damaged, and nothing can be said of it."""
    try:
        return step()
    except (CollectionError, PictureError):
        return None
    except Problem as problem:
        if problem.code != "item-picture-missing":
            raise
        return None


def _inliers(query: LocalDescriptors, other: LocalDescriptors | None) -> int | None:
    if other is None:
        return None
    found = spatial.verify((query.vectors, query.positions), (other.vectors, other.positions))
    return found.inliers


@dataclass(frozen=True)
class _Looking:
    """Local descriptors of pictures, all of one layer and one scale."""

    engine: Engine
    collection: Collection
    layer: str
    clock: Clock

    def neighbour(self, found: Neighbour) -> Described | None:
        """As `at`; None: what is kept of it is gone or damaged."""
        return _unless_lost(lambda: self.at(self.collection.get(found.id)))

    def at(self, picture: Subject, region: Region | None = None) -> Described:
        """Begin to look at a picture; called, the answer waits for the end of it.

        Those that are begun together share forward passes where their grids are not kept.
        """
        if self.layer in kept_grids(self.collection):
            return partial(self._in_grid, picture, region)
        content = (
            grids.picture_of(self.collection, picture) if isinstance(picture, Item) else picture
        )
        return self._anew(content, region)

    def _in_grid(self, picture: Subject, region: Region | None) -> LocalDescriptors:
        """At the scale of the kept grids."""
        layers = [self.layer]
        if isinstance(picture, Item):
            seen = grids.of_item(self.engine, self.collection, picture, layers, region, self.clock)
        else:
            extractor = self.engine.extractor(self.collection)
            seen = grids.passed(self.engine, extractor, picture, layers, region, self.clock)
        cover = seen.covers[self.layer]
        return local_descriptors(seen.grids[self.layer], seen.width, seen.height, cover)

    def _anew(self, content: bytes, region: Region | None) -> Described:
        """From the whole picture, larger than descriptors are made from: a finer grid.

        A network of one input size sees its centre crop, as ever.
        """
        extractor = self.engine.extractor_of_grid(self.collection, self.layer)
        layer = layer_of_grid(self.layer)
        side = side_of(parse(self.layer).network, self.collection.settings["keep"])
        with self.clock.measure("decode"):
            wanted = extractor.preparation(region, whole=side if layer.resizable else None)
            picture = self.engine.decoders.prepare(content, wanted, "query", self.clock)
        prepared = picture.prepared
        waiting = self.engine.batcher.submit(extractor, prepared, "query", [self.layer])

        def described() -> LocalDescriptors:
            with self.clock.measure("forward"):
                grid = self.clock.outcome(waiting, "grid")[self.layer]
            if layer.resizable:
                (height, width), (rows, columns) = prepared.pixels[0].shape[1:], grid.shape[1:]
                cover = reached(height, width, rows, columns, layer.stride or 1)
            else:
                cover = covered(*picture.cut, extractor.preprocessing(self.layer))
            return local_descriptors(grid, *picture.cut, cover)

        return described
