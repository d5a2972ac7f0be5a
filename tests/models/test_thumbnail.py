"""Thumbnails are small, faithful, and say nothing but their pixels."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from models.thumbnail import thumbnail


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_a_thumbnail_is_a_jpeg_of_the_same_colours() -> None:
    small = opened(thumbnail(Image.new("RGB", (1200, 800), (200, 100, 50))))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (320, 213))
    assert np.abs(np.asarray(small, dtype=int) - (200, 100, 50)).max() <= 3


@given(width=st.integers(1, 2000), height=st.integers(1, 2000), side=st.integers(1, 64))
def test_neither_side_is_longer_than_asked_and_none_is_lost(
    width: int, height: int, side: int
) -> None:
    small = opened(thumbnail(Image.new("L", (width, height)).convert("RGB"), side))
    assert max(small.size) == min(side, max(width, height))
    assert min(small.size) >= 1


def test_a_small_picture_is_not_enlarged() -> None:
    assert opened(thumbnail(Image.new("RGB", (20, 30)))).size == (20, 30)


@pytest.mark.parametrize("size", [(64, 64), (640, 480)])
def test_no_metadata_is_left(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info = {"exif": exif.tobytes(), "xmp": b"SECRET", "icc_profile": profile}
    content = thumbnail(image)
    for segment in (b"SECRET", b"Exif", b"ICC_PROFILE", b"http://ns.adobe.com", b"\xff\xfe"):
        assert segment not in content
    assert image.info["xmp"] == b"SECRET"  # the picture given stays as it was
