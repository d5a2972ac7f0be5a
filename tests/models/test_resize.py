"""Both ways to resize give what Pillow's filters give, whatever the picture's proportions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models import resize
from models.preprocess import IMAGENET, crop_box
from models.resize import FILTERS, PillowRaster, Raster, SimdRaster
from tests.pictures import picture

simd_only = pytest.mark.skipif(resize.simd is None, reason="cykooz_resizer is not installed")
RASTERS = [PillowRaster, pytest.param(SimdRaster, marks=simd_only)]


AGREE = {"bilinear": 1, "bicubic": 2}
"""Levels of 255: both round after each of two passes, of which either may be first."""


def levels(found: Raster, size: tuple[int, int], by: str, box: resize.Box | None) -> np.ndarray:
    return found.resized(size, by, box)[..., :3].astype(int)


def weights(ends: tuple[float, float], length: int, size: int) -> np.ndarray:
    """A triangle as wide as two output pixels, sampled at the middles of the input's pixels."""
    scale = (ends[1] - ends[0]) / size
    middles = ends[0] + (np.arange(size)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(length) + 0.5 - middles) / max(scale, 1.0)
    triangle = np.maximum(0.0, 1.0 - distance)
    return np.asarray(triangle / triangle.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("way", RASTERS)
@pytest.mark.parametrize("box", [None, (10.3, 5.7, 150.2, 100.9)])
def test_bilinear_is_a_triangle_of_the_width_of_the_reduction(
    way: type[Raster], box: resize.Box | None
) -> None:
    source = picture(1)
    left, top, right, bottom = box or (0, 0, *source.size)
    down, across = weights((top, bottom), 120, 40), weights((left, right), 160, 56)
    expected = np.einsum("yh,hwc,xw->yxc", down, np.asarray(source, float), across)
    assert np.abs(levels(way(source), (56, 40), "bilinear", box) - expected).max() <= 1.01


@simd_only
@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    by=st.sampled_from(sorted(FILTERS)),
)
def test_both_ways_agree_on_any_crop(width: int, height: int, by: str) -> None:
    # Without black and white: where a bicubic curve is clipped depends on which side is first.
    source = picture(2, (width, height)).point(lambda level: 64 + level // 2)
    box = crop_box(width, height, IMAGENET)
    ways = [levels(way(source), (224, 224), by, box) for way in (PillowRaster, SimdRaster)]
    assert np.abs(ways[0] - ways[1]).max() <= AGREE[by]


@simd_only
@given(width=st.integers(1, 10**5), height=st.integers(1, 10**5), resized=st.integers(224, 512))
def test_no_crop_is_found_to_lie_outside(width: int, height: int, resized: int) -> None:
    how = replace(IMAGENET, resize=resized)
    row = SimdRaster(Image.new("RGB", (1, 1)))
    row.size = (width, height)
    box = row._within(crop_box(width, height, how))
    assert box.left + box.width <= width
    assert box.top + box.height <= height
