"""Weights in int8 as a file: other weights than those they were made of, and all that follows."""

from pathlib import Path

import numpy as np
import pytest

from models import Extractor, Weights, WeightsError, WeightsFolder
from models.preprocess import prepare
from models.quantising import quantise
from tests.pictures import picture

SPEC = "alexnet/conv5/gem"


def pixels(count: int) -> np.ndarray:
    how = WeightsFolder(offline=True).resolve("alexnet", "embedded").preprocessing
    return np.stack([prepare(picture(n), how) for n in range(count)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> WeightsFolder:
    return WeightsFolder(tmp_path_factory.mktemp("weights"), offline=True)


@pytest.fixture(scope="module")
def made(folder: WeightsFolder) -> Weights:
    return quantise(folder.resolve("alexnet", "embedded"), pixels(8), "smooth noise", folder)


def test_int8_weights_are_found_again_as_what_they_are(
    made: Weights, folder: WeightsFolder
) -> None:
    assert folder.resolve("alexnet", made.name, made.sha256) == made
    assert made.name == "alexnet-embedded-int8.safetensors"
    assert made.name in folder.at_hand("alexnet")
    assert made.precision == "int8"
    said = made.quantised
    assert said
    assert (said.source, said.pictures, said.measured_on) == ("embedded", 6, 2)
    assert "runs in int8" in str(made.notice)
    # Of what they were made of, all that there is to say remains to be said.
    assert str(folder.resolve("alexnet", "embedded").notice) in str(made.notice)


def test_their_descriptors_are_others_and_lose_what_they_say(
    made: Weights, folder: WeightsFolder
) -> None:
    """The stated cosines are those of the held-out pictures, 3 and 7, through the public way."""
    exact = Extractor(SPEC, weights="embedded", folder=folder, device="cpu")
    int8 = Extractor(SPEC, weights=made.name, folder=folder, device="cpu")
    assert int8.spaces[""].fingerprint != exact.spaces[""].fingerprint
    assert int8.runtimes == {"alexnet": "torch int8"}
    shown = [picture(n) for n in (3, 7)]
    cosines = np.sum(np.asarray(exact.describe(shown)) * np.asarray(int8.describe(shown)), axis=1)
    said = made.quantised
    assert said
    assert said.spec == SPEC
    assert cosines.min() == pytest.approx(said.cosine_least, abs=1e-4)
    assert cosines.mean() == pytest.approx(said.cosine_mean, abs=1e-4)
    assert 0.99 < cosines.min() < 0.999999


def test_weights_are_neither_overwritten_nor_quantised_twice(
    made: Weights, folder: WeightsFolder
) -> None:
    with pytest.raises(WeightsError) as caught:
        quantise(folder.resolve("alexnet", "embedded"), pixels(8), "smooth noise", folder)
    assert caught.value.code == "weights-exists"
    with pytest.raises(WeightsError, match="quantised already") as caught:
        quantise(made, pixels(8), "smooth noise", folder, "twice.safetensors")
    assert caught.value.code == "weights-unquantisable"


@pytest.mark.parametrize(
    "name", ["../out.safetensors", "a/b.safetensors", "x.pth", "\0.safetensors"]
)
def test_no_file_is_written_outside_the_folder(name: str, tmp_path: Path) -> None:
    folder = WeightsFolder(tmp_path / "weights", offline=True)
    with pytest.raises(WeightsError) as caught:
        quantise(folder.resolve("alexnet", "embedded"), pixels(8), "smooth noise", folder, name)
    assert caught.value.code == "weights-unknown"
    assert not list(tmp_path.iterdir())


def test_seven_pictures_are_too_few(tmp_path: Path) -> None:
    folder = WeightsFolder(tmp_path, offline=True)
    with pytest.raises(WeightsError) as caught:
        quantise(folder.resolve("alexnet", "embedded"), pixels(7), "smooth noise", folder)
    assert caught.value.code == "weights-few-pictures"
