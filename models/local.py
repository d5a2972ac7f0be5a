"""Local descriptors: the positions of an intermediate layer's own grid, each by itself.

What a global descriptor pools away, where things stand, is what tells a picture of the same place
from one of the same kind. (Compare Simeoni et al., Local Features and Visual Words Emerge in
Activations, CVPR 2019.)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.extractor import Grid
from models.preparation import Region
from models.region import WHOLE

BORDER = 1
"""Cells along the border are left out: zero padding marks them, and border would match border."""


@dataclass(frozen=True, eq=False)
class LocalDescriptors:
    """`vectors` n×D float32 of norm 1; `positions` n×2 float32, x and y.

    Positions are in units of the picture's longer side from its upper left corner, so that a circle
    in the picture is a circle.
    """

    vectors: npt.NDArray[np.float32]
    positions: npt.NDArray[np.float32]


def local_descriptors(
    grid: Grid, width: int, height: int, cover: Region = WHOLE, most: int = 1000
) -> LocalDescriptors:
    """The `most` salient positions of a grid C×H×W over the box `cover` of a picture.

    Salience is the norm of the activations at a position; positions without any are left out.

    >>> grid = np.ones((2, 4, 4), np.float32)
    >>> local_descriptors(grid, 400, 200).positions[0].tolist()  # the middle of cell (1, 1)
    [0.375, 0.1875]
    """
    channels, rows, columns = grid.shape
    border = min(BORDER, (min(rows, columns) - 1) // 2)
    inner = np.zeros((rows, columns), bool)
    inner[border : rows - border, border : columns - border] = True
    vectors = grid.reshape(channels, -1).T
    salience = np.where(inner.reshape(-1), np.linalg.norm(vectors, axis=1), 0)
    kept = np.argsort(-salience, kind="stable")[:most]
    kept = kept[salience[kept] > 0]
    x0, y0, x1, y1 = cover
    x = x0 + (kept % columns + 0.5) / columns * (x1 - x0)
    y = y0 + (kept // columns + 0.5) / rows * (y1 - y0)
    positions = np.stack([x * width, y * height], axis=1) / max(width, height)
    unit = vectors[kept] / salience[kept, None]
    return LocalDescriptors(unit.astype(np.float32), positions.astype(np.float32))
