"""An upright RGB picture -> a small JPEG that says nothing but its pixels."""

import io

from PIL import Image

from models.resize import Raster, raster


def thumbnail(picture: Image.Image | Raster, side: int = 320) -> bytes:
    """JPEG of at most `side` × `side` pixels in the picture's proportions; never enlarged.

    EXIF (with it the place a photograph was taken), XMP and ICC profiles are left out.

    >>> small = thumbnail(Image.new("RGB", (640, 480)))
    >>> Image.open(io.BytesIO(small)).size
    (320, 240)
    """
    source = raster(picture) if isinstance(picture, Image.Image) else picture
    scale = min(1.0, side / max(source.size))
    width, height = (max(1, round(length * scale)) for length in source.size)
    pixels = source.resized((width, height), "bilinear")
    small = Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=80)
    return jpeg.getvalue()
