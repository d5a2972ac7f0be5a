"""A picture's bytes -> what networks and a gallery want of it; knows no torch.

All that touches hostile bytes is in this one function, so that it can run in a process of its own.
"""

from dataclasses import dataclass

from PIL import Image

from models.decode import Limits, decode
from models.errors import PictureError
from models.preprocess import Pixels, Preprocessing, prepare, prepare_whole
from models.resize import Raster, raster
from models.thumbnail import thumbnail

Region = tuple[float, float, float, float]
"""x0, y0, x1, y1 as shares of width and height, 0…1, of the upright picture."""


@dataclass(frozen=True)
class Prepared:
    """A picture ready for the network: 3×H×W uint8 for each preprocessing in use."""

    pixels: tuple[Pixels, ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """What must be equal in one batch."""
        return tuple(each.shape for each in self.pixels)


@dataclass(frozen=True)
class Preparation:
    """What is wanted of a picture.

    `hows` are the preprocessings, `min_side` is how long decoding at reduced scale must leave the
    shorter side of the `region`, in pixels. With `whole` nothing is cropped, and the longer side
    becomes so many pixels. `thumbnail` asks for one as well.
    """

    hows: tuple[Preprocessing, ...]
    min_side: int
    region: Region | None = None
    whole: int | None = None
    thumbnail: bool = False


@dataclass(frozen=True)
class PreparedPicture:
    """A picture as it was wanted; `width` and `height` are its full size, upright.

    `cut` is the width and height of what was prepared: the picture at its reduced scale, or the
    region of that.
    """

    prepared: Prepared
    width: int
    height: int
    cut: tuple[int, int]
    thumbnail: bytes | None = None


def prepare_picture(content: bytes, limits: Limits, wanted: Preparation) -> PreparedPicture:
    """Decode a picture and prepare it. Raises PictureError.

    >>> import io
    >>> from models.preprocess import IMAGENET
    >>> png = io.BytesIO()
    >>> Image.new("RGB", (640, 480)).save(png, "PNG")
    >>> wanted = Preparation((IMAGENET,), 512, region=(0.0, 0.0, 0.5, 1.0))
    >>> found = prepare_picture(png.getvalue(), Limits(), wanted)
    >>> found.prepared.shapes, (found.width, found.height), found.cut
    (((3, 224, 224),), (640, 480), (320, 480))
    """
    decoded = decode(content, limits, scaled_side(wanted.min_side, wanted.region))
    cut = raster(crop(decoded.image, wanted.region) if wanted.region else decoded.image)
    return PreparedPicture(
        Prepared(tuple(_prepared(cut, how, wanted.whole) for how in wanted.hows)),
        decoded.width,
        decoded.height,
        cut.size,
        thumbnail(decoded.image if wanted.region else cut) if wanted.thumbnail else None,
    )


def _prepared(cut: Raster, how: Preprocessing, whole: int | None) -> Pixels:
    return prepare_whole(cut, how, whole) if whole else prepare(cut, how)


def scaled_side(min_side: int, region: Region | None) -> int:
    """How long a whole picture's shorter side must stay so that `region` of it keeps `min_side`."""
    if region is None:
        return min_side
    share = min(region[2] - region[0], region[3] - region[1])
    return round(min_side / max(share, 0.01))


def check_region(region: Region) -> None:
    """Raise PictureError: `picture-region-invalid`, unless 0 ≤ x0 < x1 ≤ 1 and 0 ≤ y0 < y1 ≤ 1."""
    x0, y0, x1, y1 = region
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise PictureError(
            "picture-region-invalid",
            f"region {list(region)} is not x0, y0, x1, y1 with 0 ≤ x0 < x1 ≤ 1 and 0 ≤ y0 < y1 ≤ 1",
        )


def crop(picture: Image.Image, region: Region) -> Image.Image:
    """Cut a region out, at least one pixel large. Raises PictureError: `picture-region-invalid`."""
    check_region(region)
    x0, y0, x1, y1 = region
    width, height = picture.size
    left, top = min(int(x0 * width), width - 1), min(int(y0 * height), height - 1)
    right, bottom = max(round(x1 * width), left + 1), max(round(y1 * height), top + 1)
    return picture.crop((left, top, right, bottom))
