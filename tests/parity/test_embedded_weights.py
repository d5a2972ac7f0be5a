"""What the embedded weights promise, on photographs that they were never trained on."""

from pathlib import Path

import numpy as np
import pytest

from index.evaluation import evaluate, leave_one_out
from index.evaluation.groundtruth import PLAIN, by_labels
from models import Extractor, WeightsFolder


def described(folder: Path) -> tuple[np.ndarray, list[str]]:
    """By the spec that a collection on these weights gets as `high`."""
    spec = WeightsFolder(offline=True).resolve("alexnet", "embedded").best_spec
    files = sorted(folder.rglob("*.jpg"))
    extractor = Extractor(spec, weights="embedded", device="cpu")
    return np.asarray(extractor.describe(files)), [str(file.parent) for file in files]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "at_least"), [("clothing", 0.22), ("packages", 0.50)])
def test_they_find_what_is_alike(shared_images: Path, name: str, at_least: float) -> None:
    assert leave_one_out(*described(shared_images / name)).mean("mAP-steps") >= at_least


@pytest.mark.slow
def test_they_find_places_among_distractors(shared_images: Path) -> None:
    scenes, places = described(shared_images / "scenes")
    packages, products = described(shared_images / "packages")
    gallery, labels = np.concatenate([scenes, packages]), places + products
    truth = by_labels("scenes", [str(n) for n in range(len(gallery))], labels)
    asking = np.arange(len(gallery)) < len(scenes)
    truth = truth.restricted(np.ones(len(gallery), dtype=bool), asking)
    assert evaluate(scenes, gallery, truth)[PLAIN].mean("mAP-steps") >= 0.97
