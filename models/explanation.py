"""Why two pictures are neighbours: the cosine of their descriptors, position by position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from models.attribution import ATTRIBUTIONS
from models.extractor import Descriptors, DescriptorSpace, Grid
from models.pooling import pool_joined
from models.preparation import Region
from models.region import WHOLE
from models.spec import DescriptorSpec, find_layer

Grids = Mapping[str, Grid]
"""Activations of one picture by `network/layer`, C×H×W float32 each."""

Covers = Mapping[str, Region]
"""The box of the picture that each of these grids covers, in even cells."""

Heatmap = npt.NDArray[np.float32]
"""H×W float32: what each position of a grid adds to the score."""


@dataclass(frozen=True, eq=False)
class Side:
    """One picture's part in a score: Σ `heatmap` + `offset` = score.

    `offset` is the share of the whitening's mean, which belongs to no position; 0 without one.
    `box` is what of the picture the heatmap covers, in even cells.
    """

    heatmap: Heatmap
    offset: float
    box: Region


@dataclass(frozen=True, eq=False)
class Explanation:
    """The cosine of two pictures in one space, and which positions of either make it up."""

    score: float
    query: Side
    neighbour: Side


def describe_grids(grids: Grids, space: DescriptorSpace) -> Descriptors:
    """The descriptor of one picture from its activations: (dim,) float32 of norm 1.

    Where the space is of several scales, grids are of one: it is that of the picture at scale 1.
    """
    vector = _pooled(_of(grids, space.spec), space.spec)
    whitened: Descriptors = space.whitening.apply(vector[None])[0] if space.whitening else vector
    return whitened


def explain(
    query: Grids,
    neighbour: Grids,
    space: DescriptorSpace,
    covers: tuple[Covers, Covers] = ({}, {}),
) -> Explanation:
    """Take the cosine of two pictures apart, from their grids C×H×W float32 of any H and W.

    With f the pooled vector and d the other picture's descriptor, the score is ⟨f, d⟩/‖f‖, linear
    in f. `models.attribution` takes f apart, so the heatmap is Σ_k A_k·d_k/‖f‖. Whitening is
    affine, (f/‖f‖ - m)·P/n with n the norm of the numerator: d is taken back through P, and m
    leaves an offset. The descriptor of the other side, and with it all norms, is held fixed. Of
    joined layers every one has its part of d; their heatmaps are added on the finest grid, over the
    boxes of all. Of several scales the first alone is taken apart, scale 1: the score is then not
    quite that of the descriptors. `covers` has the box of each grid of the query and of the
    neighbour, the whole picture where it is left out.
    """
    q, n = describe_grids(query, space), describe_grids(neighbour, space)
    return Explanation(
        float(np.clip(q @ n, -1, 1)),
        _side(query, n, space, covers[0]),
        _side(neighbour, q, space, covers[1]),
    )


def shares(scores: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """What each space has in a weighted sum of cosines; the sizes of all shares sum to 1.

    A space in which the two pictures are unlike has a negative share.

    >>> shares({"high": 0.8, "low": 0.4}, {"high": 0.75, "low": 0.25})
    {'high': 0.857..., 'low': 0.142...}
    """
    parts = {name: weights[name] * score for name, score in scores.items()}
    total = sum(map(abs, parts.values()))
    return {name: part / total if total else 0.0 for name, part in parts.items()}


def spread(
    heatmap: npt.NDArray[np.float64], height: int, width: int, place: Region = WHOLE
) -> npt.NDArray[np.float64]:
    """The same on a finer grid, of which it covers the box `place`: cells share by area.

    >>> spread(np.array([[4.0]]), 2, 2).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    >>> spread(np.array([[4.0]]), 1, 4, place=(0.5, 0, 1, 1)).tolist()
    [[0.0, 0.0, 2.0, 2.0]]
    """
    down = _overlap(heatmap.shape[0], height, place[1], place[3])
    across = _overlap(heatmap.shape[1], width, place[0], place[2])
    spread_out: npt.NDArray[np.float64] = down.T @ heatmap @ across
    return spread_out


def _overlap(coarse: int, fine: int, start: float, end: float) -> npt.NDArray[np.float64]:
    """Which share of each `coarse` cell lies in which `fine` one of a line; rows sum to 1.

    The coarse cells take up the line from `start` to `end`, the fine ones all of it, 0 to 1.
    """
    edges = (np.arange(fine + 1) / fine - start) / (end - start) * coarse
    starts = np.arange(coarse)[:, None]
    inside = np.clip(edges[None] - starts, 0, 1)
    return np.diff(inside, axis=1)


def _of(grids: Grids, spec: DescriptorSpec) -> list[Grid]:
    return [grids[name] for name in spec.grids]


def _pooled(grids: Sequence[Grid], spec: DescriptorSpec) -> Descriptors:
    tensors = [torch.from_numpy(np.ascontiguousarray(grid, np.float32))[None] for grid in grids]
    pooled: Descriptors = pool_joined(tensors, spec.pooling, **dict(spec.parameters))[0].numpy()
    return pooled


def _side(seen: Grids, other: Descriptors, space: DescriptorSpace, covers: Covers) -> Side:
    spec, whitening = space.spec, space.whitening
    grids = _of(seen, spec)
    toward, offset = other.astype(np.float64), 0.0
    if whitening:
        centred = (_pooled(grids, spec) - whitening.mean).astype(np.float64)
        length = max(float(np.linalg.norm(centred @ whitening.projection)), 1e-12)
        toward = whitening.projection.astype(np.float64) @ toward / length
        offset = -float(whitening.mean @ toward)
    attributed = [_attributed(grid, spec) for grid in grids]
    lengths = [part.size if spec.pooling == "flatten" else len(part) for part in attributed]
    towards = np.split(toward, np.cumsum(lengths)[:-1])
    heatmaps, norms = zip(
        *(_heatmap(part, its, spec) for part, its in zip(attributed, towards, strict=True)),
        strict=True,
    )
    joined = max(np.sqrt(np.count_nonzero(norms)), 1.0)
    placed = [
        # Tokens and the like stand in no picture: all that is known is their sum.
        heatmap if find_layer(spec.network, layer).stride else heatmap.sum().reshape(1, 1)
        for heatmap, layer in zip(heatmaps, spec.layers, strict=True)
    ]
    boxes = [covers.get(grid, WHOLE) for grid in spec.grids]
    heatmap, box = _together(placed, boxes)
    return Side(np.asarray(heatmap / joined, np.float32), offset, box)


def _together(
    heatmaps: Sequence[npt.NDArray[np.float64]], boxes: Sequence[Region]
) -> tuple[npt.NDArray[np.float64], Region]:
    """Their sum on cells as small as the smallest, and the box that they all lie in."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    whole = (min(x0), min(y0), max(x1), max(y1))
    wide, high = whole[2] - whole[0], whole[3] - whole[1]
    finest = [
        (one.shape[0] * high / (box[3] - box[1]), one.shape[1] * wide / (box[2] - box[0]))
        for one, box in zip(heatmaps, boxes, strict=True)
    ]
    height, width = (round(max(cells)) for cells in zip(*finest, strict=True))
    total = np.zeros((height, width))
    for one, box in zip(heatmaps, boxes, strict=True):
        place = (
            (box[0] - whole[0]) / wide,
            (box[1] - whole[1]) / high,
            (box[2] - whole[0]) / wide,
            (box[3] - whole[1]) / high,
        )
        total += spread(one, height, width, place)
    return total, whole


def _heatmap(
    parts: npt.NDArray[np.float64], toward: npt.NDArray[np.float64], spec: DescriptorSpec
) -> tuple[npt.NDArray[np.float64], float]:
    """What each position of one layer adds to its cosine with `toward`, and the layer's norm."""
    # Flattened, every activation is a channel; pooled, all positions share their channel's.
    flat = spec.pooling == "flatten"
    norm = float(np.linalg.norm(parts if flat else parts.sum(axis=(1, 2))))
    towards = toward.reshape(parts.shape if flat else (-1, 1, 1))
    return (parts * towards).sum(axis=0) / max(norm, 1e-12), norm


def _attributed(grid: Grid, spec: DescriptorSpec) -> npt.NDArray[np.float64]:
    x = torch.from_numpy(np.ascontiguousarray(grid, np.float32)).double()
    return ATTRIBUTIONS[spec.pooling](x, **dict(spec.parameters)).numpy()
