"""A million descriptors to search among: clustered ones, and those of real pictures augmented.

    python -m benchmarks.vectors FOLDER [--items 1000000]

Each set is a folder with `gallery.npy` (n×512 float16), `queries.npy` (q×512 float32) and
`nearest.npy` (q×10, the exact answer by brute force). Uniform noise is none of them: it has no
neighbours to find, and an index that fails on it would serve pictures well.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.sets import SHARED
from models import Extractor, WeightsFolder

Vectors = npt.NDArray[np.float32]

DIM = 512
QUERIES = 1_000
NEAREST = 10
CHUNK = 50_000

CLUSTERS = 20_000
RANK = 24
"""Directions in which the members of one cluster differ: descriptors lie on thin sheets."""
SPREAD = 0.9

VIEWS = 24
"""Crops of every photograph that are described by the network itself."""
JITTER = 0.25
"""Noise on what lies between two views, of the length of the step between them."""


def clustered(items: int, seed: int = 1) -> Iterator[Vectors]:
    """Unit vectors around centres that lie close to each other; sizes follow a power law."""
    rng = np.random.default_rng(seed)
    # The centres themselves are correlated, as classes of pictures are.
    basis = rng.standard_normal((64, DIM), dtype=np.float32)
    centres = _unit(rng.standard_normal((CLUSTERS, 64), dtype=np.float32) @ basis)
    sheets = rng.standard_normal((256, RANK, DIM), dtype=np.float32) / np.sqrt(RANK * DIM)
    shares = (np.arange(CLUSTERS) + 10.0) ** -0.8
    shares /= shares.sum()
    for size in _sizes(items):
        of = rng.choice(CLUSTERS, size, p=shares)
        within = rng.standard_normal((size, RANK), dtype=np.float32)
        rows = centres[of]
        for sheet in range(len(sheets)):
            mine = np.flatnonzero(of % len(sheets) == sheet)
            rows[mine] += SPREAD * within[mine] @ sheets[sheet]
        yield _unit(rows)


def pictured(items: int, seed: int = 2) -> Iterator[Vectors]:
    """SqueezeNet's descriptors of crops of every photograph, and points between two such views.

    A new item lies between two views of one photograph, or of two photographs that are alike, as
    another picture of the same things would, with some noise.
    """
    rng = np.random.default_rng(seed)
    views = _views(rng)
    _, near = _exact(views, views, 33)
    for size in _sizes(items):
        at = rng.integers(len(views), size=size)
        other = near[at, rng.integers(1, near.shape[1], size)]
        along = rng.random((size, 1), dtype=np.float32)
        step = views[other] - views[at]
        noise = _unit(rng.standard_normal((size, DIM), dtype=np.float32))
        length = np.linalg.norm(step, axis=1, keepdims=True)
        yield _unit(np.maximum(views[at] + along * step + JITTER * length * noise, 0))


def _views(rng: np.random.Generator) -> Vectors:
    extractor = Extractor(
        {"high": "squeezenet1_1/features.12/spoc"},
        weights="squeezenet1_1.pth",
        folder=WeightsFolder(SHARED / "weights", offline=True),
    )
    described = []
    for path in sorted((SHARED / "images").rglob("*.jpg")):
        if "odd" in path.parts:
            continue
        with Image.open(path) as opened:
            opened.draft("RGB", (640, 640))
            picture = opened.convert("RGB")
        picture.thumbnail((320, 320))
        crops = [_crop(picture, rng) for _ in range(VIEWS)]
        prepared = [extractor.prepare(crop) for crop in crops]
        described.append(extractor.forward(prepared)["high"])
    return np.concatenate(described)


def _crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.35, 1.0)
    width, height = round(picture.width * share), round(picture.height * share)
    left = rng.integers(picture.width - width + 1)
    top = rng.integers(picture.height - height + 1)
    crop = picture.crop((left, top, left + width, top + height))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _exact(gallery: Vectors, queries: Vectors, k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
    found: tuple[Vectors, npt.NDArray[np.int64]] = faiss.knn(
        queries, gallery, k, metric=faiss.METRIC_INNER_PRODUCT
    )
    return found


def _sizes(items: int) -> Iterator[int]:
    for start in range(0, items, CHUNK):
        yield min(CHUNK, items - start)


def _unit(rows: Vectors) -> Vectors:
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


SETS = {"clustered": clustered, "pictured": pictured}


def write(name: str, folder: Path, items: int) -> None:
    """Make one set; the queries are drawn like the items, and are none of them."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = SETS[name](items + QUERIES)
    gallery = np.lib.format.open_memmap(
        folder / "gallery.npy", "w+", dtype=np.float16, shape=(items, DIM)
    )
    best = np.full((QUERIES, NEAREST), -np.inf, dtype=np.float32)
    keys = np.full((QUERIES, NEAREST), -1, dtype=np.int64)
    first = next(chunks)
    queries, rest = first[:QUERIES], first[QUERIES:]
    np.save(folder / "queries.npy", queries)
    filled = 0
    while rest is not None:
        stored = rest.astype(np.float16)
        gallery[filled : filled + len(rest)] = stored
        scores, found = _exact(stored.astype(np.float32), queries, NEAREST)
        both = np.concatenate([best, scores], axis=1)
        ids = np.concatenate([keys, found + filled], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :NEAREST]
        best = np.take_along_axis(both, order, axis=1)
        keys = np.take_along_axis(ids, order, axis=1)
        filled += len(rest)
        rest = next(chunks, None)
    gallery.flush()
    np.save(folder / "nearest.npy", keys)
    print(f"{name}: {filled} items, 10th score {np.median(best[:, -1]):.3f}")


def main() -> None:
    """Write both sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    given = parser.parse_args()
    for name in SETS:
        write(name, given.folder / name, given.items)


if __name__ == "__main__":
    main()
