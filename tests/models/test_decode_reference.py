"""Decoding at a reduced scale gives the descriptors of a full decode and torchvision's preset."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms._presets import ImageClassification

from models import Extractor, Limits, Prepared, WeightsFolder, prepare_picture
from tests.pictures import encoded

LEAST = 0.999
SIZES = [(1067, 694), (694, 1067), (1068, 694), (1024, 768), (445, 445), (1600, 1200)]
MODELS = {
    "alexnet": ("alexnet/conv5/gem", "embedded"),
    "mobilenet_v2": ("mobilenet_v2/features.18/gem", "mobilenet_v2.pth"),
}


def cosines(extractor: Extractor, contents: list[bytes]) -> list[float]:
    """Of the descriptors by this project's way and by the reference's, picture by picture."""
    wanted = extractor.preparation()
    (how,) = wanted.hows
    preset = ImageClassification(
        crop_size=how.crop, resize_size=how.resize, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    ours, theirs = [], []
    for content in contents:
        ours.append(prepare_picture(content, Limits(), wanted).prepared)
        whole = preset(Image.open(io.BytesIO(content)).convert("RGB"))
        theirs.append(Prepared(((whole * 255).round().to(torch.uint8).numpy(),)))
    found, expected = (extractor.forward(each)[""] for each in (ours, theirs))
    return [float(value) for value in (found * expected).sum(axis=1)]


def test_pictures_of_any_proportions() -> None:
    spec, weights = MODELS["alexnet"]
    contents = [encoded(seed, "JPEG", size) for seed, size in enumerate(SIZES)]
    assert min(cosines(Extractor(spec, weights=weights), contents)) >= LEAST


@pytest.mark.parametrize("network", MODELS)
def test_photographs(network: str, shared_images: Path, shared_weights: Path) -> None:
    spec, weights = MODELS[network]
    folder = WeightsFolder(shared_weights, offline=True)
    paths = sorted((shared_images / "scenes" / "sacre_coeur").glob("*.jpg"))[:5]
    paths += sorted((shared_images / "clothing").rglob("*.jpg"))[::80]
    contents = [path.read_bytes() for path in paths]
    assert min(cosines(Extractor(spec, weights=weights, folder=folder), contents)) >= LEAST
