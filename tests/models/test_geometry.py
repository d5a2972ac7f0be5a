"""Layers against published receptive fields and against gradients."""

from pathlib import Path

import pytest
import torch

from models import geometry, zoo
from models.activations import truncate
from models.geometry import layers


@pytest.mark.parametrize(
    ("network", "layer", "receptive_field", "stride"),
    [
        # Araujo, Norris & Sim (Distill 2019), table of networks.
        ("alexnet", "pool5", 195, 32),
        ("vgg16", "pool5", 212, 32),
        ("vgg16", "conv5_3", 196, 16),
        ("vgg19", "pool5", 268, 32),
        # torchvision puts a block's stride on its 3×3 convolution: 483 of the paper becomes 427.
        ("resnet50", "layer4", 427, 32),
    ],
)
def test_receptive_fields_are_the_published_ones(
    network: str, layer: str, receptive_field: int, stride: int
) -> None:
    found = layers(network)[layer]
    assert (found.receptive_field, found.stride) == (receptive_field, stride)


@pytest.mark.parametrize(("network", "layer"), [("alexnet", "conv3"), ("squeezenet1_1", "fire3")])
def test_a_receptive_field_is_what_the_gradient_reaches(network: str, layer: str) -> None:
    found = layers(network)[layer]
    cut = truncate(network, [layer]).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in cut.parameters():
            parameter.fill_(0.01)  # All positive: no ReLU and no maximum hides a path.
    x = torch.rand(1, 3, 224, 224, requires_grad=True)
    y = cut.forward(x)[found.node]
    y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum().backward()
    assert x.grad is not None
    touched = x.grad[0].abs().sum(0).nonzero()
    reach = int((touched.max(0).values - touched.min(0).values + 1).max())
    # A max-pool passes its gradient to one position only, so the reach may fall short by a little.
    assert found.receptive_field is not None
    assert 0.7 * found.receptive_field <= reach <= found.receptive_field


def test_every_layer_of_the_table_exists_and_follows_a_non_linearity() -> None:
    for row in zoo.NETWORKS.values():
        found = layers(row.name)
        for name, node in row.layers.items():
            assert found[name].node == node, (row.name, name)


@pytest.mark.parametrize("network", ["alexnet", "vgg16", "vgg19", "resnet50", "squeezenet1_1"])
def test_levels_go_from_fine_to_coarse(network: str) -> None:
    levels = zoo.network(network).levels
    strides = [layers(network)[levels[level].split("/")[0]].stride or 0 for level in zoo.LEVELS]
    assert strides == sorted(strides)
    assert strides[0] < strides[2]


@pytest.mark.parametrize(
    ("network", "layer", "channels", "axis"),
    [
        ("swin_t", "features.7.1.add_1", 768, 3),
        ("vit_b_16", "encoder.layers.encoder_layer_11", 768, 2),
        ("convnext_tiny", "features.7", 768, 1),
    ],
)
def test_the_channel_axis_is_found_where_it_is_not_the_first(
    network: str, layer: str, channels: int, axis: int
) -> None:
    found = layers(network)[layer]
    assert (found.channels, found.channel_axis) == (channels, axis)


def test_squeeze_and_excitation_sees_the_whole_picture() -> None:
    found = layers("efficientnet_b0")["features.8"]
    assert found.receptive_field is None
    assert found.stride == 32


def test_traced_layers_are_kept_on_disk_and_the_same_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOL5_CACHE_DIR", str(tmp_path))
    traced = geometry.layers.__wrapped__("alexnet")

    def traces_nothing(_: object) -> None:
        raise AssertionError("the layers are known already")

    monkeypatch.setattr(geometry, "_traced", traces_nothing)
    assert geometry.layers.__wrapped__("alexnet") == traced
    assert list(geometry.layers.__wrapped__("alexnet")) == list(traced)
