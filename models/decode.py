"""A picture's bytes -> upright 8-bit RGB pixels, or a `PictureError` that says why not.

The way is: caps on bytes -> header -> caps on pixels and frames -> pixels -> upright -> RGB.
Nothing in proportion to the pixels is allocated before the caps have been checked.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pi_heif
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from models.colour import to_rgb
from models.container import ends_early, size_of_gif
from models.errors import PictureError

REASONS: Mapping[str, str] = {
    "picture-empty": "the file is empty: send the bytes of a picture",
    "picture-too-many-bytes": "{found:,} bytes are more than the limit of {limit:,}: "
    "send a smaller file",
    "picture-format-unknown": "this is none of the formats read here: send {formats}",
    "picture-too-many-pixels": "its {found} are more than the limit of {limit:,} "
    "pixels: send a smaller picture",
    "picture-too-many-frames": "more than {limit:,} frames: send a single picture",
    "picture-truncated": "the {format} file ends before its picture does: send the whole file",
    "picture-undecodable": "the {format} file is broken or of a kind that is not read here "
    "({why}): save it again with another program",
}
"""Every code that `decode` raises, and what it says; codes are stable."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM")
"""The formats that are read, by Pillow's names; JPEG includes MPO, PNG includes APNG."""

PILLOW_MAX_PIXELS = 178_956_970
"""Where Pillow itself refuses a header: twice its `MAX_IMAGE_PIXELS`."""

_TURNS: Mapping[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its orientation: EXIF tag 0x0112 (CIPA DC-008, 4.6.5)."""

_LYING = frozenset({5, 6, 7, 8})
"""The orientations whose width is the upright picture's height."""

_SAYS_TRUNCATED = ("truncat", "end of file")
"""How the decoders word it that a file ends too early."""

pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
# Pillow remarks on odd metadata by warnings and log lines. What matters becomes a PictureError;
# the rest must not be printed, and filters set per call would not be safe between threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Limits:
    """What a picture may cost; checked before memory is spent on its pixels.

    `max_pixels` counts width × height of the first frame. More than `PILLOW_MAX_PIXELS` has
    no effect.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 100_000_000
    max_frames: int = 1_000


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Decoded:
    """An upright picture; `width` and `height` are its full size even where `image` is smaller.

    `image` is 8-bit RGB without metadata; `format` is one of `FORMATS`, or `MPO`.
    """

    image: Image.Image
    width: int
    height: int
    format: str


def decode(content: bytes, limits: Limits = DEFAULT_LIMITS, min_side: int | None = None) -> Decoded:
    """The first frame of a picture (of HEIC and AVIF: the primary one), upright, in sRGB.

    Transparency is laid over white. With `min_side` the caller says how long the shorter side
    must be at least: a JPEG is then decoded at 1/2, 1/4 or 1/8 where that is long enough and
    divides both sides. Ask for twice of what is needed: decoding to twice the size and resizing
    is 51 dB from the full decode, decoding to barely the size 43 dB.

    Raises `PictureError` with a code of `REASONS`, and nothing else, whatever the bytes are.

    >>> red = io.BytesIO()
    >>> Image.new("RGB", (640, 480), (255, 0, 0)).save(red, "PNG")
    >>> picture = decode(red.getvalue())
    >>> picture.width, picture.height, picture.format, picture.image.getpixel((0, 0))
    (640, 480, 'PNG', (255, 0, 0))
    """
    if not content:
        raise _refusal("picture-empty")
    if len(content) > limits.max_bytes:
        raise _refusal("picture-too-many-bytes", found=len(content), limit=limits.max_bytes)
    _check_pixels(*size_of_gif(content), limits)
    with _refusing(content, limits), _opened(content) as image:
        _check_caps(content, image, limits)
        width, height = image.size
        if min_side is not None:
            by = _reduction(width, height, min_side)
            image.draft(None, (width // by, height // by))
        drafted = image.size != (width, height)
        image.load()
        # OpenJPEG takes a file that ends where its first tile begins for a black picture.
        if image.format == "JPEG2000" and ends_early(content):
            raise _refusal("picture-truncated", format=image.format)
        if not drafted:
            width, height = image.size  # a HEIF header may differ from what it heads
        orientation = _orientation(image)
        upright = to_rgb(image)
        if orientation in _TURNS:
            upright = upright.transpose(_TURNS[orientation])
        if orientation in _LYING:
            width, height = height, width
        upright.info = {}
        return Decoded(upright, width, height, str(image.format))


def _reduction(width: int, height: int, min_side: int) -> int:
    """By how much both sides of a JPEG may be divided, without a remainder.

    A remainder would change the proportions, and with them where torchvision crops: it truncates
    the longer side, so that 1067×694 and its half, 534×347, are cut up to a pixel apart.

    >>> _reduction(4032, 3024, 512), _reduction(1066, 694, 320), _reduction(1067, 694, 320)
    (4, 2, 1)
    """
    for by in (8, 4, 2):
        if width % by == height % by == 0 and min(width, height) >= by * min_side:
            return by
    return 1


def _refusal(code: str, **facts: object) -> PictureError:
    return PictureError(code, REASONS[code].format(**facts))


@contextlib.contextmanager
def _refusing(content: bytes, limits: Limits) -> Iterator[None]:
    """Turn whatever a decoder throws at hostile bytes into a `PictureError`."""
    try:
        yield
    except PictureError:
        raise
    except Exception as error:
        raise _reason(error, content, limits) from error


def _reason(error: Exception, content: bytes, limits: Limits) -> PictureError:
    if isinstance(error, Image.DecompressionBombError):
        limit = min(limits.max_pixels, PILLOW_MAX_PIXELS)
        return _refusal("picture-too-many-pixels", found="dimensions", limit=limit)
    name = _format_by_signature(content)
    if name is None:
        return _refusal("picture-format-unknown", formats=", ".join(FORMATS))
    if any(words in str(error).lower() for words in _SAYS_TRUNCATED) or ends_early(content):
        return _refusal("picture-truncated", format=name)
    why = "its header" if isinstance(error, UnidentifiedImageError) else str(error)
    return _refusal("picture-undecodable", format=name, why=why or type(error).__name__)


def _opened(content: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _format_by_signature(content: bytes) -> str | None:
    """The first format whose signature these bytes begin with."""
    for name in FORMATS:
        accepts = Image.OPEN[name][1]
        if accepts is not None and accepts(content[:16]):
            return name
    return None


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        found = f"{width:,} × {height:,} pixels"
        raise _refusal("picture-too-many-pixels", found=found, limit=limits.max_pixels)


def _check_caps(content: bytes, image: ImageFile.ImageFile, limits: Limits) -> None:
    _check_pixels(*image.size, limits)
    # Counting every directory of a TIFF is quadratic: hours for a hostile file.
    endless = image.format == "TIFF" and _has_frame(content, limits.max_frames)
    if endless or getattr(image, "n_frames", 1) > limits.max_frames:
        raise _refusal("picture-too-many-frames", limit=limits.max_frames)


def _has_frame(content: bytes, number: int) -> bool:
    """Whether there is a frame of this number, from 0, without decoding any."""
    with contextlib.suppress(Exception), _opened(content) as image:
        image.seek(number)
        return True
    return False


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation; where EXIF is broken or silent, 1: upright."""
    with contextlib.suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    return 1
