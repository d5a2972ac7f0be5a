"""Views to train on: crops of pictures, turned, lit and compressed as photographs come, and mixed.

View n of a recipe is always view n. Views 2m and 2m + 1 show the same picture, so that they can
serve as each other's positive in contrastive learning.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from models.decode import Limits, decode

Pixels = NDArray[np.uint8]
"""One view: side×side×3 uint8."""

_ASPECT = 4 / 3
_DEGREES = 15.0
_KEPT_SIDE = 512
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Views:
    """What views are made of, and how.

    A view comes from a photograph with probability `share`, otherwise from a procedural picture.
    It shows `smallest` to all of a picture's area. With probability `mixed` it is joined with a
    view of another picture: half by mixup (Zhang et al. 2018), half by CutMix (Yun et al. 2019).
    Colour changes are mild: products are found by their colour.
    """

    photographs: Sequence[Path]
    procedural: Sequence[Path]
    share: float = 0.7
    side: int = 144
    smallest: float = 0.06
    mixed: float = 0.25
    seed: int = 0

    def recipe(self) -> str:
        """SHA-256 (hex) over everything that the views depend on, files by their names and sizes.

        Where the files lie does not count.
        """
        facts = {
            name: [[path.name, path.stat().st_size] for path in value]
            if name in ("photographs", "procedural")
            else value
            for name, value in vars(self).items()
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def picture(self, n: int) -> Path:
        """The picture that view n shows."""
        rng = np.random.default_rng([self.seed, 1, n // 2])
        photograph = rng.random() < self.share
        paths = (photograph and self.photographs) or self.procedural or self.photographs
        return paths[int(rng.integers(len(paths)))]

    def view(self, n: int) -> Pixels:
        """View n. Raises PictureError where its picture cannot be decoded."""
        rng = np.random.default_rng([self.seed, 2, n])
        shown = self._alone(rng, self.picture(n))
        if rng.random() < self.mixed:
            other = self._alone(rng, self.picture(int(rng.integers(1 << 40))))
            shown = _mixup(rng, shown, other) if rng.random() < 0.5 else _cutmix(rng, shown, other)
        return shown

    def _alone(self, rng: np.random.Generator, path: Path) -> Pixels:
        cut = _cropped(rng, _opened(path), self.side, self.smallest)
        lit = _lit(rng, np.asarray(cut, np.float32) / np.float32(255))
        worn = _worn(rng, Image.fromarray((lit * 255 + 0.5).astype(np.uint8)))
        return np.asarray(worn)


@lru_cache(maxsize=256)
def _opened(path: Path) -> Image.Image:
    """A picture about as large as it is of use; decoding it for every view would cost the most."""
    picture = decode(path.read_bytes(), Limits(), _KEPT_SIDE).image
    picture.thumbnail((2 * _KEPT_SIDE, 2 * _KEPT_SIDE))
    return picture


def _cropped(
    rng: np.random.Generator, picture: Image.Image, side: int, smallest: float
) -> Image.Image:
    """A crop of random area, shape and place (Szegedy et al. 2015), mirrored or turned a little."""
    width, height = picture.size
    area = rng.uniform(smallest, 1.0) * width * height
    shape = np.exp(rng.uniform(-1, 1) * np.log(_ASPECT))
    across, down = min(width, np.sqrt(area * shape)), min(height, np.sqrt(area / shape))
    left, top = rng.uniform(0, width - across), rng.uniform(0, height - down)
    angle = rng.uniform(-_DEGREES, _DEGREES) if rng.random() < 0.3 else 0.0
    turn = np.radians(abs(angle))
    larger = int(np.ceil(side * (np.cos(turn) + np.sin(turn))))
    box = (left, top, left + across, top + down)
    cut = picture.resize((larger, larger), Image.Resampling.BILINEAR, box, reducing_gap=3.0)
    if angle:
        margin = (larger - side) // 2
        cut = cut.rotate(angle, Image.Resampling.BILINEAR)
        cut = cut.crop((margin, margin, margin + side, margin + side))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cut


def _lit(rng: np.random.Generator, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Another exposure, contrast, saturation and white balance; all mild but the exposure."""
    gain = np.exp(rng.normal(0, 0.25))
    balance = np.exp(rng.normal(0, 0.05, 3))
    grey = (pixels @ _LUMA)[..., None]
    coloured = grey + (pixels - grey) * rng.uniform(0.7, 1.3)
    contrasted = (coloured - 0.5) * rng.uniform(0.8, 1.2) + 0.5
    return np.asarray(np.clip(contrasted * (gain * balance), 0, 1), np.float32)


def _worn(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Sometimes out of focus, of a low resolution, or strongly compressed."""
    fate = rng.random()
    if fate < 0.08:
        return picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 1.5))))
    if fate < 0.20:
        side = picture.width
        small = max(16, int(side * rng.uniform(0.3, 0.8)))
        return picture.resize((small, small), Image.Resampling.BILINEAR, reducing_gap=2.0).resize(
            (side, side), Image.Resampling.BILINEAR
        )
    if fate < 0.35:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=int(rng.integers(15, 75)))
        return Image.open(stream).convert("RGB")
    return picture


def _mixup(rng: np.random.Generator, one: Pixels, other: Pixels) -> Pixels:
    share = rng.uniform(0.3, 0.7)
    return np.asarray(one * share + other * (1 - share), np.uint8)


def _cutmix(rng: np.random.Generator, one: Pixels, other: Pixels) -> Pixels:
    """`other` covers a box of a quarter to a half of the area of `one`."""
    side = len(one)
    length = int(side * np.sqrt(rng.uniform(0.25, 0.5)))
    top, left = rng.integers(0, side - length + 1, 2)
    joined = one.copy()
    joined[top : top + length, left : left + length] = other[
        top : top + length, left : left + length
    ]
    return joined
