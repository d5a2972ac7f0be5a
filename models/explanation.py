"""Why two pictures are neighbours: the cosine of their descriptors, position by position."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from models import spec as specs
from models.attribution import ATTRIBUTIONS
from models.extractor import Descriptors, DescriptorSpace, Grid
from models.pooling import pool
from models.spec import DescriptorSpec

Heatmap = npt.NDArray[np.float32]
"""H×W float32: what each position of a grid adds to the score."""


@dataclass(frozen=True, eq=False)
class Side:
    """One picture's part in a score: Σ `heatmap` + `offset` = score.

    `offset` is the share of the whitening's mean, which belongs to no position; 0 without one.
    """

    heatmap: Heatmap
    offset: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """The cosine of two pictures in one space, and which positions of either make it up."""

    score: float
    query: Side
    neighbour: Side


def describe_grid(grid: Grid, space: DescriptorSpace) -> Descriptors:
    """The descriptor of one picture from its activation C×H×W: (dim,) float32 of norm 1."""
    vector = _pooled(grid, space.spec)
    whitened: Descriptors = space.whitening.apply(vector[None])[0] if space.whitening else vector
    return whitened


def explain(query: Grid, neighbour: Grid, space: DescriptorSpace) -> Explanation:
    """Take the cosine of two grids, C×H×W float32 of any H and W, apart.

    With f the pooled vector and d the other picture's descriptor, the score is ⟨f, d⟩/‖f‖, linear
    in f. `models.attribution` takes f apart, so the heatmap is Σ_k A_k·d_k/‖f‖. Whitening is
    affine, (f/‖f‖ - m)·P/n with n the norm of the numerator: d is taken back through P, and m
    leaves an offset. The descriptor of the other side, and with it all norms, is held fixed.
    """
    q, n = describe_grid(query, space), describe_grid(neighbour, space)
    return Explanation(
        float(np.clip(q @ n, -1, 1)), _side(query, n, space), _side(neighbour, q, space)
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


def _pooled(grid: Grid, spec: DescriptorSpec) -> Descriptors:
    x = torch.from_numpy(np.ascontiguousarray(grid, np.float32))
    pooled: Descriptors = pool(x[None], spec.pooling, **dict(spec.parameters))[0].numpy()
    return pooled


def _side(grid: Grid, other: Descriptors, space: DescriptorSpace) -> Side:
    spec, whitening = space.spec, space.whitening
    toward, offset = other.astype(np.float64), 0.0
    if whitening:
        centred = (_pooled(grid, spec) - whitening.mean).astype(np.float64)
        length = max(float(np.linalg.norm(centred @ whitening.projection)), 1e-12)
        toward = whitening.projection.astype(np.float64) @ toward / length
        offset = -float(whitening.mean @ toward)
    parts = _attributed(grid, spec)
    # Flattened, every activation is a channel; pooled, all positions share their channel's.
    towards = toward.reshape(parts.shape if spec.pooling == "flatten" else (-1, 1, 1))
    norm = np.linalg.norm(parts if spec.pooling == "flatten" else parts.sum(axis=(1, 2)))
    heatmap = (parts * towards).sum(axis=0) / max(float(norm), 1e-12)
    if specs.find_layer(spec.network, spec.layer).stride is None:
        # Tokens and the like stand in no picture: all that is known is their sum.
        heatmap = heatmap.sum(keepdims=True).reshape(1, 1)
    return Side(heatmap.astype(np.float32), offset)


def _attributed(grid: Grid, spec: DescriptorSpec) -> npt.NDArray[np.float64]:
    x = torch.from_numpy(np.ascontiguousarray(grid, np.float32)).double()
    return ATTRIBUTIONS[spec.pooling](x, **dict(spec.parameters)).numpy()
