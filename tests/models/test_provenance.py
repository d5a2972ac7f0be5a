"""What quantised weights say of themselves, and what nobody's word is taken for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from models import WeightsError, WeightsFolder
from models.preprocess import CAFFE
from models.provenance import KEY, Provenance, read

SAID = Provenance(
    network="alexnet",
    source="alexnet.pth:caffe",
    source_sha256="0" * 64,
    preprocessing=CAFFE,
    ranges={"x": (-2.5, 2.5), "features_1": (0.0, 11.25)},
    calibrated_on="procedural pictures",
    pictures=192,
    measured_on=64,
    spec="alexnet/conv5/gem",
    cosine_mean=0.9991,
    cosine_least=0.9973,
)


def refused(text: str) -> str:
    with pytest.raises(WeightsError, match=r"file\.safetensors.*make it again") as caught:
        read("file.safetensors", text)
    return caught.value.code


def test_what_is_written_is_read() -> None:
    assert read("file", SAID.text()) == SAID


HOSTILE: dict[str, Any] = {
    "NaN": {"ranges": {"x": [float("nan"), 1]}},
    "infinite": {"ranges": {"x": [0, float("inf")]}},
    "huge": {"ranges": {"x": [0, 1e300]}},
    "an integer beyond floats": {"ranges": {"x": [0, 10**400]}},
    "the wrong way round": {"ranges": {"x": [1, -1]}},
    "three ends": {"ranges": {"x": [0, 1, 2]}},
    "ends that are texts": {"ranges": {"x": ["0", "1"]}},
    "ends that are truths": {"ranges": {"x": [False, True]}},
    "ranges in a list": {"ranges": [[0, 1]]},
    "a name that is none": {"network": 7},
    "a name that clears the screen": {"source": "\x1b[2J"},
    "no pictures": {"pictures": 0},
    "half a picture": {"measured_on": 0.5},
    "a cosine above 1": {"cosine_least": 2.0},
    "a cosine that is NaN": {"cosine_mean": float("nan")},
    "something nobody asked for": {"command": "rm"},
    "no preprocessing": {"preprocessing": None},
}

UNPREPARED: dict[str, Any] = {
    "a picture of 10⁹ pixels": {"resize": 10**9, "crop": 10**9},
    "a crop above the picture": {"resize": 64, "crop": 224},
    "a negative crop": {"crop": -1},
    "division by nothing": {"std": [1.0, 0.0, 1.0]},
    "a mean that is NaN": {"mean": [float("nan"), 0, 0]},
    "four channels": {"mean": [0, 0, 0, 0]},
    "no scale": {"scale": 0},
    "channels there are not": {"channels": "CMYK"},
    "an interpolation there is not": {"interpolation": "magic"},
}


@pytest.mark.parametrize("changed", HOSTILE.values(), ids=HOSTILE)
def test_hostile_words_are_refused(changed: dict[str, Any]) -> None:
    assert refused(json.dumps({**json.loads(SAID.text()), **changed})) == "weights-unreadable"


@pytest.mark.parametrize("changed", UNPREPARED.values(), ids=UNPREPARED)
def test_a_hostile_preprocessing_is_refused(changed: dict[str, Any]) -> None:
    said = json.loads(SAID.text())
    said["preprocessing"] |= changed
    assert refused(json.dumps(said)) == "weights-unreadable"


@pytest.mark.parametrize("name", json.loads(SAID.text()))
def test_every_word_must_be_there(name: str) -> None:
    said = json.loads(SAID.text())
    del said[name]
    assert refused(json.dumps(said)) == "weights-unreadable"


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "null", "[]", '"text"', "7", "[" * 100_000, "{}", " " * (1 << 20) + "{}"],
    ids=["empty", "words", "null", "list", "text", "number", "deep", "nothing said", "long"],
)
def test_what_is_no_provenance_is_refused(text: str) -> None:
    assert refused(text) == "weights-unreadable"


def put(folder: Path, text: str) -> WeightsFolder:
    tensors = {"features.0.weight": torch.zeros(1)}
    safetensors.torch.save_file(tensors, folder / "alexnet.safetensors", {KEY: text})
    return WeightsFolder(folder, offline=True)


def test_a_file_with_hostile_words_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        put(tmp_path, "no JSON").resolve("alexnet", "alexnet.safetensors")
    assert caught.value.code == "weights-unreadable"


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    folder = put(tmp_path, replace(SAID, network="vgg19").text())
    with pytest.raises(WeightsError, match="made for vgg19") as caught:
        folder.resolve("alexnet", "alexnet.safetensors")
    assert caught.value.code == "weights-shape"


def test_quantised_weights_keep_the_preprocessing_of_their_source(tmp_path: Path) -> None:
    folder = put(tmp_path, SAID.text())
    found = folder.resolve("alexnet", "alexnet.safetensors")
    assert found.preprocessing == CAFFE
    assert found.precision == "int8"
    assert found.notice == (
        "alexnet runs in int8: its descriptors have a cosine of 0.9991 to those of "
        "alexnet.pth:caffe (at least 0.9973 on 64 pictures)"
    )
    with pytest.raises(WeightsError, match="have that of their source") as caught:
        folder.resolve("alexnet", "alexnet.safetensors:imagenet")
    assert caught.value.code == "weights-unknown"
