"""Pixels of any mode -> 8-bit sRGB over white."""

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

_FULL_RANGE: Mapping[str, tuple[float, float]] = {"I": (0.0, 65535.0), "F": (0.0, 1.0)}
"""Black and white of the wide greys that declare none; values beyond them stretch them."""

_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0

_STRAIGHT: Mapping[str, str] = {"La": "LA", "RGBa": "RGBA"}
"""The modes whose colours are premultiplied by their opacity, and those where they are not."""

_BASE: Mapping[str, str] = {
    **dict.fromkeys(("1", "L", "LA"), "L"),
    "CMYK": "CMYK",
    "LAB": "LAB",
}
"""The mode in which a picture's ICC profile sees it; RGB where not named."""

_PROFILE_SPACE: Mapping[str, str] = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
"""The colour space signature (ICC.1:2022, table 19) that fits a mode."""

_MAX_PROFILE_BYTES = 4 * 2**20
"""Larger profiles are ignored, so that the cached transforms stay small."""


def to_rgb(image: Image.Image) -> Image.Image:
    """A new 8-bit RGB image in sRGB of a loaded one of any mode, transparency over white.

    16-bit and floating-point values are scaled, not clipped. CMYK without a profile is converted
    by 1 - min(1, ink + black). A profile that is broken or meant for other channels is ignored.

    >>> to_rgb(Image.new("LA", (1, 1), (0, 127))).getpixel((0, 0))
    (128, 128, 128)
    """
    if image.mode in _STRAIGHT:
        image = image.convert(_STRAIGHT[image.mode])
    colours = _colours(image)
    transform = _to_srgb(_icc_profile(image), colours.mode)
    if transform is not None:
        rgb = transform.apply(colours)
    else:
        rgb = colours if colours.mode == "RGB" else colours.convert("RGB")
    if not image.has_transparency_data:
        return rgb
    white = Image.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=_opacity(image))
    return white


def _opacity(image: Image.Image) -> Image.Image:
    """The alpha channel, or where the picture is not of its transparent colour, as `L`."""
    colour: Any = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) != colour).astype(np.uint8) * np.uint8(255))
    if image.mode == "RGB" and max(colour) > 255:  # of 16 bits, where the pixels kept their upper 8
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    return image.convert("RGBA").getchannel("A")


def _colours(image: Image.Image) -> Image.Image:
    """The same picture opaque, in one of the modes `L`, `RGB`, `CMYK`, `LAB`."""
    if image.mode[0] in "IF":
        return _eight_bits(image)
    base = _BASE.get(image.mode, "RGB")
    if image.has_transparency_data and base == "RGB":
        image = image.convert("RGBA")  # takes a palette's opacities away in peace
    return image.convert(base)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 12, 16 or 32 bits or of floating point as `L`.

    Integers of known depth keep their upper 8 bits, as Pillow does for 16-bit colour. Others are
    scaled from 0…65535 (`I`) or 0…1 (`F`), or from the picture's own extremes where it exceeds
    that.
    """
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        grey = (values >> (tags.get(_TIFF_BITS, (16,))[0] - 8)).astype(np.uint8)
    else:
        grey = _stretched(values.astype(np.float32), *_FULL_RANGE[image.mode])
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = ~grey
    return Image.fromarray(grey)


def _stretched(
    values: npt.NDArray[np.float32], black: float, white: float
) -> npt.NDArray[np.uint8]:
    """From black…white, or from min…max where that is wider, to 0…255; NaN is black."""
    values = np.nan_to_num(values, nan=black, posinf=white, neginf=black)
    lowest, highest = float(values.min()), float(values.max())
    if lowest < black or highest > white:
        black, white = lowest, highest
    scale = 255.0 / ((white - black) or 1.0)
    with np.errstate(all="ignore"):  # hostile extremes overflow; they must only not raise
        grey = np.rint(np.clip(values * scale - black * scale, 0.0, 255.0))
        return np.asarray(grey, dtype=np.uint8)


def _icc_profile(image: Image.Image) -> bytes:
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and len(profile) <= _MAX_PROFILE_BYTES else b""


@lru_cache(maxsize=16)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What takes pixels of `mode` to sRGB; None where they are in it, or nothing says otherwise.

    Building one takes milliseconds; one may be applied in many threads at once.
    """
    try:
        source = _source(profile, mode)
        if source is None:
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _source(profile: bytes, mode: str) -> ImageCms.ImageCmsProfile | None:
    """The profile to convert from, if there is one for this mode that is not sRGB itself."""
    if mode == "LAB":  # defined by itself: CIE L*a*b*, D50
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    if not profile:
        return None
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    is_srgb = (source.profile.profile_description or "").startswith("sRGB")
    return None if is_srgb or source.profile.xcolor_space != _PROFILE_SPACE[mode] else source
