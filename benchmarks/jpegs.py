"""Real JPEGs in any number: crops and scales of the photographs, different for every number."""

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.sets import files
from tests.pictures import picture

SMALL = (816, 612)
"""Width and height of half a megapixel."""

LARGE = (4000, 3000)
"""12 megapixels, as telephones take them."""

FOLDERS = ("scenes", "clothing", "packages")


def jpegs(count: int, size: tuple[int, int], seed: int = 0) -> Iterator[bytes]:
    """So many JPEGs of this size: random crops of a photograph each, at qualities of 80 to 95.

    Where there are no photographs they are smooth noise, which decodes faster.
    """
    rng = np.random.default_rng([seed, *size])
    for number in range(count):
        source = _source(int(rng.integers(2**31)), large=max(size) > 1600)
        share = rng.uniform(0.6, 1.0)
        width, height = (round(side * share) for side in source.size)
        left = int(rng.integers(source.width - width + 1))
        top = int(rng.integers(source.height - height + 1))
        cut = source.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        jpeg = io.BytesIO()
        cut.save(jpeg, "JPEG", quality=int(rng.integers(80, 96)))
        # Two crops that happen to be equal are two pictures nevertheless.
        yield jpeg.getvalue() + number.to_bytes(4, "big")


def fill(folder: Path, count: int, size: tuple[int, int], seed: int = 0) -> None:
    """The same as files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(jpegs(count, size, seed)):
        (folder / f"{number:06}.jpg").write_bytes(content)


def _source(number: int, *, large: bool) -> Image.Image:
    paths = _paths(large=large)
    if not paths:
        return picture(number % 64, (1600, 1200))
    return _opened(paths[number % len(paths)], large=large)


@cache
def _paths(*, large: bool) -> list[Path]:
    """A large picture is made of a large one: a small one has nothing to decode at that size."""
    return [path for folder in FOLDERS[: 1 if large else None] for path in files(folder)]


@cache
def _opened(path: Path, *, large: bool) -> Image.Image:
    opened = Image.open(path)
    if not large:
        opened.draft("RGB", (1600, 1200))
    return opened.convert("RGB")
