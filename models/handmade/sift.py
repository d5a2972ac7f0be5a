"""Dense RootSIFT, and what a vocabulary makes of it: residuals for VLAD, counts for bags of words.

SIFT (Lowe 2004) by OpenCV at every node of a grid on several scales, upright; RootSIFT and the
projection of Arandjelović & Zisserman 2012 and Jégou & Chum 2012. Residuals and counts are summed
by cell, so that a box of cells is a region, as it is on the activation of a network.
"""

from math import ceil

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from models.handmade.operation import Operation

# The threads of the whole process are planned elsewhere: OpenCV works in the thread that calls it.
cv2.setNumThreads(1)

SCALES = (1.0, 2**-0.5, 2**-1.0, 2**-1.5)
STEP = 8
"""Pixels between neighbours, at each scale."""

SIZE = 4.0
"""OpenCV's diameter of a keypoint in pixels: each of the 4×4 histograms is 1.5·SIZE wide."""

REACH = 12
"""Half of the window of 4×4 histograms, in pixels."""

MIN_DEVIATION = 5.0
"""Of the grey levels 0…255 in a window, below which it says nothing: noise and JPEG's blocks."""

PROJECTED = 64
CELL = 40

Grey = npt.NDArray[np.uint8]
Descriptors = npt.NDArray[np.float32]
Centres = npt.NDArray[np.int64]

Local = tuple[Tensor, Tensor, tuple[int, int]]
"""Projected descriptors B×N×64, the cell of each B×N (-1: there is none), and the grid's H×W."""


class Sift(nn.Module):
    """`vlad64`: the residuals of 64 words in every cell; `bow1024`: the tf-idf of 1024 words."""

    def __init__(self) -> None:
        super().__init__()
        self.local = RootSift()
        self.vlad64 = Residuals(64)
        self.bow1024 = Counts(1024)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """B×3×H×W float32, RGB in 0…255, to {layer: B×C×⌈H/40⌉×⌈W/40⌉}."""
        local = self.local(x)
        return {"vlad64": self.vlad64(local), "bow1024": self.bow1024(local)}


class RootSift(Operation):
    """The local descriptors of every picture: (RootSIFT - mean)·projection, and their cells."""

    mean: Tensor
    projection: Tensor

    def __init__(self) -> None:
        super().__init__(kernel_size=ceil(2 * REACH / min(SCALES)), stride=1)
        self.register_buffer("mean", torch.zeros(128))
        self.register_buffer("projection", torch.zeros(128, PROJECTED))

    def forward(self, x: Tensor) -> Local:
        """B×3×H×W, RGB in 0…255, to as many descriptors as the picture with the most has."""
        height, width = x.shape[2:]
        grid = (ceil(height / CELL), ceil(width / CELL))
        if x.is_meta:
            return x.new_empty(len(x), 1, PROJECTED), x.new_empty(len(x), 1).long(), grid
        descriptors, cells = [], []
        for picture in x:
            found, centres = describe(grey(picture))
            descriptors.append((torch.from_numpy(found).to(x.device) - self.mean) @ self.projection)
            row, column = torch.from_numpy(centres // CELL).to(x.device).unbind(1)
            cells.append(row * grid[1] + column)
        return (
            pad_sequence(descriptors, batch_first=True),
            pad_sequence(cells, batch_first=True, padding_value=-1),
            grid,
        )


class Words(Operation):
    """What a vocabulary makes of local descriptors, cell by cell."""

    words: Tensor

    def __init__(self, count: int, channels: int) -> None:
        super().__init__(kernel_size=CELL, stride=CELL)
        self.channels = channels
        self.register_buffer("words", torch.zeros(count, PROJECTED))

    def forward(self, local: Local) -> Tensor:
        """B×C×H×W float32: the sum over the descriptors of a cell, zero where it has none."""
        descriptors, cells, (height, width) = local
        x = descriptors.new_zeros(len(descriptors), height * width, self.channels)
        if not x.is_meta:
            # One by one: a picture's numbers must not depend on the company it is in.
            for cells_of, found, into in zip(cells, descriptors, x, strict=True):
                there = cells_of >= 0
                self.add(found[there], cells_of[there], into)
        return x.transpose(1, 2).reshape(len(x), self.channels, height, width)

    def add(self, found: Tensor, cells: Tensor, into: Tensor) -> None:
        """Add N×64 descriptors to `into`, (H·W)×C, each to the row of its cell."""
        raise NotImplementedError

    def nearest(self, found: Tensor) -> Tensor:
        """The closest word of each of N×64 descriptors: w with the largest w·x - |w|²/2."""
        return (found @ self.words.T - self.words.square().sum(dim=1) / 2).argmax(dim=1)


class Residuals(Words):
    """x - w of the closest word w, each of length 1 (Delhumeau et al. 2013, section 3.1)."""

    def __init__(self, count: int) -> None:
        super().__init__(count, count * PROJECTED)

    def add(self, found: Tensor, cells: Tensor, into: Tensor) -> None:
        """Word by word, 64 channels each."""
        word = self.nearest(found)
        residuals = F.normalize(found - self.words[word], dim=1)
        into.view(-1, PROJECTED).index_add_(0, cells * len(self.words) + word, residuals)


class Counts(Words):
    """How often a word occurs, times log of the inverse share of pictures that have it."""

    idf: Tensor

    def __init__(self, count: int) -> None:
        super().__init__(count, count)
        self.register_buffer("idf", torch.zeros(count))

    def add(self, found: Tensor, cells: Tensor, into: Tensor) -> None:
        """One channel for each word (Sivic & Zisserman 2003, section 4.1)."""
        word = self.nearest(found)
        into.view(-1).index_add_(0, cells * len(self.words) + word, self.idf[word])


def grey(picture: Tensor) -> Grey:
    """3×H×W, RGB in 0…255, to luma Y' of BT.601."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=picture.device).view(3, 1, 1)
    return (picture * weights).sum(dim=0).round().to(torch.uint8).cpu().numpy()


def describe(picture: Grey) -> tuple[Descriptors, Centres]:
    """RootSIFT N×128, each of length 1, and the pixel row and column N×2 that it is centred on.

    Windows without contrast are left out: a picture of one colour has none at all.
    """
    descriptors, centres = [np.empty((0, 128), np.float32)], [np.empty((0, 2), np.int64)]
    for scale in SCALES:
        height, width = (round(length * scale) for length in picture.shape)
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        scaled = np.asarray(resized, dtype=np.uint8)
        at = _centres(height, width)
        at = at[_deviation(scaled)[at[:, 0], at[:, 1]] > MIN_DEVIATION]
        keypoints = [cv2.KeyPoint(float(x), float(y), SIZE, 0.0) for y, x in at]
        if keypoints:
            found = cv2.SIFT.create().compute(scaled, keypoints)[1]
            descriptors.append(root(np.asarray(found, dtype=np.float32)))
            centres.append((at / scale).astype(np.int64))
    return np.concatenate(descriptors), np.concatenate(centres)


def root(sift: Descriptors) -> Descriptors:
    """The square root of L1-normalised SIFT N×128 (Arandjelović & Zisserman 2012, section 3).

    >>> root(np.float32([[1, 0, 3]])) ** 2
    array([[0.25, 0.  , 0.75]], dtype=float32)
    """
    rooted: Descriptors = np.sqrt(sift / np.maximum(sift.sum(axis=1, keepdims=True), 1e-12))
    return rooted


def _centres(height: int, width: int) -> Centres:
    """Row and column N×2 of every window that lies within the picture."""
    rows, columns = (np.arange(REACH, length - REACH + 1, STEP) for length in (height, width))
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _deviation(picture: Grey) -> npt.NDArray[np.float64]:
    """The standard deviation of the window around every pixel."""
    window = (2 * REACH, 2 * REACH)
    mean = cv2.boxFilter(picture, cv2.CV_64F, window)
    square = cv2.sqrBoxFilter(picture, cv2.CV_64F, window)
    deviation: npt.NDArray[np.float64] = np.sqrt(np.maximum(square - mean * mean, 0))
    return deviation
