"""Procedural pictures in families: picture n of a family is always picture n.

`render_gallery` makes the demonstration gallery of them; nothing is collected from anywhere.
"""

import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.training.families import fractals, marks, patterns, scenes, textures

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

    `progress` is called with (written or found, count) after each. Every file is written aside
    and renamed, so that a render that was cut off leaves no half picture and goes on.
    """
    paths = []
    for done, (family, n) in enumerate(gallery_names(count), start=1):
        path = folder / family / f"{family}-{n:03d}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.{os.getpid()}")
            picture(family, n, side).save(aside, "JPEG", quality=90, subsampling=0)
            aside.replace(path)
        paths.append(path)
        if progress is not None:
            progress(done, count)
    return paths
