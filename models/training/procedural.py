"""Procedural pictures in families: picture n of a family is always picture n.

`render_gallery` makes the demonstration gallery of them; nothing is collected from anywhere.
"""

import multiprocessing
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.training.families import fractals, marks, patterns, scenes, textures

_WORTH_PROCESSES = 64
"""Pictures whose drawing takes longer than processes take to start."""

Family = Callable[[np.random.Generator, int], NDArray[np.uint8]]

# Each: (generator, side in pixels) -> (side, side, 3) sRGB.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "blocks": scenes.blocks,
        "blossoms": fractals.blossoms,
        "clouds": textures.clouds,
        "corals": textures.corals,
        "dunes": textures.dunes,
        "ferns": fractals.ferns,
        "flames": fractals.flames,
        "glass": patterns.glass,
        "glyphs": marks.glyphs,
        "leaves": patterns.leaves,
        "marble": textures.marble,
        "planets": scenes.planets,
        "ridges": scenes.ridges,
        "spheres": scenes.spheres,
        "strokes": marks.strokes,
        "tiles": patterns.tiles,
        "trees": fractals.trees,
        "weaves": patterns.weaves,
    }
)


def picture(family: str, n: int, side: int = 320) -> Image.Image:
    """Picture n of a family, side × side RGB; KeyError for a family that FAMILIES has not.

    The random numbers depend on the family's name and n alone, so that a new family changes no
    old picture. Another machine's floating point may differ in the last bit of a pixel, and in
    single points of the chaotic orbits of ferns and flames.

    >>> picture("dunes", 3, side=64).size
    (64, 64)
    >>> picture("dunes", 3, side=64) == picture("dunes", 3, side=64)
    True
    """
    rng = np.random.Generator(np.random.PCG64([zlib.crc32(family.encode()), n]))
    return Image.fromarray(FAMILIES[family](rng, side))


def gallery_names(count: int) -> list[tuple[str, int]]:
    """The first `count` pictures of the gallery: families in turn, numbers rising.

    >>> gallery_names(2)
    [('blocks', 0), ('blossoms', 0)]
    """
    families = list(FAMILIES)
    return [(families[index % len(families)], index // len(families)) for index in range(count)]


def render_gallery(
    folder: Path,
    count: int = 300,
    side: int = 320,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `family/family-007.jpg` below `folder` and return the paths; those there are kept.

    `progress` is called with (written or found, count) as they come. Every file is written aside
    and renamed, so that a render that was cut off leaves no half picture and goes on. Many
    pictures are drawn in as many processes as there are processors.
    """
    named = {
        folder / family / f"{family}-{n:03d}.jpg": (family, n) for family, n in gallery_names(count)
    }
    missing = [path for path in named if not path.exists()]
    drawing = [(path, *named[path], side) for path in missing]
    if progress is not None:
        progress(count - len(missing), count)
    with _drawers(len(missing)) as each:
        for done, _ in enumerate(each(_draw, drawing), start=count - len(missing) + 1):
            if progress is not None:
                progress(done, count)
    return list(named)


@contextmanager
def _drawers(count: int) -> Iterator[Callable[..., Iterable[None]]]:
    """`map`, in other processes where the work is worth starting them."""
    if count < _WORTH_PROCESSES:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        yield partial(pool.map, chunksize=4)


def _draw(what: tuple[Path, str, int, int]) -> None:
    path, family, n, side = what
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    picture(family, n, side).save(aside, "JPEG", quality=90, subsampling=0)
    aside.replace(path)
