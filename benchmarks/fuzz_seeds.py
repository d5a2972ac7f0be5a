"""Small files of every kind that is read, whole, for mutations to begin with."""

import bz2
import gzip
import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from benchmarks.sets import SHARED

ODD = SHARED / "images" / "odd"
SIZE = (40, 30)
LARGEST_ODD = 24 * 1024
"""Real files beyond this would take more of the time than they show."""


def picture(mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth coloured noise, as photographs are."""
    grid = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return Image.fromarray(grid).resize(SIZE, Image.Resampling.BICUBIC).convert(mode)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "described"
    return exif


def _jpeg() -> list[bytes]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rgb = picture()
    return [
        _saved(rgb, "JPEG"),
        _saved(rgb, "JPEG", progressive=True, quality=90, subsampling=0),
        _saved(rgb, "JPEG", restart_marker_blocks=2),
        _saved(picture("L"), "JPEG", optimize=True),
        _saved(picture("CMYK"), "JPEG"),
        _saved(rgb, "JPEG", exif=_exif(), icc_profile=profile, comment=b"said"),
        _saved(rgb, "MPO", save_all=True, append_images=[picture(seed=1)]),
    ]


def _png() -> list[bytes]:
    palette = picture("P")
    wide = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
    return [
        _saved(picture(), "PNG"),
        _saved(picture("RGBA"), "PNG", exif=_exif()),
        _saved(palette, "PNG", transparency=3),
        _saved(picture("1"), "PNG"),
        _saved(picture("LA"), "PNG", compress_level=0),
        _saved(wide, "PNG"),
        _saved(picture(), "PNG", save_all=True, append_images=[picture(seed=1)], duration=40),
    ]


def _gif() -> list[bytes]:
    frames = [picture("P", seed) for seed in range(3)]
    return [
        _saved(frames[0], "GIF"),
        _saved(frames[0], "GIF", transparency=2, interlace=True, comment=b"said"),
        _saved(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2, loop=0),
    ]


def _webp() -> list[bytes]:
    return [
        _saved(picture(), "WEBP"),
        _saved(picture("RGBA"), "WEBP", lossless=True),
        _saved(picture("RGBA"), "WEBP", exif=_exif(), quality=30),
        _saved(picture(), "WEBP", save_all=True, append_images=[picture(seed=1)], duration=40),
    ]


def _avif() -> list[bytes]:
    return [
        _saved(picture(), "AVIF", speed=10),
        _saved(picture("RGBA"), "AVIF", speed=10, quality=90, subsampling="4:4:4", exif=_exif()),
        _saved(picture("L"), "AVIF", speed=10),
        _saved(picture(), "AVIF", speed=10, save_all=True, append_images=[picture(seed=1)]),
    ]


def _tiff() -> list[bytes]:
    packings = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg")
    return [
        *(_saved(picture(), "TIFF", compression=packing) for packing in packings),
        _saved(picture("1"), "TIFF", compression="group4"),
        _saved(picture("CMYK"), "TIFF", compression="tiff_lzw", exif=_exif()),
        _saved(picture("P"), "TIFF", big_tiff=True),
        _saved(Image.fromarray(np.ones((30, 40), np.float32)), "TIFF"),
        _saved(picture(), "TIFF", save_all=True, append_images=[picture(seed=1)]),
    ]


def _bmp() -> list[bytes]:
    kinds = [_saved(picture(mode), "BMP") for mode in ("RGB", "P", "L", "1", "RGBA")]
    return [*kinds, _run_length_bmp()]


def _run_length_bmp() -> bytes:
    """8 × 4 pixels in runs (BI_RLE8), which Pillow reads and does not write."""
    rows = b"\x04\x01\x04\x02\0\0" * 3 + b"\0\x04\1\2\3\4\x04\x05\0\1"
    palette = bytes(range(256)) * 4
    header = struct.pack("<IiiHHIIiiII", 40, 8, 4, 1, 8, 1, len(rows), 0, 0, 256, 0)
    start = 14 + 40 + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + header + palette + rows


def _jpeg2000() -> list[bytes]:
    return [
        _saved(picture(), "JPEG2000"),
        _saved(picture("L"), "JPEG2000", no_jp2=True),
        _saved(picture("RGBA"), "JPEG2000", tile_size=(16, 16), num_resolutions=3),
        _saved(picture(), "JPEG2000", irreversible=True, quality_layers=[20, 5]),
    ]


def _ppm() -> list[bytes]:
    plain = b"P3 # said\n2 2\n255\n" + b" 1 2 3" * 4
    floats = b"Pf\n4 3\n-1.0\n" + struct.pack("<12f", *range(12))
    return [
        *(_saved(picture(mode), "PPM") for mode in ("RGB", "L", "1")),
        plain,
        b"P1\n4 2\n01011010",
        b"P5\n4 2\n65535\n" + bytes(16),
        floats,
    ]


def _heif() -> list[bytes]:
    return []  # What reads HEIC here does not write it: only the real files.


_MADE: Mapping[str, Callable[[], list[bytes]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WEBP": _webp,
    "AVIF": _avif,
    "TIFF": _tiff,
    "BMP": _bmp,
    "JPEG2000": _jpeg2000,
    "PPM": _ppm,
    "HEIF": _heif,
}
_SUFFIXES: Mapping[str, str] = {
    "JPEG": "jpg|mpo", "PNG": "png|apng", "GIF": "gif", "WEBP": "webp", "AVIF": "avifs?",
    "TIFF": "tif", "BMP": "bmp", "JPEG2000": "jp2", "PPM": "p[gp]m", "HEIF": "hei[fc]",
}  # fmt: skip


def pictures() -> dict[str, Sequence[bytes]]:
    """Seeds by format, real ones among them where the odd files are at hand; HEIF only then."""
    found: dict[str, Sequence[bytes]] = {}
    for name, made in _MADE.items():
        real = [
            path.read_bytes()
            for path in sorted(ODD.rglob("*"))
            if re.fullmatch(rf"\.({_SUFFIXES[name]})", path.suffix)
            and path.stat().st_size <= LARGEST_ODD
        ]
        if seeds := [*made(), *real]:
            found[name] = seeds
    return found


def repaired_png(content: bytes) -> bytes:
    """The same chunks with their checksums made right, so that what is in them gets read."""
    out, at = bytearray(content[:8]), 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        body = content[at + 4 : at + 8 + length]
        if at + 12 + length > len(content):
            break
        out += content[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + length
    return bytes(out + content[at:])


MEMBERS: Mapping[str, bytes] = {
    "a.jpg": b"first",
    "shoes/b.png": b"second " * 40,
    "shoes/" + "long" * 40 + "/c.gif": b"third",
    "käse.bmp": b"",
    "inner.zip": b"PK\x03\x04",
}


def _zip(method: int = zipfile.ZIP_DEFLATED, **options: bool) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, **options) as archive:
        archive.mkdir("folder")
        for name, content in MEMBERS.items():
            with archive.open(name, "w", force_zip64=method == zipfile.ZIP_STORED) as member:
                member.write(content)
        archive.comment = b"said"
    return file.getvalue()


def _tar(kind: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for name, content in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if kind == tarfile.PAX_FORMAT:
                info.pax_headers = {"comment": "said"}
            archive.addfile(info, io.BytesIO(content))
        for kind_of_member in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"member-{kind_of_member.decode()}")
            info.type, info.linkname = kind_of_member, "a.jpg"
            archive.addfile(info)
    return file.getvalue()


def _tars() -> list[bytes]:
    return [_tar(kind) for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]


def archives() -> dict[str, Sequence[bytes]]:
    """Seeds by kind; what is packed twice over is mutated outside here, and inside as a tar."""
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    return {
        "zip": [*map(_zip, methods), _zip(allowZip64=False)],
        "tar": _tars(),
        "tar.gz": [gzip.compress(tar, mtime=0) for tar in _tars()],
        "tar.bz2": [bz2.compress(tar) for tar in _tars()],
        "tar.xz": [lzma.compress(tar) for tar in _tars()],
    }


def repaired_tar(content: bytes) -> bytes:
    """The same blocks with the checksums of whatever looks like a header made right."""
    out = bytearray(content)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)
