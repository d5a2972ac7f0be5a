"""Small pictures for tests, different for every seed and the same at every call."""

import io

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Smooth coloured noise: two seeds are far apart for any network."""
    rng = np.random.default_rng(seed)
    grid = rng.integers(0, 256, (rng.integers(3, 12), rng.integers(3, 12), 3)).astype(np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)


def encoded(seed: int, form: str = "PNG", size: tuple[int, int] = (160, 120)) -> bytes:
    """The same as a file's content."""
    buffer = io.BytesIO()
    picture(seed, size).save(buffer, form)
    return buffer.getvalue()
