"""An upright RGB picture -> a small WebP that says nothing but its pixels."""

import io

from PIL import Image


def thumbnail(image: Image.Image, side: int = 320) -> bytes:
    """WebP of at most `side` × `side` pixels in the picture's proportions; never enlarged.

    EXIF (with it the place a photograph was taken), XMP and ICC profiles are left out.

    >>> small = thumbnail(Image.new("RGB", (640, 480)))
    >>> Image.open(io.BytesIO(small)).size
    (320, 240)
    """
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    small.info = {}  # what a plugin might take metadata from
    webp = io.BytesIO()
    small.save(webp, "WEBP", quality=80)
    return webp.getvalue()
