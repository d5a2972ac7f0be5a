"""Normalisation folded into convolutions: the same numbers, by the names that they had."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from models import WeightsFolder
from models.activations import loaded
from models.folding import folded


def stirred(cut: fx.GraphModule) -> fx.GraphModule:
    """Every normalisation with statistics of its own: untrained ones change nothing."""
    random = torch.Generator().manual_seed(0)
    for module in cut.modules():
        if isinstance(module, nn.BatchNorm2d):
            for of, low in ((module.running_var, 0.5), (module.weight.data, 0.5)):
                assert of is not None
                of.copy_(low + torch.rand(of.shape, generator=random))
            for of in (module.running_mean, module.bias.data):
                assert of is not None
                of.copy_(0.2 * torch.randn(of.shape, generator=random))
    return cut


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        ("resnet18", ["layer1", "layer2.0"]),
        ("mobilenet_v2", ["features.1", "features.7", "features.18"]),
    ],
)
def test_a_folded_network_gives_the_activations_of_the_unfolded(
    network: str, layers: list[str]
) -> None:
    cut = stirred(loaded(WeightsFolder(offline=True).resolve(network, "untrained"), layers))
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = cut(x)
        whole = copy.deepcopy(cut)
        less = folded(cut)
        found = less(x)
    assert any(isinstance(one, nn.BatchNorm2d) for one in whole.modules())
    assert not any(isinstance(one, nn.BatchNorm2d) for one in less.modules())
    assert list(found) == list(expected)
    for name, one in expected.items():
        assert float((found[name] - one).norm() / one.norm()) < 1e-5, name


class Small(nn.Module):
    """A convolution and its normalisation; `seen` gives the convolution's own values as well."""

    def __init__(self, seen: bool) -> None:
        super().__init__()
        self.seen = seen
        self.convolution = nn.Conv2d(2, 3, 1, bias=False)
        self.normalisation = nn.BatchNorm2d(3, eps=0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        convolved = self.convolution(x)
        normalised = self.normalisation(convolved)
        return (convolved, normalised) if self.seen else (normalised,)


def test_the_folded_weight_is_the_one_of_the_formula() -> None:
    """w·γ/√(σ² + ε) and β - μ·γ/√(σ² + ε), by hand."""
    cut = stirred(fx.symbolic_trace(Small(seen=False).eval())).requires_grad_(False)
    w = cut.convolution.weight.numpy().copy()
    bn = cut.normalisation
    gain = bn.weight.numpy() / np.sqrt(bn.running_var.numpy() + 0.5)
    offset = bn.bias.numpy() - bn.running_mean.numpy() * gain
    less = folded(cut)
    np.testing.assert_allclose(
        less.convolution.weight.numpy(), w * gain[:, None, None, None], rtol=1e-6
    )
    np.testing.assert_allclose(less.convolution.bias.numpy(), offset, rtol=1e-5, atol=1e-7)
    (convolution,) = (node for node in less.graph.nodes if node.op == "call_module")
    assert convolution.name == "normalisation"


def test_a_convolution_that_something_else_sees_is_left_alone() -> None:
    cut = stirred(fx.symbolic_trace(Small(seen=True).eval())).requires_grad_(False)
    x = torch.ones(1, 2, 2, 2)
    expected = cut(x)
    less = folded(cut)
    assert isinstance(less.normalisation, nn.BatchNorm2d)
    for found, one in zip(less(x), expected, strict=True):
        assert torch.equal(found, one)
