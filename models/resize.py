"""Resizing by Pillow's filters, in the processor's vector units where there is a build for it.

The two give the same pixels to within one level of 255: `cykooz_resizer` (the Rust crate
fast_image_resize) computes Pillow's convolution in 4 to 9 times less time.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

try:
    import cykooz_resizer as simd
except ImportError:  # no wheel for this machine
    simd = None

Interleaved = npt.NDArray[np.uint8]
"""H×W×4, uint8: red, green, blue and a byte that means nothing."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels, which need not be whole."""


class Filter(NamedTuple):
    """One filter under the names that the two libraries have for it."""

    pillow: Image.Resampling
    simd: str


FILTERS: Mapping[str, Filter] = {
    "bilinear": Filter(Image.Resampling.BILINEAR, "bilinear"),
    "bicubic": Filter(Image.Resampling.BICUBIC, "catmull_rom"),
}
"""Convolutions whose support grows with the reduction: what torchvision calls antialiased."""


class Raster(Protocol):
    """A picture's pixels where the resizer reads them."""

    size: tuple[int, int]

    def resized(self, size: tuple[int, int], by: str, box: Box | None = None) -> Interleaved:
        """What lies in `box`, or all of it, at `size` (width, height), by a filter of `FILTERS`."""


def raster(picture: Image.Image) -> Raster:
    """The fastest that there is for an RGB picture: made once, resized as often as wanted.

    >>> raster(Image.new("RGB", (64, 48), "red")).resized((4, 3), "bilinear")[0, 0, :3].tolist()
    [255, 0, 0]
    """
    return PillowRaster(picture) if simd is None else SimdRaster(picture)


class SimdRaster:
    """By vector instructions, from a copy of the pixels: 4 bytes per pixel."""

    def __init__(self, picture: Image.Image) -> None:
        self.size = picture.size
        pixels = picture.tobytes("raw", "RGBX")
        self._pixels = simd.ImageData(*picture.size, simd.PixelType.U8x4, pixels)

    def resized(self, size: tuple[int, int], by: str, box: Box | None = None) -> Interleaved:
        """As `Raster.resized`."""
        options = simd.ResizeOptions(
            simd.ResizeAlg.convolution(simd.FilterType[FILTERS[by].simd]),
            use_alpha=False,
            crop_box=box and self._within(box),
        )
        found = simd.ImageData(*size, simd.PixelType.U8x4)
        simd.Resizer().resize(self._pixels, found, options)
        return _interleaved(found.get_buffer(), size)

    def _within(self, box: Box) -> object:
        """The box as the library wants it, which does not forgive an end rounded upwards."""
        left, top, right, bottom = box
        width, height = self.size
        return simd.CropBox(left, top, min(right, width) - left, min(bottom, height) - top)


class PillowRaster:
    """By Pillow alone."""

    def __init__(self, picture: Image.Image) -> None:
        self.size = picture.size
        self._picture = picture

    def resized(self, size: tuple[int, int], by: str, box: Box | None = None) -> Interleaved:
        """As `Raster.resized`."""
        resized = self._picture.resize(size, FILTERS[by].pillow, box=box)
        return _interleaved(resized.tobytes("raw", "RGBX"), size)


def _interleaved(pixels: bytes, size: tuple[int, int]) -> Interleaved:
    width, height = size
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 4)
