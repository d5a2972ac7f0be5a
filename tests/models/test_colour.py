"""Every kind of pixel becomes the sRGB colour that it means, 8-bit, over white."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms

from models.colour import to_rgb
from models.decode import decode

Colour = tuple[int, int, int]


def through(image: Image.Image, codec: str, **options: object) -> Image.Image:
    """What comes back of a picture that went through a file."""
    content = io.BytesIO()
    image.save(content, codec, **options)
    return decode(content.getvalue()).image


def colour_of(image: Image.Image) -> tuple[int, ...]:
    """The one colour of a plain picture."""
    pixels = np.asarray(image).reshape(-1, 3)
    assert (np.ptp(pixels, axis=0) <= 1).all()
    return tuple(int(level) for level in pixels[0])


def near(one: tuple[int, ...], other: tuple[int, ...], by: int = 2) -> bool:
    return all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


def chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def png(width: int, depth: int, kind: int, row: bytes, transparent: bytes = b"") -> bytes:
    """A PNG of one row; `kind` is 0 for grey, 2 for RGB."""
    chunks = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0))
    chunks += chunk(b"tRNS", transparent) if transparent else b""
    chunks += chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff(tags: dict[int, int], row: bytes) -> bytes:
    """A little-endian TIFF of one row; `tags` hold their values themselves."""
    tags = {257: 1, 259: 1, 277: 1, 278: 1, 279: len(row)} | tags
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + row


def levels(content: bytes) -> list[int]:
    """The grey levels of a picture of one row."""
    pixels = np.asarray(decode(content).image)
    assert (pixels == pixels[..., :1]).all()
    return [int(level) for level in pixels[0, :, 0]]


# 16 bits and more: scaled, not clipped


def test_16_bit_grey_png_keeps_its_upper_byte() -> None:
    row = struct.pack(">4H", 0, 0x0100, 0x8040, 0xFFFF)
    assert levels(png(4, 16, 0, row)) == [0, 1, 128, 255]


def test_16_bit_colour_png_keeps_its_upper_bytes() -> None:
    row = struct.pack(">3H", 0x4000, 0x8000, 0xFFFF)
    assert colour_of(decode(png(1, 16, 2, row)).image) == (64, 128, 255)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_grey_tiff_keeps_its_upper_byte_in_either_byte_order(mode: str) -> None:
    order = "<u2" if mode == "I;16" else ">u2"
    image = Image.frombytes(mode, (4, 1), np.array([0, 256, 0x8040, 65535], order).tobytes())
    assert [pixel[0] for pixel in np.asarray(through(image, "TIFF"))[0]] == [0, 1, 128, 255]


def test_16_bit_grey_jpeg_2000_keeps_its_upper_byte() -> None:
    image = Image.fromarray(np.full((32, 32), 0x8040, np.uint16))
    assert colour_of(through(image, "JPEG2000")) == (128, 128, 128)


def test_12_bit_grey_tiff_is_scaled_from_12_bits() -> None:
    row = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x10])  # 0, 0x800, 0xFFF, 0x010
    assert levels(tiff({256: 4, 258: 12, 262: 1}, row)) == [0, 128, 255, 1]


def test_16_bit_grey_tiff_whose_zero_is_white_is_inverted() -> None:
    row = struct.pack("<3H", 0, 0x8000, 0xFFFF)
    assert levels(tiff({256: 3, 258: 16, 262: 0}, row)) == [255, 127, 0]


def test_pgm_is_scaled_from_its_own_maximum() -> None:
    assert levels(b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023)) == [0, 128, 255]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("I", [0, 32768, 65535], [0, 128, 255]),
        ("I", [0, 257, 514], [0, 1, 2]),
        ("I", [-100, 0, 100], [0, 128, 255]),
        ("I", [0, 1_000_000, 2_000_000], [0, 128, 255]),
        ("F", [0.0, 0.5, 1.0], [0, 128, 255]),
        ("F", [0.0, 100.0, 200.0], [0, 128, 255]),
        ("F", [float("nan"), float("inf"), float("-inf")], [0, 255, 0]),
        ("F", [-3e38, 0.0, 3e38], [0, 128, 255]),
    ],
)
def test_wide_values_are_scaled_by_full_range_or_their_own_extremes(
    mode: str, values: list[float], expected: list[int]
) -> None:
    image = Image.fromarray(np.array([values], np.int32 if mode == "I" else np.float32))
    grey = np.asarray(through(image, "TIFF"))[0, :, 0]
    assert near(tuple(int(level) for level in grey), tuple(expected), by=1)


# Transparency: over white


@pytest.mark.parametrize("codec", ["PNG", "WEBP", "TIFF", "AVIF", "JPEG2000"])
@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("RGBA", (200, 0, 0, 128), (227, 127, 127)),
        ("LA", (100, 0), (255, 255, 255)),
        ("LA", (100, 128), (177, 177, 177)),
    ],
)
def test_alpha_is_laid_over_white(
    codec: str, mode: str, pixel: tuple[int, ...], expected: Colour
) -> None:
    options = {"lossless": True} if codec == "WEBP" else {}
    image = through(Image.new(mode, (32, 32), pixel), codec, **options)
    assert near(colour_of(image), expected)


@pytest.mark.parametrize(
    ("codec", "transparent"), [("PNG", 1), ("PNG", b"\xff\x00\xff"), ("GIF", 1)]
)
def test_a_transparent_palette_entry_is_white(codec: str, transparent: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    pixels = np.asarray(through(image, codec, transparency=transparent))[0].tolist()
    assert pixels == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]


@pytest.mark.parametrize(
    ("depth", "kind", "row", "transparent", "expected"),
    [
        (8, 0, bytes([7, 90]), struct.pack(">H", 7), [(255,) * 3, (90,) * 3]),
        (16, 0, struct.pack(">2H", 1000, 1001), struct.pack(">H", 1000), [(255,) * 3, (3,) * 3]),
        (8, 2, bytes([7, 8, 9, 1, 2, 3]), struct.pack(">3H", 7, 8, 9), [(255,) * 3, (1, 2, 3)]),
        (16, 2, struct.pack(">6H", 1000, 2000, 3000, 256, 512, 768),
         struct.pack(">3H", 1000, 2000, 3000), [(255,) * 3, (1, 2, 3)]),
    ],
)  # fmt: skip
def test_the_transparent_colour_of_a_png_is_white(
    depth: int, kind: int, row: bytes, transparent: bytes, expected: list[Colour]
) -> None:
    pixels = np.asarray(decode(png(2, depth, kind, row, transparent)).image)[0]
    assert [tuple(int(level) for level in pixel) for pixel in pixels] == expected


def test_premultiplied_alpha_is_laid_over_white_too() -> None:
    assert to_rgb(Image.new("RGBa", (1, 1), (100, 0, 0, 128))).getpixel((0, 0)) == (227, 127, 127)
    assert to_rgb(Image.new("La", (1, 1), (50, 128))).getpixel((0, 0)) == (177, 177, 177)


# Other colour spaces


@pytest.mark.parametrize("codec", ["PNG", "TIFF", "BMP", "PPM", "GIF"])
@pytest.mark.parametrize(("mode", "pixel"), [("1", 1), ("L", 255)])
def test_black_and_white_and_grey_become_rgb(codec: str, mode: str, pixel: int) -> None:
    assert colour_of(through(Image.new(mode, (8, 8), pixel), codec)) == (255, 255, 255)
    assert colour_of(through(Image.new(mode, (8, 8), 0), codec)) == (0, 0, 0)


@pytest.mark.parametrize("codec", ["JPEG", "TIFF"])  # Adobe's JPEG is stored inverted
@pytest.mark.parametrize(
    ("ink", "expected"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_cmyk_without_a_profile_subtracts_the_inks(
    codec: str, ink: tuple[int, ...], expected: Colour
) -> None:
    assert near(colour_of(through(Image.new("CMYK", (16, 16), ink), codec)), expected)


@pytest.mark.parametrize(
    ("lab", "expected"),
    [
        ((255, 128, 128), (255, 255, 255)),
        ((138, 166, 174), (200, 100, 50)),
        ((109, 134, 80), (60, 100, 180)),
        ((141, 88, 156), (60, 150, 80)),
        ((0, 128, 128), (0, 0, 0)),
    ],
)
def test_lab_of_d50_becomes_srgb(lab: tuple[int, ...], expected: Colour) -> None:
    image = Image.merge("LAB", [Image.new("L", (16, 1), level) for level in lab])
    assert near(colour_of(through(image, "TIFF")), expected, by=5)


# ICC profiles

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped() -> bytes:
    """A profile whose red is sRGB's green, and the other way round."""
    named = SRGB.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    return named.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")


def inks() -> bytes:
    """A CMYK profile (ICC.1:2022, 10.10): no ink is white, cyan prints as pink, the rest black."""
    nodes = {0: (255, 128, 128), 8: (128, 200, 128)}
    table = b"".join(bytes(nodes.get(node, (0, 128, 128))) for node in range(16))
    identity = struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    ramps = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + ramps * 4 + table + ramps * 3
    start = 128 + 4 + 12
    header = struct.pack(
        ">I4sI4s4s4s", start + len(lut), b"", 0x02400000, b"prtr", b"CMYK", b"Lab "
    )
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", start, len(lut)) + lut


@pytest.mark.parametrize("codec", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_colours_are_converted_from_their_profile(codec: str) -> None:
    red = Image.new("RGB", (16, 16), (250, 10, 10))
    assert near(colour_of(through(red, codec, icc_profile=swapped())), (10, 250, 10), by=6)


@pytest.mark.parametrize("codec", ["PNG", "WEBP"])
def test_a_profile_says_nothing_about_the_white_below(codec: str) -> None:
    half = Image.new("RGBA", (16, 16), (200, 0, 0, 128))
    image = through(half, codec, icc_profile=swapped(), lossless=True)
    assert near(colour_of(image), (127, 227, 127), by=3)


def test_palettes_are_converted_from_their_profile() -> None:
    image = Image.new("P", (8, 8))
    image.putpalette([200, 0, 0])
    assert near(colour_of(through(image, "PNG", icc_profile=swapped())), (0, 200, 0))


@pytest.mark.parametrize("codec", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(codec: str) -> None:
    def printed(ink: tuple[int, ...]) -> tuple[int, ...]:
        return colour_of(through(Image.new("CMYK", (16, 16), ink), codec, icc_profile=inks()))

    assert near(printed((0, 0, 0, 0)), (255, 255, 255))
    assert near(printed((0, 0, 0, 255)), (0, 0, 0))
    pink = printed((255, 0, 0, 0))
    assert pink[0] > 200 > 100 > pink[1]


@pytest.mark.parametrize(
    "profile",
    [b"", b"no profile", SRGB[:200], inks(), SRGB, b"\0" * (5 * 2**20)],
    ids=["empty", "noise", "truncated", "of-cmyk", "srgb", "huge"],
)
def test_a_profile_that_is_broken_or_foreign_or_srgb_changes_nothing(profile: bytes) -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    assert colour_of(through(image, "TIFF", icc_profile=profile)) == (200, 100, 50)


def test_many_threads_share_one_conversion() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 200, 200, 3), dtype=np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    for image in images:
        image.info["icc_profile"] = swapped()
    alone = [to_rgb(image).tobytes() for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = [image.tobytes() for image in pool.map(to_rgb, images)]
    assert together == alone


def test_the_picture_given_stays_as_it_was() -> None:
    image = Image.new("RGB", (4, 4), "red")
    to_rgb(image).putpixel((0, 0), (0, 0, 0))
    assert image.getpixel((0, 0)) == (255, 0, 0)
