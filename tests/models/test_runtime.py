"""Runtimes: which is chosen, that they compute the same, and what is said where they do not."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models import DeviceError, Extractor, WeightsFolder, runtime
from models.artefacts import BLOB, FACTS, Artefacts
from models.runtime import RuntimeChoice, candidates
from models.runtimes import openvino
from models.runtimes.agreement import TOLERANCE, least_cosine, pictures
from models.runtimes.compiled import SIZES, filled
from models.trunk import Trunk

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(not openvino.is_there(), reason="openvino is not installed")


def trunk(network: str, layers: Sequence[str], cache: Path, how: str, precision: str) -> Trunk:
    weights = WeightsFolder(offline=True).resolve(network, "untrained")
    return Trunk(weights, layers, CPU, RuntimeChoice(how, precision, 1, cache))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@needs_openvino
@pytest.mark.parametrize(
    ("network", "layers"),
    [
        ("alexnet", ["conv2", "conv5", "fc7"]),
        ("squeezenet1_1", ["fire3", "fire9"]),
        pytest.param("mobilenet_v2", ["features.3", "features.18"], marks=pytest.mark.long),
    ],
)
def test_openvino_gives_the_activations_of_torch(
    network: str, layers: list[str], tmp_path: Path
) -> None:
    ours = trunk(network, layers, tmp_path, "openvino", "f32")
    torchs = trunk(network, layers, tmp_path, "torch", "f32")
    assert ours.runtime.name == "openvino"
    for count in (1, 3):  # One compiled network takes batches of any size.
        batch = pictures(224)[:count]
        expected = torchs(batch)
        for layer, found in ours(batch).items():
            assert relative(found, expected[layer]) < 1e-4, layer


@needs_openvino
def test_one_compiled_network_takes_pictures_of_any_size(tmp_path: Path) -> None:
    ours = trunk("alexnet", ["conv5"], tmp_path, "openvino", "f32")
    torchs = trunk("alexnet", ["conv5"], tmp_path, "torch", "f32")
    for side in (224, 96, 301):
        batch = pictures(side)[:, :, :, : side - 20]
        assert relative(ours(batch)["conv5"], torchs(batch)["conv5"]) < 1e-4


@needs_openvino
def test_two_batches_at_once_do_not_share_memory(tmp_path: Path) -> None:
    ours = trunk("alexnet", ["conv1"], tmp_path, "openvino", "f32")
    batch = pictures(224)
    first = ours(batch[:1])["conv1"]
    copy = first.clone()
    ours(batch[1:2])
    assert torch.equal(first, copy)


@needs_openvino
def test_a_compiled_network_is_kept_and_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = trunk("alexnet", ["conv5"], tmp_path, "openvino", "f32")
    (place,) = (tmp_path / "artefacts").iterdir()
    assert json.loads((place / FACTS).read_text())["cosine"] > TOLERANCE["f32"]

    def loads_nothing(*_: object) -> None:
        raise AssertionError("neither parameters are loaded nor is anything compiled")

    monkeypatch.setattr(runtime, "loaded", loads_nothing)
    after = trunk("alexnet", ["conv5"], tmp_path, "openvino", "f32")
    batch = pictures(224)
    assert torch.equal(before(batch)["conv5"], after(batch)["conv5"])


@needs_openvino
def test_a_damaged_compiled_network_is_compiled_anew(tmp_path: Path) -> None:
    before = trunk("alexnet", ["conv1"], tmp_path, "openvino", "f32")
    (place,) = (tmp_path / "artefacts").iterdir()
    blob = bytearray((place / BLOB).read_bytes())
    blob[len(blob) // 2] ^= 1
    (place / BLOB).write_bytes(blob)
    after = trunk("alexnet", ["conv1"], tmp_path, "openvino", "f32")
    batch = pictures(224)
    assert torch.equal(before(batch)["conv1"], after(batch)["conv1"])
    assert (place / BLOB).read_bytes() != bytes(blob)


@needs_openvino
def test_a_cache_that_cannot_be_written_costs_only_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    ours = trunk("alexnet", ["conv1"], tmp_path / "file", "openvino", "f32")
    assert ours.runtime.name == "openvino"


@needs_openvino
def test_openvino_tells_its_makers_nothing() -> None:
    """Importing it would send that it was imported; a socket opened for that fails the process."""
    code = (
        "import socket, sys\n"
        "def no(*a, **k): raise SystemExit('a connection')\n"
        "socket.socket.connect = no\n"
        "from models.runtimes import openvino\n"
        "assert openvino.multiplies('f32') and openvino.made_by()\n"
        "import time; time.sleep(0.5)\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
        "assert not any(name.startswith('openvino_telemetry.') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_artefacts_used_least_lately_go_first(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path, most_bytes=2500)
    for key in ("a", "b"):
        artefacts.keep(key, key.encode() * 1000, {})
    assert artefacts.find("a")
    artefacts.keep("c", b"c" * 1000, {})
    kept = {path.name for path in (tmp_path / "artefacts").iterdir()}
    assert kept == {"a", "c"}
    assert artefacts.find("b") is None


def test_facts_and_blob_come_back_as_they_were_kept(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    artefacts.keep("key", b"network", {"cosine": 0.5})
    found = artefacts.find("key")
    assert found
    assert (bytes(found.blob), found.facts["cosine"]) == (b"network", 0.5)
    assert (tmp_path / "artefacts").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("batch", [1, 2, 3, 17, 128, 129])
def test_a_batch_is_filled_to_a_size_that_is_compiled_for(batch: int) -> None:
    assert filled(batch) >= batch
    assert filled(batch) in SIZES or batch > max(SIZES)
    assert filled(batch) <= 2 * batch


@pytest.mark.long
def test_a_compiled_network_gives_the_activations_of_torch(tmp_path: Path) -> None:
    ours = trunk("alexnet", ["conv5"], tmp_path, "compiled", "f32")
    torchs = trunk("alexnet", ["conv5"], tmp_path, "torch", "f32")
    for count in (1, 3):
        batch = pictures(224)[:count]
        found, expected = ours(batch)["conv5"], torchs(batch)["conv5"]
        assert found.shape == expected.shape
        assert relative(found, expected) < 1e-4


def test_half_precision_stays_within_its_tolerance(tmp_path: Path) -> None:
    half = trunk("alexnet", ["conv3", "conv5"], tmp_path, "torch", "bf16")
    full = trunk("alexnet", ["conv3", "conv5"], tmp_path, "torch", "f32")
    assert half.runtime.precision == "bf16"
    for layer, expected in full(pictures(224)).items():
        found = half(pictures(224))[layer]
        assert found.dtype == torch.float32
        assert 1e-5 < relative(found, expected) < 0.05


def test_a_precision_that_moves_descriptors_is_given_up_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "fast_precisions", lambda *_: ["bf16"])
    monkeypatch.setitem(TOLERANCE, "bf16", 1.1)
    weights = WeightsFolder(offline=True).resolve("alexnet", "untrained")
    monkeypatch.setattr(runtime, "AUTOMATIC", ("torch",))
    ours = Trunk(weights, ["conv1"], CPU, RuntimeChoice("auto", "auto", 1, tmp_path))
    assert ours.runtime.precision == "f32"
    assert "alexnet does not run in torch bf16" in ours.notices[0]


def test_what_is_asked_for_by_name_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCE, "bf16", 1.1)
    with pytest.raises(DeviceError, match=r"bf16.*auto finds what does") as caught:
        trunk("alexnet", ["conv1"], tmp_path, "torch", "bf16")
    assert caught.value.code == "runtime-unfit"


def test_where_openvino_is_missing_torch_runs_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        runtime.RUNTIMES,
        "openvino",
        runtime.Row(("cpu",), ("f32",), runtime.RUNTIMES["openvino"].start, lambda: False),
    )
    assert trunk("alexnet", ["conv1"], tmp_path, "auto", "auto").runtime.name == "torch"
    with pytest.raises(DeviceError) as caught:
        trunk("alexnet", ["conv1"], tmp_path, "openvino", "auto")
    assert caught.value.code == "runtime-missing"


def test_networks_made_by_hand_run_in_torch(tmp_path: Path) -> None:
    weights = WeightsFolder(offline=True).resolve("colour")
    choice = RuntimeChoice("auto", "auto", 1, tmp_path)
    assert candidates(weights, CPU, choice) == [("torch", "f32")]


@needs_openvino
@pytest.mark.parametrize(
    ("how", "precision", "device", "expected"),
    [
        ("auto", "f32", "cpu", [("openvino", "f32"), ("torch", "f32")]),
        ("torch", "bf16", "cpu", [("torch", "bf16")]),
        ("auto", "f32", "cuda", [("torch", "f32")]),
        ("compiled", "f16", "cuda", [("compiled", "f16")]),
    ],
)
def test_what_is_tried_in_which_order(
    how: str, precision: str, device: str, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    weights = WeightsFolder(offline=True).resolve("alexnet", "untrained")
    choice = RuntimeChoice(how, precision, 1, tmp_path)
    assert candidates(weights, torch.device(device), choice) == expected


@pytest.mark.parametrize(
    ("how", "precision", "code"),
    [("tensorrt", "auto", "runtime-unknown"), ("auto", "f8", "runtime-precision")],
)
def test_what_there_is_not_is_said(how: str, precision: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        RuntimeChoice(how, precision, 1, tmp_path)
    assert caught.value.code == code


def test_agreement_is_the_least_cosine_of_averaged_activations() -> None:
    """Against plain numpy, for a layer with a grid, one without, and one that is silent."""
    random = torch.Generator().manual_seed(1)
    grid, flat = torch.rand(4, 8, 3, 3, generator=random), torch.rand(4, 5, generator=random)
    other, silent = torch.rand(4, 8, 3, 3, generator=random), torch.zeros(4, 6, 2, 2)
    found = least_cosine(lambda _: [grid, flat, silent], lambda _: [other, flat, silent], 64)
    a, b = grid.numpy().mean(axis=(2, 3)), other.numpy().mean(axis=(2, 3))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert found == pytest.approx(cosines.min(), abs=1e-6)


def test_a_runtime_that_gives_nan_agrees_with_nothing() -> None:
    nan = torch.full((4, 3, 2, 2), torch.nan)
    assert least_cosine(lambda _: [nan], lambda _: [torch.ones(4, 3, 2, 2)], 64) == -1


def test_an_extractor_says_how_it_runs() -> None:
    extractor = Extractor("alexnet/conv5/gem", weights="untrained")
    assert extractor.runtimes == {"alexnet": "torch f32"}  # as the tests' settings say
    assert extractor.fallbacks == []
