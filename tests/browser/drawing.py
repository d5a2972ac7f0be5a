"""Pictures that look different: three patterns in ten colours each."""

import colorsys
import io
import zipfile
from collections.abc import Iterable

from PIL import Image, ImageDraw

SIZES = ((160, 160), (200, 140), (130, 190))
HUES = 10


def drawn(pattern: str, hue: float, size: tuple[int, int]) -> Image.Image:
    """`discs`, `stripes` or `checks` in a hue of 0…1 on white."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    colour = tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.75, 0.85))
    width, height = size
    for row, y in enumerate(range(0, height, 20)):
        for column, x in enumerate(range(0, width, 20)):
            if pattern == "discs":
                draw.ellipse((x + 3, y + 3, x + 16, y + 16), fill=colour)
            elif (column if pattern == "stripes" else row + column) % 2:
                draw.rectangle((x, y, x + 19, y + 19), fill=colour)
    return image


def gallery() -> dict[str, Image.Image]:
    """Thirty pictures by file name, `discs-0.png` to `stripes-9.png`."""
    return {
        f"{pattern}-{n}.png": drawn(pattern, n / HUES, size)
        for pattern, size in zip(("checks", "discs", "stripes"), SIZES, strict=True)
        for n in range(HUES)
    }


def archive(count: int, broken: Iterable[str] = ()) -> bytes:
    """A zip of `count` different small pictures and of files that only pretend to be some."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as members:
        for n in range(count):
            picture = io.BytesIO()
            Image.new("RGB", (64, 64), (n % 256, n // 256, 128)).save(picture, "PNG")
            members.writestr(f"plain/{n:04}.png", picture.getvalue())
        for name in broken:
            members.writestr(name, b"not a picture")
    return packed.getvalue()
