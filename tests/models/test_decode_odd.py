"""What each of the odd real files gives: its upright size, or the code of its refusal."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.decode import decode
from models.errors import PictureError

GIVES: dict[str, str] = {
    **{f"exif-orientation/Landscape_{n}.jpg": "JPEG 1800x1200" for n in range(9)},
    "imagededup/baboon.pgm": "PPM 512x512",
    "imagededup/giphy.gif": "GIF 314x400",
    "libheif/example.heic": "HEIF 1280x854",
    "pillow/16_bit_binary.pgm": "PPM 20x100",
    "pillow/16bit.cropped.jp2": "JPEG2000 64x64",
    "pillow/1_trns.png": "PNG 64x64",
    "pillow/broken_data_stream.png": "picture-undecodable",
    "pillow/decompression_bomb.gif": "picture-too-many-pixels",
    "pillow/decompression_bomb_extents.gif": "GIF 100x100",  # the bomb is its second frame
    "pillow/dispose_prev.gif": "GIF 100x100",
    "pillow/exif_typeerror.jpg": "JPEG 800x531",
    "pillow/frozenpond.mpo": "MPO 640x480",
    "pillow/hopper.Lab.tif": "TIFF 128x128",
    "pillow/hopper.bmp": "BMP 128x128",
    "pillow/hopper.heif": "HEIF 128x128",
    "pillow/hopper.jpg": "JPEG 128x128",
    "pillow/hopper.ppm": "PPM 128x128",
    "pillow/hopper.tif": "TIFF 128x128",
    "pillow/hopper_16bit_qtables.jpg": "JPEG 128x128",
    "pillow/hopper_gray.jpg": "JPEG 128x128",
    "pillow/hopper_orientation_3.jpg": "JPEG 128x128",
    "pillow/hopper_orientation_5.jpg": "JPEG 128x128",
    "pillow/hopper_orientation_6.webp": "WEBP 128x128",
    "pillow/hopper_orientation_8.jpg": "JPEG 128x128",
    "pillow/icc-after-SOF.jpg": "JPEG 10x10",
    "pillow/icc_profile_big.jpg": "JPEG 425x250",
    "pillow/iss634.apng": "PNG 245x245",
    "pillow/iss634.webp": "WEBP 245x245",
    "pillow/junk_jpeg_header.jpg": "JPEG 1024x768",
    "pillow/mode_16bit.png": "PNG 128x64",
    "pillow/negative_size.ppm": "picture-undecodable",
    "pillow/oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": "picture-truncated",
    "pillow/p_16.png": "PNG 128x128",
    "pillow/pil123p.png": "PNG 162x150",
    "pillow/pil136.png": "PNG 55x43",
    "pillow/pil_sample_rgb.jpg": "JPEG 100x100",
    "pillow/rgb.jpg": "JPEG 100x100",
    "pillow/rot1mir0.avif": "AVIF 640x427",
    "pillow/star.avifs": "AVIF 159x159",
    "pillow/tRNS_null_1x1.png": "PNG 1x1",
    "pillow/test-ole-file.doc": "picture-format-unknown",
    "pillow/transparent.webp": "WEBP 200x150",
    "pillow/truncated_image.png": "picture-truncated",
    "pillow/xmp_tags_orientation.png": "PNG 326x268",
    "pillow_heif/200MP.heic": "picture-too-many-pixels",
    "pillow_heif/L_8__29x100.heif": "HEIF 29x100",
    "pillow_heif/corrupted.heic": "picture-undecodable",
    "pillow_heif/pug.heic": "HEIF 4032x3024",
}

PORTRAITS = [
    *(f"pillow/hopper{ending}" for ending in (".bmp", ".jpg", ".tif", ".heif", ".Lab.tif")),
    *(f"pillow/hopper_orientation_{n}" for n in ("3.jpg", "5.jpg", "6.webp", "8.jpg")),
]


@pytest.fixture
def odd(shared_images: Path) -> Path:
    folder = shared_images / "odd"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: the odd files are not in the repository")
    return folder


def upright(path: Path) -> Image.Image:
    return decode(path.read_bytes()).image


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference, in levels of 255."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).mean())


@pytest.mark.parametrize("name", GIVES)
def test_every_odd_file_gives_a_picture_or_a_reason(odd: Path, name: str) -> None:
    try:
        picture = decode((odd / name).read_bytes())
    except PictureError as error:
        given = error.code
    else:
        assert picture.image.mode == "RGB"
        assert picture.image.size == (picture.width, picture.height)
        given = f"{picture.format} {picture.width}x{picture.height}"
    assert given == GIVES[name]


def test_no_odd_file_is_left_out(odd: Path) -> None:
    def names() -> Iterator[str]:
        for path in odd.glob("*/*"):
            yield path.relative_to(odd).as_posix()

    assert set(names()) == set(GIVES)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_show_the_same_landscape(odd: Path, orientation: int) -> None:
    folder = odd / "exif-orientation"
    here, there = (upright(folder / f"Landscape_{n}.jpg") for n in (0, orientation))
    assert difference(here, there) < 5  # each has its own number written on it


@pytest.mark.parametrize("name", PORTRAITS)
def test_the_same_portrait_looks_the_same_in_every_format(odd: Path, name: str) -> None:
    assert difference(upright(odd / "pillow/hopper.ppm"), upright(odd / name)) < 6


def test_animations_of_the_same_film_begin_with_the_same_frame(odd: Path) -> None:
    films = (upright(odd / "pillow" / name) for name in ("iss634.apng", "iss634.webp"))
    assert difference(*films) < 4


@pytest.mark.parametrize(
    "name", ["pillow/star.avifs", "pillow/transparent.webp", "pillow/pil123p.png"]
)
def test_what_is_transparent_is_white(odd: Path, name: str) -> None:
    assert upright(odd / name).getpixel((0, 0)) == (255, 255, 255)


def test_16_bit_ramps_are_not_clipped(odd: Path) -> None:
    ramp = np.asarray(upright(odd / "pillow/16_bit_binary.pgm"))[:, 0, 0].astype(int)
    assert (ramp[0], ramp[-1]) == (255, 0)
    assert set(np.diff(ramp)) == {-2, -3}
