"""Dense RootSIFT, residuals and counts, each against plain loops."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from models import Extractor, zoo
from models.activations import truncate
from models.download import hash_of
from models.embedded import EMBEDDED
from models.errors import SpecError, WeightsError
from models.geometry import layers
from models.handmade import sift
from models.preprocess import prepare
from models.spec import fingerprint, parse
from models.trunk import Trunk
from models.weights import WeightsFolder, load_parameters
from tests.pictures import picture

Rows = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def vocabulary() -> dict[str, Rows]:
    weights = WeightsFolder(offline=True).resolve("sift")
    shapes = {name: x.shape for name, x in sift.Sift().state_dict().items()}
    return {name: x.numpy() for name, x in load_parameters(weights, shapes).items()}


def textured(seed: int = 3) -> Image.Image:
    """A picture with detail at several scales; its lower right quarter is of one colour."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (n, n, 3)).astype(np.uint8)).resize((320, 320))
        for n in (12, 40, 90)
    ]
    mixed = np.mean([np.asarray(layer, dtype=np.float64) for layer in layers], axis=0)
    mixed[160:, 160:] = (10, 120, 200)
    return Image.fromarray(mixed.astype(np.uint8))


def pixels_of(image: Image.Image) -> torch.Tensor:
    how = WeightsFolder(offline=True).resolve("sift").preprocessing
    return torch.from_numpy(prepare(image, how))


def projected(
    image: Image.Image, vocabulary: dict[str, Rows]
) -> tuple[Rows, npt.NDArray[np.int64]]:
    found, centres = sift.describe(sift.grey(pixels_of(image)))
    return (found - vocabulary["local.mean"]) @ vocabulary["local.projection"], centres


def closest(x: Rows, words: Rows) -> int:
    return min(range(len(words)), key=lambda n: float(((x - words[n]) ** 2).sum()))


def loop_vlad(descriptors: Rows, words: Rows) -> list[float]:
    """Residuals of length 1, summed by word; intra-normalised; √|z| with its sign; L2."""
    sums = [[0.0] * words.shape[1] for _ in words]
    for x in descriptors:
        word = closest(x, words)
        residual = [float(a) - float(b) for a, b in zip(x, words[word], strict=True)]
        length = math.sqrt(sum(r * r for r in residual))
        sums[word] = [s + r / length for s, r in zip(sums[word], residual, strict=True)]
    powered = []
    for block in sums:
        length = math.sqrt(sum(z * z for z in block)) or 1.0
        powered += [math.copysign(math.sqrt(abs(z / length)), z) for z in block]
    length = math.sqrt(sum(z * z for z in powered))
    return [z / length for z in powered]


def test_rootsift_is_the_square_root_of_l1_normalised_sift() -> None:
    grey = sift.grey(pixels_of(textured()))
    found, centres = sift.describe(grey)
    at = int(np.flatnonzero((centres == (100, 92)).all(axis=1))[0])
    keypoint = cv2.KeyPoint(92.0, 100.0, sift.SIZE, 0.0)
    raw = cv2.SIFT.create().compute(grey, [keypoint])[1][0]
    expected = [math.sqrt(value / sum(raw.tolist())) for value in raw.tolist()]
    np.testing.assert_allclose(found[at], expected, atol=1e-6)
    np.testing.assert_allclose((found**2).sum(axis=1), 1, atol=1e-5)


def test_no_window_leaves_the_picture_or_is_without_contrast() -> None:
    found, centres = sift.describe(sift.grey(pixels_of(textured())))
    assert len(found) == len(centres) > 1000
    assert centres.min() >= sift.REACH
    assert centres.max() <= 320 - sift.REACH
    inside_the_flat_quarter = (centres > 160 + 3 * sift.REACH).all(axis=1)
    assert not inside_the_flat_quarter.any()


def test_the_descriptor_is_vlad_by_loops(vocabulary: dict[str, Rows]) -> None:
    image = textured()
    described = np.asarray(Extractor("sift/vlad64").describe([image]))[0]
    expected = loop_vlad(projected(image, vocabulary)[0], vocabulary["vlad64.words"])
    assert described.shape == (4096,)
    np.testing.assert_allclose(described, expected, atol=1e-4)


def test_the_bag_of_words_is_counted_by_loops(vocabulary: dict[str, Rows]) -> None:
    image = textured()
    described = np.asarray(Extractor("sift/bow1024").describe([image]))[0]
    weighed = np.zeros(1024)
    for x in projected(image, vocabulary)[0]:
        word = closest(x, vocabulary["bow1024.words"])
        weighed[word] += vocabulary["bow1024.idf"][word]
    expected = np.sqrt(weighed)
    np.testing.assert_allclose(described, expected / np.linalg.norm(expected), atol=1e-4)


def test_a_box_of_cells_is_a_region(vocabulary: dict[str, Rows]) -> None:
    weights = WeightsFolder(offline=True).resolve("sift")
    trunk = Trunk(weights, ["vlad64"], torch.device("cpu"))
    grid = trunk(pixels_of(textured())[None])["vlad64"][0]
    descriptors, centres = projected(textured(), vocabulary)
    within = (centres[:, 0] >= 80) & (centres[:, 0] < 160) & (centres[:, 1] < 120)
    region = grid[:, 2:4, :3].sum(dim=(1, 2)).unflatten(0, (64, 64))
    blocks = torch.nn.functional.normalize(region, dim=1).flatten()
    powered = blocks.sign() * blocks.abs().sqrt()
    expected = loop_vlad(descriptors[within], vocabulary["vlad64.words"])
    np.testing.assert_allclose(powered / powered.norm(), expected, atol=1e-4)
    assert not grid[:, 6:, 6:].any()  # the flat quarter


def test_the_layers_are_described_as_they_are() -> None:
    found = layers("sift")
    for name, channels, pooling in (("vlad64", 4096, "vlad"), ("bow1024", 1024, "hellinger")):
        layer = found[name]
        assert (layer.channels, layer.height, layer.width) == (channels, 8, 8)
        assert (layer.stride, layer.pooling) == (sift.CELL, pooling)
        assert str(parse(f"sift/{name}")) == f"sift/{name}/{pooling}"
    assert str(parse("sift/high/pca128")) == "sift/vlad64/vlad/pca128"


def test_only_the_words_of_the_asked_layer_are_loaded() -> None:
    assert "bow1024.words" not in truncate("sift", ["vlad64"]).state_dict()
    assert "vlad64.words" not in truncate("sift", ["bow1024"]).state_dict()


def test_both_layers_come_from_one_pass_and_equal_those_alone() -> None:
    specs = {"vlad": "sift/vlad64", "bow": "sift/bow1024"}
    together = Extractor(specs).describe([textured()])
    assert isinstance(together, dict)
    for name, spec in specs.items():
        np.testing.assert_array_equal(together[name], Extractor(spec).describe([textured()]))


def test_a_picture_of_one_colour_has_a_zero_descriptor_and_never_nan() -> None:
    flat = Image.new("RGB", (300, 200), "teal")
    for spec in ("sift/vlad64", "sift/bow1024"):
        described = np.asarray(Extractor(spec).describe([flat, textured()]))
        assert not described[0].any()
        assert np.linalg.norm(described[1]) == pytest.approx(1, abs=1e-5)


def test_the_same_picture_gives_the_same_bits_in_any_thread_and_any_batch() -> None:
    extractor = Extractor("sift/vlad64")
    pictures = [textured(n) for n in range(3)] + [picture(1, (640, 480))]
    with ThreadPoolExecutor(4) as threads:
        alone = list(threads.map(lambda one: np.asarray(extractor.describe([one]))[0], pictures))
    np.testing.assert_array_equal(np.asarray(extractor.describe(pictures)), np.stack(alone))
    assert cv2.getNumThreads() == 1


def test_the_shipped_vocabulary_is_the_pinned_one_and_small(tmp_path: Path) -> None:
    shipped = EMBEDDED["sift"]
    assert hash_of(shipped.path) == shipped.sha256
    assert shipped.path.stat().st_size <= 1_500_000
    folder = WeightsFolder(tmp_path / "absent", offline=True)
    found = folder.resolve("sift")
    assert (found.name, found.sha256, found.notice) == ("embedded", shipped.sha256, None)
    assert folder.at_hand("sift") == ["embedded"]
    assert folder.pull("sift") == found


@pytest.mark.parametrize("choice", ["untrained", "imagenet1k_v1", "own.safetensors:caffe"])
def test_what_is_no_vocabulary_is_refused(tmp_path: Path, choice: str) -> None:
    with pytest.raises(WeightsError, match="at hand: embedded") as refused:
        WeightsFolder(tmp_path, offline=True).resolve("sift", choice)
    assert refused.value.code == "weights-unknown"


def test_a_fingerprint_counts_the_vocabulary_and_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    how = zoo.native_preprocessing(zoo.network("sift"))
    first = fingerprint(parse("sift/vlad64"), "a" * 64, how, None)
    assert fingerprint(parse("sift/vlad64"), "b" * 64, how, None) != first
    row = replace(zoo.NETWORKS["sift"], recipe="another")
    monkeypatch.setattr(zoo, "NETWORKS", {**zoo.NETWORKS, "sift": row})
    assert fingerprint(parse("sift/vlad64"), "a" * 64, how, None) != first


def test_vlad_is_refused_where_the_channels_are_not_its_words() -> None:
    with pytest.raises(SpecError, match="512 channels") as refused:
        parse("colour/rgb8/vlad(words=100)")
    assert refused.value.code == "spec-pooling-unfit"


@pytest.mark.slow
def test_several_views_of_a_place_are_found(shared_images: Path) -> None:
    files = sorted((shared_images / "scenes").glob("*/*.jpg"))
    places = np.array([file.parent.name for file in files])
    described = np.asarray(Extractor("sift/vlad64").describe(files))
    found = []
    for query, scores in enumerate(described @ described.T):
        order = [other for other in np.argsort(-scores, kind="stable") if other != query]
        ranks = np.flatnonzero(places[order] == places[query]) + 1
        found.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    assert len(files) == 25
    assert np.mean(found) == pytest.approx(0.974, abs=0.005)
