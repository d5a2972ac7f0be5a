"""A truncated network against the whole one, run by hooks."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from models import zoo
from models.activations import truncate
from models.geometry import layers
from models.preprocess import normalise
from models.spec import parse
from models.trunk import Trunk
from models.untrained import parameters
from models.weights import WeightsFolder

CPU = torch.device("cpu")


def whole(network: str) -> nn.Module:
    model = get_model(network, weights=None, **zoo.network(network).builder).eval()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict(parameters(network, shapes), strict=False)
    return model


def activation(model: nn.Module, module: str, x: torch.Tensor) -> torch.Tensor:
    """What a module gives, copied before anything in place can touch it."""
    kept: list[torch.Tensor] = []
    hook = model.get_submodule(module).register_forward_hook(lambda *a: kept.append(a[2].clone()))
    with torch.inference_mode():
        model(x)
    hook.remove()
    return kept[-1]


@pytest.mark.parametrize(
    ("network", "by_name"),
    [
        ("alexnet", {"conv1": "features.1", "conv5": "features.11", "fc7": "classifier.5"}),
        ("squeezenet1_1", {"conv1": "features.1", "fire9": "features.12"}),
        ("resnet50", {"layer1": "layer1", "layer3.5": "layer3.5", "layer4": "layer4"}),
        ("mobilenet_v2", {"features.3": "features.3", "features.18": "features.18"}),
    ],
)
def test_several_layers_from_one_pass_are_those_of_the_whole_network(
    network: str, by_name: dict[str, str]
) -> None:
    batch = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    trunk = Trunk(WeightsFolder(offline=True).resolve(network, "untrained"), by_name, CPU)
    model, x = whole(network), normalise(batch, trunk.preprocessing)
    for name, found in trunk(batch).items():
        expected = activation(model, by_name[name], x)
        difference = (found.flatten(1) - expected.flatten(1)).norm() / expected.norm()
        assert difference < 3e-5, name  # folded normalisations round at other places


@pytest.mark.parametrize("network", ["alexnet", "vgg19"])
def test_a_convolution_asked_for_by_its_node_is_not_yet_rectified(network: str) -> None:
    batch = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    weights = WeightsFolder(offline=True).resolve(network, "untrained")
    found = Trunk(weights, ["features.0", "features.1"], CPU)(batch)
    assert (found["features.0"] < 0).any()
    assert torch.equal(found["features.0"].clamp(min=0), found["features.1"])


def test_a_residual_sum_does_not_overwrite_its_addend() -> None:
    batch = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    weights = WeightsFolder(offline=True).resolve("resnet50", "untrained")
    names = ["layer1.0.bn3", "layer1.0.downsample.1", "layer1.0.relu_2"]
    bn3, shortcut, block = Trunk(weights, names, CPU)(batch).values()
    assert torch.allclose((bn3 + shortcut).clamp(min=0), block, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "layer", "kept"),
    [
        ("vgg19", "conv4_4", 10_580_000),
        ("alexnet", "conv5", 2_470_000),
        ("resnet152", "layer1", 225_000),
    ],
)
def test_nothing_above_the_deepest_layer_is_kept(network: str, layer: str, kept: int) -> None:
    cut = truncate(network, [layer])
    count = sum(parameter.numel() for parameter in cut.parameters())
    assert count == pytest.approx(kept, rel=0.01)
    assert not any(name.startswith(("classifier", "fc")) for name, _ in cut.named_modules())


_PEAK = """
import sys, torch
from models.trunk import Trunk
from models.weights import WeightsFolder
def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024
before = resident()
weights = WeightsFolder(offline=True).resolve("vgg19", "untrained")
trunk = Trunk(weights, [sys.argv[1]], torch.device("cpu"))
print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.long
def test_memory_of_a_mid_layer_is_a_fraction_of_the_whole_network() -> None:
    """VGG-19 up to conv4_4 is 10.6 M of its 143.7 M parameters: 42 MB instead of 575 MB."""
    megabytes = {
        layer: int(subprocess.check_output([sys.executable, "-c", _PEAK, layer]))
        for layer in ("conv4_4", "classifier.6")
    }
    assert megabytes["conv4_4"] < 200
    assert megabytes["classifier.6"] > 500


@pytest.mark.parametrize(
    "network", ["efficientnet_b0", "densenet121", "regnet_y_400mf", "googlenet"]
)
def test_other_networks_of_torchvision_work_by_the_same_table(network: str) -> None:
    layer = parse(f"{network}/high").layer
    trunk = Trunk(WeightsFolder(offline=True).resolve(network, "untrained"), [layer], CPU)
    found = trunk(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))[layer]
    described = layers(network)[layer]
    assert found.shape == (1, described.channels, described.height, described.width)


def test_a_transformer_with_channels_last_is_turned_channels_first(tmp_path: Path) -> None:
    model = get_model("swin_t", weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "swin_t.pth")
    weights = WeightsFolder(tmp_path, offline=True).resolve("swin_t", "swin_t.pth")
    trunk = Trunk(weights, ["features.7"], CPU)
    batch = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    expected = activation(model, "features.7", normalise(batch, trunk.preprocessing))
    found = trunk(batch)["features.7"]
    assert torch.allclose(found, expected.permute(0, 3, 1, 2), rtol=1e-3, atol=1e-4)
