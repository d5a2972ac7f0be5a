"""What `decode` gives for pictures of every format, and what it says of those it refuses."""

import gc
import io
import json
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.decode import DEFAULT_LIMITS, REASONS, Limits, decode
from models.errors import PictureError


def encoded(image: Image.Image, codec: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, codec, **options)
    return content.getvalue()


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """A smooth picture whose four corners differ."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    pixels = np.stack([255 * across, 255 * down, 255 * (1 - across) * (1 - down)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference, in levels of 255."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).mean())


def outcome(content: bytes, limits: Limits = DEFAULT_LIMITS) -> str:
    """The code of the refusal, or `decoded`."""
    try:
        picture = decode(content, limits)
    except PictureError as error:
        return error.code
    assert (picture.image.mode, picture.image.size) == ("RGB", (picture.width, picture.height))
    return "decoded"


KINDS = {
    "jpeg": ("JPEG", {"quality": 95}),
    "progressive-jpeg": ("JPEG", {"quality": 95, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 95}),
    "lossless-webp": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "lzw-tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "jpeg-tiff": ("TIFF", {"compression": "jpeg", "quality": 95}),
    "avif": ("AVIF", {"quality": 95}),
    "jp2": ("JPEG2000", {}),
    "j2k": ("JPEG2000", {"no_jp2": True}),
    "ppm": ("PPM", {}),
}
OUTCOMES = {*REASONS, "decoded"}
WHOLE = {kind: encoded(scene(), codec, **options) for kind, (codec, options) in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_picture(kind: str) -> None:
    picture = decode(WHOLE[kind])
    assert (picture.width, picture.height, picture.format) == (96, 64, KINDS[kind][0])
    assert picture.image.mode == "RGB"
    assert difference(picture.image, scene()) < (6 if kind == "gif" else 2)


def test_the_result_carries_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    picture = decode(encoded(scene(), "JPEG", exif=exif, comment=b"hidden"))
    assert picture.image.info == {}
    assert not picture.image.getexif()


@pytest.mark.parametrize("codec", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_of_several_frames_the_first_is_taken(codec: str) -> None:
    others = [Image.new("RGB", (96, 64), colour) for colour in ("black", "white", "red")]
    content = encoded(scene(), codec, save_all=True, append_images=others)
    assert difference(decode(content).image, scene()) < 6
    assert outcome(content, Limits(max_frames=3)) == "picture-too-many-frames"
    assert decode(content, Limits(max_frames=4)).width == 96


@pytest.mark.parametrize("codec", ["EPS", "PCX", "TGA", "ICO", "PDF"])
def test_formats_not_on_the_list_are_refused_though_pillow_knows_them(codec: str) -> None:
    assert outcome(encoded(scene(), codec)) == "picture-format-unknown"


STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "lzw-tiff", "avif"])
def test_every_orientation_is_turned_upright(kind: str, orientation: int) -> None:
    turn = STORED_AS[orientation]
    stored = scene() if turn is None else scene().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    codec, options = KINDS[kind]
    picture = decode(encoded(stored, codec, exif=exif, **options))
    assert (picture.width, picture.height) == (96, 64)
    assert difference(picture.image, scene()) < 2


def test_an_orientation_that_only_xmp_tells_is_followed() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    picture = decode(encoded(scene().transpose(Image.Transpose.ROTATE_90), "WEBP", xmp=xmp))
    assert difference(picture.image, scene()) < 3


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0x"])
def test_a_picture_with_broken_exif_stays_as_it_is(exif: bytes) -> None:
    assert difference(decode(encoded(scene(), "JPEG", exif=exif)).image, scene()) < 3


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(encoded(scene(), "JPEG", exif=exif)).width == 96


@pytest.mark.parametrize(
    ("min_side", "size"),
    [(None, (800, 1200)), (800, (800, 1200)), (401, (800, 1200)), (400, (400, 600)),
     (256, (400, 600)), (200, (200, 300)), (100, (100, 150)), (1, (100, 150))],
)  # fmt: skip
def test_a_jpeg_is_reduced_only_while_its_shorter_side_suffices(
    min_side: int | None, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(scene(1200, 800), "JPEG", quality=95, exif=exif)
    picture = decode(content, min_side=min_side)
    assert picture.image.size == size
    assert (picture.width, picture.height) == (800, 1200)
    assert difference(picture.image, decode(content).image.resize(size)) < 1


def test_a_jpeg_with_a_second_frame_is_reduced_too() -> None:
    content = encoded(scene(800, 600), "MPO", save_all=True, append_images=[scene(80, 60)])
    picture = decode(content, min_side=200)
    assert (picture.image.size, picture.width, picture.format) == ((400, 300), 800, "MPO")


def test_other_formats_are_never_reduced() -> None:
    assert decode(encoded(scene(800, 600), "PNG"), min_side=10).image.size == (800, 600)


def test_no_bytes_are_refused() -> None:
    assert outcome(b"") == "picture-empty"


def test_the_cap_on_bytes_is_exact_and_named() -> None:
    content = WHOLE["png"]
    assert decode(content, Limits(max_bytes=len(content))).width == 96
    with pytest.raises(PictureError, match=f"limit of {len(content) - 1:,}") as caught:
        decode(content, Limits(max_bytes=len(content) - 1))
    assert caught.value.code == "picture-too-many-bytes"


@pytest.mark.parametrize("kind", KINDS)
def test_the_cap_on_pixels_is_exact_and_named(kind: str) -> None:
    assert decode(WHOLE[kind], Limits(max_pixels=96 * 64)).width == 96
    with pytest.raises(PictureError, match="96 × 64 pixels") as caught:
        decode(WHOLE[kind], Limits(max_pixels=96 * 64 - 1))
    assert caught.value.code == "picture-too-many-pixels"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.35, 0.6, 0.8])
def test_a_truncated_file_is_refused_with_that_reason(kind: str, share: float) -> None:
    content = WHOLE[kind]
    assert outcome(content[: int(share * len(content))]) == "picture-truncated"


@pytest.mark.parametrize("kind", ["jp2", "j2k"])
def test_a_jpeg_2000_cut_where_its_first_tile_begins_is_no_black_picture(kind: str) -> None:
    content = WHOLE[kind]
    assert outcome(content[: content.index(b"\xff\x90") + 2]) == "picture-truncated"


@pytest.mark.parametrize("kind", KINDS)
def test_no_prefix_of_a_file_passes_for_another_picture(kind: str) -> None:
    content, whole = WHOLE[kind], decode(WHOLE[kind]).image
    for end in range(0, len(content), max(1, len(content) // 100)):
        if outcome(content[:end]) == "decoded":
            assert difference(decode(content[:end]).image, whole) == 0


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    flips=st.lists(st.tuples(st.integers(0, 2**16), st.integers(1, 255)), max_size=8),
    cut=st.none() | st.integers(0, 2**16),
    extra=st.binary(max_size=64),
)
def test_damage_never_raises_anything_but_a_picture_error(
    kind: str, flips: list[tuple[int, int]], cut: int | None, extra: bytes
) -> None:
    content = bytearray(WHOLE[kind])
    for position, mask in flips:
        content[position % len(content)] ^= mask
    content = content[: None if cut is None else cut % len(content)] + extra
    assert outcome(bytes(content), Limits(max_pixels=1_000_000)) in OUTCOMES


SIGNATURES = (
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\0\0\0\0WEBPVP8 ",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"\0\0\0\x18ftypavif",
    b"\0\0\0\x18ftypheic",
    b"\0\0\0\x18ftypmif1",
    b"\xff\x4f\xff\x51",
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"P6 ",
)


@settings(max_examples=100, deadline=None)
@given(
    signature=st.sampled_from(SIGNATURES),
    rest=st.binary(max_size=256),
)
def test_noise_behind_a_signature_never_raises_anything_but_a_picture_error(
    signature: bytes, rest: bytes
) -> None:
    assert outcome(signature + rest, Limits(max_pixels=1_000_000)) in OUTCOMES


@pytest.mark.timeout(60)
def test_a_tiff_of_a_hundred_thousand_frames_is_refused_without_counting_them() -> None:
    entry = struct.Struct("<HHII").pack
    tags = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 0)]
    directory = struct.pack("<H", len(tags)) + b"".join(entry(*tag) for tag in tags)
    size = len(directory) + 4
    chain = (directory + struct.pack("<I", 8 + size * n) for n in range(1, 100_001))
    assert outcome(b"II*\0\x08\0\0\0" + b"".join(chain)) == "picture-too-many-frames"


def test_many_threads_decode_what_one_does() -> None:
    contents = [*WHOLE.values()] * 4
    alone = [decode(content).image.tobytes() for content in contents]
    with ThreadPoolExecutor(8) as pool:
        together = [picture.image.tobytes() for picture in pool.map(decode, contents)]
    assert together == alone


def test_nothing_is_left_open() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for content in WHOLE.values():
            decode(content)
            with pytest.raises(PictureError):
                decode(content[:40])
        gc.collect()


def chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def claiming(width: int, height: int) -> dict[str, bytes]:
    """Small files whose headers claim these dimensions."""

    def put(content: bytes, at: int, form: str, *values: int) -> bytes:
        return content[:at] + struct.pack(form, *values) + content[at + struct.calcsize(form) :]

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    animated = encoded(scene(), "WEBP", save_all=True, append_images=[Image.new("RGB", (96, 64))])
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    tiff = WHOLE["tiff"]
    sizes = [tiff.index(struct.pack("<HHII", tag, 4, 1, 96 if tag == 256 else 64)) + 8
             for tag in (256, 257)]  # fmt: skip
    return {
        "jpeg": put(WHOLE["jpeg"], WHOLE["jpeg"].index(b"\xff\xc0") + 5, ">HH", height, width),
        "png": WHOLE["png"][:8] + chunk(b"IHDR", header) + WHOLE["png"][33:],
        "webp": animated[:24] + canvas + animated[30:],
        "gif": put(WHOLE["gif"], 6, "<HH", width, height),
        "bmp": put(WHOLE["bmp"], 18, "<ii", width, height),
        "tiff": put(put(tiff, sizes[0], "<I", width), sizes[1], "<I", height),
        "avif": put(WHOLE["avif"], WHOLE["avif"].index(b"ispe") + 8, ">II", width, height),
        "j2k": put(WHOLE["j2k"], 8, ">II", width, height),
        "jp2": put(WHOLE["jp2"], WHOLE["jp2"].index(b"ihdr") + 4, ">II", height, width),
        "ppm": b"P6\n%d %d\n255\n" % (width, height),
    }


def in_a_fresh_process(program: str, contents: dict[str, bytes]) -> tuple[str, str]:
    """Standard output and error of a program that finds `contents` as a dict."""
    sent = json.dumps({name: content.hex() for name, content in contents.items()})
    program = (
        "import json, resource, sys\n"
        "from models.decode import decode\n"
        "from models.errors import PictureError\n"
        "contents = {k: bytes.fromhex(v) for k, v in json.load(sys.stdin).items()}\n" + program
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, input=sent, capture_output=True, text=True, check=True)
    return ran.stdout, ran.stderr


@pytest.mark.parametrize("side", [13_000, 60_000])
def test_a_decompression_bomb_is_refused_before_memory_is_spent_on_it(side: int) -> None:
    program = """
decode(contents.pop("warm-up"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
codes = {}
for name, content in contents.items():
    try:
        decode(content)
        codes[name] = "decoded"
    except PictureError as error:
        codes[name] = error.code
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"codes": codes, "grown": grown}))
"""
    bombs = claiming(side, side)
    result = json.loads(in_a_fresh_process(program, bombs | {"warm-up": WHOLE["png"]})[0])
    expected = dict.fromkeys(bombs, "picture-too-many-pixels")
    if side > 2**15:  # libavif does not even read on
        expected["avif"] = "picture-undecodable"
    assert result["codes"] == expected
    assert result["grown"] < 32 * 1024  # KiB; one of them alone would take 500 MiB


def test_what_decoders_remark_is_not_printed() -> None:
    end = WHOLE["png"].index(b"IDAT") - 4
    no_frames = chunk(b"acTL", struct.pack(">II", 0, 0))
    bad_tag = struct.pack("<HHII", 270, 2, 2**31, 2**31)
    tags = WHOLE["tiff"].index(struct.pack("<HHII", 256, 4, 1, 96))
    remarkable = {
        "png": WHOLE["png"][:end] + no_frames + WHOLE["png"][end:],
        "tiff": WHOLE["tiff"][:tags] + bad_tag + WHOLE["tiff"][tags + 12 :],
        "samples": WHOLE["tiff"].replace(
            struct.pack("<HHII", 277, 3, 1, 3), struct.pack("<HHII", 277, 4, 1, 2**28)
        ),
        "large": claiming(13_000, 13_000)["png"],
    }
    program = """
for content in contents.values():
    try:
        decode(content)
    except PictureError:
        pass
"""
    assert in_a_fresh_process(program, remarkable) == ("", "")
