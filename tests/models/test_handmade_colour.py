"""Colour histograms against a plain count, and against the ranking that plain counts give."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageOps

from models import Extractor
from models.errors import WeightsError
from models.geometry import layers
from models.handmade import Colour
from models.weights import WeightsFolder
from tests.pictures import picture

Pixels = npt.NDArray[np.uint8]


def counted(pixels: Pixels) -> npt.NDArray[np.float64]:
    """H×W×3 to the share of each of 8³ colours, one pixel at a time."""
    shares = np.zeros(512)
    for red, green, blue in pixels.reshape(-1, 3).tolist():
        shares[red // 32 * 64 + green // 32 * 8 + blue // 32] += 1
    return shares / shares.sum()


def centre(image: Image.Image) -> Pixels:
    """Resize to 256, crop 224: written with Pillow alone."""
    scale = 256 / min(image.size)
    width, height = (int(length * scale) for length in image.size)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    return np.asarray(scaled.crop((left, top, left + 224, top + 224)))


def test_a_cell_holds_the_share_of_every_colour() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    x = torch.from_numpy(pixels).movedim(2, 0)[None].float()
    grid = Colour()(x)["rgb8"][0].numpy()
    assert grid.shape == (512, 2, 3)
    for row in range(2):
        for column in range(3):
            cell = pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            np.testing.assert_allclose(grid[:, row, column], counted(cell), atol=1e-7)


def test_the_descriptor_is_the_square_root_of_the_histogram() -> None:
    image = picture(4, (320, 240))
    described = np.asarray(Extractor("colour/rgb8").describe([image]))[0]
    plain = np.sqrt(counted(centre(image)))
    assert np.linalg.norm(described) == pytest.approx(1, abs=1e-6)
    assert float(described @ plain) == pytest.approx(1, abs=1e-3)  # pixels may differ by one level


def test_the_layer_is_described_as_it_is() -> None:
    layer = layers("colour")["rgb8"]
    assert (layer.channels, layer.height, layer.width) == (512, 14, 14)
    assert (layer.stride, layer.receptive_field, layer.pooling) == (16, 16, "hellinger")


def test_colour_needs_no_weights_and_takes_none(tmp_path: Path) -> None:
    folder = WeightsFolder(tmp_path / "absent", offline=True)
    found = folder.resolve("colour")
    assert (found.name, found.path, found.notice) == ("none", None, None)
    assert folder.resolve("colour", found.name, found.sha256) == found
    assert folder.pull("colour") == found
    assert folder.at_hand("colour") == ["none"]
    for choice in ("untrained", "embedded", "imagenet1k_v1", "colour.pth", "x.pth:caffe"):
        with pytest.raises(WeightsError, match="at hand: none") as refused:
            folder.resolve("colour", choice)
        assert refused.value.code == "weights-unknown"


def average_precision(scores: npt.NDArray[np.float64], classes: npt.NDArray[np.str_]) -> float:
    """Leave-one-out mAP: every row asks, the others answer."""
    found = []
    for query, row in enumerate(scores):
        order = [other for other in np.argsort(-row, kind="stable") if other != query]
        ranks = np.flatnonzero(classes[order] == classes[query]) + 1
        found.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return float(np.mean(found))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("clothing", 0.146), ("packages", 0.508)])
def test_accuracy_is_that_of_plain_histograms(
    shared_images: Path, name: str, expected: float
) -> None:
    files = sorted((shared_images / name).glob("*/*.jpg"))
    classes = np.array([file.parent.name for file in files])
    rows = []
    for file in files:
        with Image.open(file) as opened:
            pixels = centre(ImageOps.exif_transpose(opened).convert("RGB")) // 32
        colours = pixels.reshape(-1, 3).astype(int) @ [64, 8, 1]
        rows.append(np.sqrt(np.bincount(colours, minlength=512) / len(colours)))
    plain = np.stack(rows)
    described = np.asarray(Extractor("colour/rgb8").describe(files))
    ours = average_precision(described @ described.T, classes)
    assert ours == pytest.approx(average_precision(plain @ plain.T, classes), abs=0.003)
    assert ours == pytest.approx(expected, abs=0.003)
