"""Boxes in a picture and cells of its grid: the way there and back.

A box is x0, y0, x1, y1 as shares of an upright picture. A grid covers the part of the picture that
preprocessing left of it, and its H×W cells divide that part evenly.
"""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import torch

from models.extractor import Descriptors, DescriptorSpace, Grid
from models.pooling import mac, pool, rmac_regions
from models.preparation import Region
from models.preprocess import Preprocessing, crop_box

WHOLE: Region = (0.0, 0.0, 1.0, 1.0)

MATCH_LEVELS = 5
"""Scales of the regions that are compared: sides from the whole to a third of the shorter side."""


@dataclass(frozen=True)
class Cells:
    """A rectangle of a grid: rows `top` up to `bottom`, columns `left` up to `right`."""

    top: int
    left: int
    bottom: int
    right: int

    def of(self, grid: Grid) -> Grid:
        """Cut them out of C×H×W."""
        return grid[:, self.top : self.bottom, self.left : self.right]


def covered(width: int, height: int, how: Preprocessing, region: Region = WHOLE) -> Region:
    """The box that the network sees of a picture, or of a `region` cut from it.

    >>> from models.preprocess import IMAGENET
    >>> [round(end, 3) for end in covered(640, 480, IMAGENET)]
    [0.17, 0.062, 0.827, 0.938]
    """
    x0, y0, x1, y1 = region
    wide, high = max(round((x1 - x0) * width), 1), max(round((y1 - y0) * height), 1)
    left, top, right, bottom = crop_box(wide, high, how)
    return within(region, (left / wide, top / high, right / wide, bottom / high))


def reached(height: int, width: int, rows: int, columns: int, stride: int) -> Region:
    """The box that a grid covers of a whole picture of `height`×`width` pixels.

    A cell is `stride` pixels wide: the last ones may end before the picture does, or behind it.

    >>> reached(100, 150, 6, 9, 16)
    (0.0, 0.0, 0.96, 0.96)
    """
    return 0.0, 0.0, columns * stride / width, rows * stride / height


def within(outer: Region, inner: Region) -> Region:
    """A box given as shares of another box, as shares of the picture.

    >>> within((0.5, 0.0, 1.0, 0.5), (0.0, 0.0, 0.5, 1.0))
    (0.5, 0.0, 0.75, 0.5)
    """
    x0, y0, x1, y1 = outer
    wide, high = x1 - x0, y1 - y0
    return (
        x0 + inner[0] * wide,
        y0 + inner[1] * high,
        x0 + inner[2] * wide,
        y0 + inner[3] * high,
    )


def cells(box: Region, cover: Region, height: int, width: int) -> Cells | None:
    """The cells of an H×W grid over `cover` whose middle is in `box`, or the one it lies in.

    None: the box lies outside of what the grid covers.

    >>> cells((0.0, 0.0, 0.5, 1.0), (0.0, 0.0, 1.0, 1.0), 4, 4)
    Cells(top=0, left=0, bottom=4, right=2)
    """
    across = _span(box[0], box[2], cover[0], cover[2], width)
    down = _span(box[1], box[3], cover[1], cover[3], height)
    if across is None or down is None:
        return None
    return Cells(down[0], across[0], down[1], across[1])


def _span(low: float, high: float, start: float, end: float, count: int) -> tuple[int, int] | None:
    """First and last + 1 of `count` cells between `start` and `end`."""
    if low >= end or high <= start:
        return None
    first, last = ((edge - start) / (end - start) * count for edge in (low, high))
    begin, stop = max(ceil(first - 0.5), 0), min(floor(last + 0.5), count)
    if begin >= stop:
        begin = min(max(floor((first + last) / 2), 0), count - 1)
        stop = begin + 1
    return begin, stop


def box(found: Cells, cover: Region, height: int, width: int) -> Region:
    """The box in the picture of some cells of an H×W grid over `cover`, cut off at the picture."""
    inner = (found.left / width, found.top / height, found.right / width, found.bottom / height)
    x0, y0, x1, y1 = (min(max(end, 0.0), 1.0) for end in within(cover, inner))
    return (x0, y0, x1, y1)


def match(query: Grid, neighbour: Grid, space: DescriptorSpace) -> tuple[Cells, float]:
    """The region of `neighbour` that is most like the whole of `query`, and its cosine.

    The regions are those of R-MAC; each is pooled as the space pools, or by MAC where that is no
    pooling of a region (Tolias et al. 2016, section 5, compares regions by MAC). Descriptors are
    compared before whitening, which was fitted on whole pictures. Of equals the largest is taken.
    """
    spec = space.spec
    height, width = neighbour.shape[1:]
    regions = [
        Cells(t, le, t + s, le + s) for t, le, s in rmac_regions(height, width, MATCH_LEVELS)
    ]
    regions.insert(0, Cells(0, 0, height, width))

    def pooled(grid: Grid) -> Descriptors:
        x = torch.from_numpy(np.ascontiguousarray(grid, np.float32))[None]
        if spec.pooling in ("rmac", "flatten"):
            return torch.nn.functional.normalize(mac(x), dim=1)[0].numpy()
        return pool(x, spec.pooling, **dict(spec.parameters))[0].numpy()

    target = pooled(query)
    scores = [float(pooled(found.of(neighbour)) @ target) for found in regions]
    best = int(np.argmax(np.round(scores, 6)))
    return regions[best], scores[best]
