"""Fake quantisation beside integer arithmetic in plain numpy, and OpenVINO's kernels beside it."""

from math import isclose
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor, fx, nn

from models import WeightsError, WeightsFolder
from models.activations import loaded
from models.folding import folded
from models.preprocess import prepare
from models.quantisation import MOST_WEIGHT, quantisable, quantised, steps, weight_scales
from models.quantising import quantise
from models.runtime import RuntimeChoice
from models.runtimes import openvino
from models.runtimes.agreement import pictures
from models.trunk import Trunk
from tests.pictures import picture

Array = npt.NDArray[np.float64]
needs_openvino = pytest.mark.skipif(not openvino.is_there(), reason="openvino is not installed")


def scales_of(weight: npt.NDArray[np.float32]) -> list[float]:
    """By loops: the most that one weight, or two neighbours of one sign, come to; by 127."""
    found = []
    for channel in weight.reshape(len(weight), weight.shape[1], -1):
        most = 0.0
        for first in range(0, len(channel), 2):
            for place in range(channel.shape[1]):
                pair = [float(w) for w in channel[first : first + 2, place]]
                above = sum(w for w in pair if w > 0)
                below = -sum(w for w in pair if w < 0)
                most = max(most, above, below)
        found.append(most / 127)
    return found


def rounded(x: Array, scale: float, low: int, high: int) -> Array:
    """The integers that stand for x; numpy rounds halves to even, as torch does."""
    return np.clip(np.round(x / scale), low, high)


@pytest.mark.parametrize("shape", [(5, 4, 3, 3), (4, 7, 1, 1), (6, 1, 3, 3), (3, 9)])
def test_weights_have_one_step_per_output_channel(shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight[1] *= 100
    found = weight_scales(torch.from_numpy(weight))
    np.testing.assert_allclose(found.numpy(), scales_of(weight), rtol=1e-6)


@given(some.integers(0, 10_000), some.integers(1, 6), some.sampled_from([0.01, 1.0, 50.0]))
def test_no_two_products_saturate_16_bits(seed: int, channels: int, spread: float) -> None:
    """What a processor without VNNI adds up at once: 255·w₀ + 255·w₁ for a picture all at 255."""
    weight = np.random.default_rng(seed).laplace(scale=spread, size=(4, channels, 3, 3))
    scales = weight_scales(torch.from_numpy(weight.astype(np.float32))).numpy()
    integers = np.round(weight.astype(np.float32) / scales[:, None, None, None]).astype(int)
    assert np.abs(integers).max() <= MOST_WEIGHT
    even = np.pad(integers, ((0, 0), (0, channels % 2), (0, 0), (0, 0)))
    for signed in (np.maximum(even, 0), np.minimum(even, 0)):
        sums = 255 * (signed[:, ::2] + signed[:, 1::2])
        assert sums.min() >= -(2**15)
        assert sums.max() < 2**15


@given(some.floats(-100, 100), some.floats(-100, 100))
def test_a_range_lies_within_its_steps(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    scale, lowest, highest = steps((low, high))
    assert highest - lowest == 255
    assert scale > 0
    half = scale / 2 * (1 + 1e-9)
    assert lowest * scale - half <= low
    assert high <= highest * scale + half


class Small(nn.Module):
    """A convolution, and one of its rectified and pooled activation, which is given out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 1, bias=False)
        self.rectified, self.pooled = nn.ReLU(), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        rectified = self.rectified(self.first(x))
        return {"rectified": rectified, "second": self.second(self.pooled(rectified))}


@pytest.fixture
def small() -> fx.GraphModule:
    torch.manual_seed(0)
    return fx.symbolic_trace(Small().eval()).requires_grad_(False)


def convolved(x: Array, weight: Array) -> Array:
    """C×H×W by D×C×h×w with a border of zeros that keeps the size, by loops over the kernel."""
    border = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (border, border), (border, border)))
    found = np.zeros((len(weight), *x.shape[1:]))
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            seen = padded[:, i : i + x.shape[1], j : j + x.shape[2]]
            found += np.einsum("dc,chw->dhw", weight[:, :, i, j], seen)
    return found


def test_a_quantised_network_multiplies_integers(small: fx.GraphModule) -> None:
    """Signed pixels, unsigned activations, weights by channel: sums of whole numbers, scaled."""
    names = quantisable(small)
    assert names == ["x", "rectified"]  # Below the pooling, which changes no value.
    held = {"x": (-2.0, 1.5), "rectified": (0.0, 1.0)}
    x = np.random.default_rng(1).normal(size=(3, 6, 6)).astype(np.float32)
    first = small.first.weight.numpy().astype(np.float64)
    bias = small.first.bias.numpy().astype(np.float64)
    second = small.second.weight.numpy().astype(np.float64)

    found = quantised(small, held)(torch.from_numpy(x)[None])

    s = 2.0 / 127.5
    w = np.array(scales_of(first.astype(np.float32)))[:, None, None]
    whole = convolved(rounded(x, s, -128, 127), np.round(first / w[..., None]))
    rectified = np.maximum(whole * s * w + bias[:, None, None], 0)
    # What is given out has not been quantised yet: more than 256 values, and above the range.
    np.testing.assert_allclose(found["rectified"][0].numpy(), rectified, rtol=1e-4, atol=1e-5)

    s = 1.0 / 255
    w = np.array(scales_of(second.astype(np.float32)))[:, None, None]
    pooled = rounded(rectified, s, 0, 255).reshape(4, 3, 2, 3, 2).max(axis=(2, 4))
    expected = convolved(pooled, np.round(second / w[..., None])) * s * w
    np.testing.assert_allclose(found["second"][0].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_an_activation_without_a_range_is_refused(small: fx.GraphModule) -> None:
    with pytest.raises(WeightsError, match="no range for rectified") as refused:
        quantised(small, {"x": (0.0, 1.0)})
    assert refused.value.code == "weights-ranges"


def test_ranges_above_the_cut_are_passed_over(small: fx.GraphModule) -> None:
    held = {"x": (0.0, 1.0), "rectified": (0.0, 1.0), "of a deeper layer": (0.0, 1.0)}
    assert "second" in quantised(small, held)(torch.zeros(1, 3, 4, 4))


def test_both_terms_of_a_sum_are_quantised() -> None:
    """Else the other branch of a residual block would stay float32."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.convolution(x) + x

    assert quantisable(fx.symbolic_trace(Residual())) == ["x", "convolution"]


def test_a_dead_activation_and_a_dead_channel_divide_by_nothing(small: fx.GraphModule) -> None:
    small.first.weight[0] = 0
    small.second.weight[:] = 0
    found = quantised(small, {"x": (0.0, 0.0), "rectified": (0.0, 0.0)})(torch.ones(1, 3, 4, 4))
    assert found["second"].abs().max() == 0
    assert torch.isfinite(found["rectified"]).all()


def test_every_convolution_of_a_network_of_blocks_is_quantised() -> None:
    """torchvision's blocks are opened: depthwise convolutions are not left in float32."""
    weights = WeightsFolder(offline=True).resolve("mobilenet_v2", "untrained")
    cut = folded(loaded(weights, ["features.2"]))
    convolutions = sum(isinstance(one, nn.Conv2d) for one in cut.modules())
    held = dict.fromkeys(quantisable(cut), (-4.0, 4.0))
    graph = quantised(cut, held).graph
    called = [n for n in graph.nodes if n.target is torch.fake_quantize_per_channel_affine]
    assert len(called) == convolutions == 6


@needs_openvino
def test_openvino_multiplies_the_integers_that_torch_simulates(tmp_path: Path) -> None:
    """Without VNNI it would saturate in silence, were it not for the limit on weights."""
    folder = WeightsFolder(tmp_path, offline=True)
    source = folder.resolve("alexnet", "embedded")
    pixels = np.stack([prepare(picture(n), source.preprocessing) for n in range(8)])
    made = quantise(source, pixels, "smooth noise", folder)
    batch = pictures(160)
    found = {}
    for how in ("openvino", "torch"):
        choice = RuntimeChoice(how, "auto", 1, tmp_path)
        trunk = Trunk(made, ["conv2", "conv5"], torch.device("cpu"), choice)
        assert (trunk.runtime.name, trunk.runtime.precision) == (how, "int8")
        found[how] = trunk(batch)
    for layer, ours in found["openvino"].items():
        mine, theirs = ours.mean((2, 3)), found["torch"][layer].mean((2, 3))
        assert torch.cosine_similarity(mine, theirs).min() >= 0.999, layer
        assert isclose(float(mine.norm() / theirs.norm()), 1, abs_tol=0.01), layer
