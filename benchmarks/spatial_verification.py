"""Does spatial verification put every picture of a place before all others?

    python -m benchmarks.spatial_verification ../shared/images ../shared/weights --side 768

Every photograph of `scenes` is searched for among the others and all `packages`: by cosine alone,
then with the short list verified, as the service does where it keeps originals (descriptors of the
centre crop, local descriptors of the whole picture). Writes
`benchmarks/results/spatial_verification_<side>.json`.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from index.ranking.spatial import TOLERANCE, Verification, reranked, verify
from models import Extractor, WeightsFolder, decode
from models.local import LocalDescriptors, local_descriptors

NETWORK = "squeezenet1_1"
SPEC, LAYER = f"{NETWORK}/high", f"{NETWORK}/fire7"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--side", type=int, default=768)
    given = parser.parse_args()
    scenes = sorted((given.images / "scenes").rglob("*.jpg"))
    others = sorted(path for path in (given.images / "packages").rglob("*") if path.is_file())
    pictures = scenes + others
    labels = [path.parent.name for path in pictures]
    started = time.perf_counter()
    vectors, parts = looked_at(pictures, given.weights, given.side)
    looked = time.perf_counter() - started
    scores = vectors @ vectors.T
    asked = Verification()
    counts: dict[bool, list[int]] = {True: [], False: []}
    plain, verified = [], []
    started = time.perf_counter()
    for at in range(len(scenes)):
        order = [n for n in np.argsort(-scores[at], kind="stable").tolist() if n != at]
        short = order[: asked.n]
        inliers = [matched(parts[at], parts[n]) for n in short]
        for n, count in zip(short, inliers, strict=True):
            counts[labels[n] == labels[at]].append(count)
        places = reranked(inliers, asked.inliers)
        plain.append([labels[n] == labels[at] for n in order])
        verified.append(
            [labels[n] == labels[at] for n in [*(short[p] for p in places), *order[asked.n :]]]
        )
    seconds = time.perf_counter() - started
    result = {
        "layer": LAYER,
        "spec": SPEC,
        "side": given.side,
        "tolerance": TOLERANCE,
        "short_list": asked.n,
        "fewest_inliers": asked.inliers,
        "queries": len(scenes),
        "gallery": len(pictures) - 1,
        "cosine": measured(plain),
        "verified": measured(verified),
        "inliers_same_place": np.percentile(counts[True], [5, 50, 95]).tolist(),
        "inliers_other": np.percentile(counts[False], [50, 95, 100]).tolist(),
        "ms_per_pair": round(seconds * 1000 / len(scenes) / asked.n, 2),
        "ms_per_picture": round(looked * 1000 / len(pictures), 1),
    }
    path = Path(__file__).parent / "results" / f"spatial_verification_{given.side}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def looked_at(
    pictures: Sequence[Path], weights: Path, side: int
) -> tuple[np.ndarray, list[LocalDescriptors]]:
    """Descriptors of the centre crops, and local descriptors of the whole pictures."""
    with tempfile.TemporaryDirectory() as folder:  # Hashes are noted beside weights.
        shutil.copy(weights / f"{NETWORK}.pth", folder)
        chosen = {"weights": f"{NETWORK}.pth", "folder": WeightsFolder(Path(folder))}
        whole = Extractor(SPEC, device="cpu", **chosen)
        local = Extractor(f"{LAYER}/spoc", device="cpu", **chosen)
    vectors, parts = [], []
    for path in pictures:
        image = decode(path.read_bytes(), min_side=max(side, whole.min_side)).image
        vectors.append(whole.forward([whole.prepare(image)])[""][0])
        grid = local.forward([local.prepare_whole(image, side)], [LAYER])[LAYER][0]
        parts.append(local_descriptors(grid, *image.size))
    return np.stack(vectors), parts


def matched(one: LocalDescriptors, other: LocalDescriptors) -> int:
    return verify((one.vectors, one.positions), (other.vectors, other.positions)).inliers


def measured(rankings: Sequence[Sequence[bool]]) -> dict[str, float]:
    """In how many rankings all relevant come first, and their mean average precision."""
    first = sum(all(ranking[: sum(ranking)]) for ranking in rankings)
    precisions = []
    for ranking in rankings:
        places = np.flatnonzero(ranking)
        precisions.append(np.mean((np.arange(len(places)) + 1) / (places + 1)))
    return {"all_first": first, "map": round(float(np.mean(precisions)), 4)}


if __name__ == "__main__":
    main()
