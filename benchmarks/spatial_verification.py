"""What spatial verification gains: each photograph of three places among the others and packages.

    python -m benchmarks.spatial_verification

The scenes of `benchmarks.sets` by cosine alone, then with the short list verified as the service
does where it keeps originals: descriptors of the centre crop, local descriptors of the whole
picture. Writes `benchmarks/results/spatial_verification.json`.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.sets import MEASURE, RESULTS, SETS, SHARED, files, interval, machine, truth
from index.evaluation import evaluation
from index.evaluation.groundtruth import PLAIN
from index.ranking.spatial import TOLERANCE, Verification, reranked, verify
from models import Extractor, WeightsFolder, decode
from models.geometry import layers
from models.local import LocalDescriptors, local_descriptors
from models.region import reached

NETWORK, LAYER = "squeezenet1_1", "fire7"
SPECS = {"global": f"{NETWORK}/high", "local": f"{NETWORK}/{LAYER}/spoc"}
SET = "scenes"
SIDES = (320, 512, 768)

Order = npt.NDArray[np.int64]
"""Of the whole gallery, best first."""


def main() -> None:
    torch.set_num_threads(1)
    paths = [path for part in SETS[SET] for path in files(part)]
    asking = len(files(SET))
    extractor = loaded()
    vectors = described(extractor, paths)
    cosines = vectors[:asking] @ vectors.T
    np.fill_diagonal(cosines, np.inf)
    plain = np.argsort(-cosines, axis=1, kind="stable")  # first the query itself, which is junk
    asked = Verification()
    report: dict[str, Any] = {
        "benchmark": "spatial_verification",
        **machine(),
        "specs": SPECS,
        "tolerance": TOLERANCE,
        "short_list": asked.n,
        "fewest_inliers": asked.inliers,
        "queries": asking,
        "gallery": len(paths) - 1,
        "cosine": measured(plain),
        "verified": {},
    }
    for side in SIDES:
        started = time.process_time()
        parts = [looked_at(extractor, path, side) for path in paths]
        looked = time.process_time()
        counts = [
            [matched(parts[at], parts[n]) for n in order[1 : asked.n + 1]]
            for at, order in enumerate(plain)
        ]
        ended = time.process_time()
        report["verified"][side] = {
            **measured([anew(*one, asked.inliers) for one in zip(plain, counts, strict=True)]),
            "inliers": chance(paths, plain, counts),
            "ms_per_picture": round((looked - started) * 1000 / len(paths), 1),
            "ms_per_pair": round((ended - looked) * 1000 / asking / asked.n, 2),
        }
    text = json.dumps(report, indent=2)
    (RESULTS / "spatial_verification.json").write_text(text + "\n")
    print(text)


def loaded() -> Extractor:
    with tempfile.TemporaryDirectory() as folder:  # Hashes are noted beside weights.
        shutil.copy(SHARED / "weights" / f"{NETWORK}.pth", folder)
        weights = {NETWORK: f"{NETWORK}.pth"}
        return Extractor(SPECS, weights=weights, folder=WeightsFolder(Path(folder)), device="cpu")


def described(extractor: Extractor, paths: Sequence[Path]) -> npt.NDArray[np.float32]:
    """Global descriptors, n×D, as they are indexed."""
    found = extractor.describe(paths)
    assert isinstance(found, dict)
    return found["global"]


def looked_at(extractor: Extractor, path: Path, side: int) -> LocalDescriptors:
    """Local descriptors of a whole picture."""
    image = decode(path.read_bytes(), min_side=side).image
    prepared = extractor.prepare_whole(image, side)
    name = f"{NETWORK}/{LAYER}"
    grid = extractor.forward([prepared], [name])[name][0]
    height, width = prepared.pixels[0].shape[1:]
    stride = layers(NETWORK)[LAYER].stride or 1
    cover = reached(height, width, *grid.shape[1:], stride)
    return local_descriptors(grid, *image.size, cover)


def matched(one: LocalDescriptors, other: LocalDescriptors) -> int:
    return verify((one.vectors, one.positions), (other.vectors, other.positions)).inliers


def anew(order: Order, inliers: Sequence[int], fewest: int) -> Order:
    """A ranking whose verified ones come first; the query itself stays before them."""
    itself, short, rest = np.split(order, [1, len(inliers) + 1])
    return np.concatenate([itself, short[reranked(inliers, fewest)], rest])


def measured(rankings: Sequence[Order]) -> dict[str, Any]:
    """The measure that is quoted, and in how many rankings all of the same place come first."""
    found = evaluation.measured(rankings, truth(SET))[PLAIN]
    return {
        "all_first": int((found.values[MEASURE] == 1).sum()),
        "map": round(found.mean(MEASURE), 4),
        "interval": interval(found),
    }


def chance(
    paths: Sequence[Path], rankings: Sequence[Order], counts: Sequence[Sequence[int]]
) -> dict[str, list[float]]:
    """Inliers of pairs of one place at 5, 50 and 95 %, and of others at 50, 95 and 100 %."""
    found: dict[bool, list[int]] = {True: [], False: []}
    for at, counted in enumerate(counts):
        for n, count in zip(rankings[at][1:], counted, strict=False):
            found[paths[at].parent == paths[n].parent].append(count)
    return {
        "same": np.percentile(found[True], [5, 50, 95]).tolist(),
        "other": np.percentile(found[False], [50, 95, 100]).tolist(),
    }


if __name__ == "__main__":
    main()
