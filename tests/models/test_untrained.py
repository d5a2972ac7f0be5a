"""Parameters from a seed: the same on every machine, whatever else is asked for."""

import math

import pytest
import torch

from models import untrained
from models.errors import WeightsError

CONV = {"features.3.weight": torch.Size((192, 64, 5, 5))}


def test_the_numbers_never_change() -> None:
    made = untrained.parameters("alexnet", {"features.0.weight": torch.Size((64, 3, 11, 11))})
    first = made["features.0.weight"].flatten()[:4]
    assert first.tolist() == pytest.approx(
        [-0.0932991952, 0.0297232345, 0.0253102519, -0.0841424242], rel=1e-6
    )


def test_a_tensor_does_not_depend_on_which_others_are_asked() -> None:
    alone = untrained.parameters("alexnet", CONV)
    among = untrained.parameters("alexnet", {"features.0.bias": torch.Size((64,)), **CONV})
    assert torch.equal(alone["features.3.weight"], among["features.3.weight"])


def test_every_network_and_every_tensor_has_numbers_of_its_own() -> None:
    shape = torch.Size((8, 8, 3, 3))
    names = {"features.0.weight": shape, "features.2.weight": shape}
    made = [*untrained.parameters("vgg16", names).values()]
    made += untrained.parameters("vgg19", names).values()
    assert len({tuple(tensor.flatten().tolist()) for tensor in made}) == 4


def test_convolutions_are_normal_with_the_deviation_of_he() -> None:
    weight = untrained.parameters("alexnet", CONV)["features.3.weight"]
    expected = math.sqrt(2 / (64 * 5 * 5))
    assert weight.std().item() == pytest.approx(expected, rel=0.01)
    assert abs(weight.mean().item()) < 0.01 * expected
    within = (weight.abs() < expected).float().mean().item()
    assert within == pytest.approx(math.erf(math.sqrt(0.5)), abs=0.01)


def test_activations_keep_their_magnitude_through_many_layers() -> None:
    shapes = {f"{n}.weight": torch.Size((256, 256)) for n in range(20)}
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    for weight in untrained.parameters("any", shapes).values():
        x = torch.relu(x @ weight.T)
    assert 0.2 < x.square().mean().item() < 5


def test_a_tensor_made_by_the_piece_has_no_seams() -> None:
    shape = torch.Size((3, 1 << 20))
    weight = untrained.parameters("any", {"fc.weight": shape})["fc.weight"]
    assert torch.unique(weight[:, :1000]).numel() > 2990


def test_normalisations_start_as_the_identity_and_biases_at_zero() -> None:
    size = torch.Size((16,))
    names = {f"bn1.{n}": size for n in ("weight", "bias", "running_mean", "running_var")}
    made = untrained.parameters("resnet152", names)
    assert made["bn1.weight"].eq(1).all()
    assert made["bn1.running_var"].eq(1).all()
    assert made["bn1.bias"].eq(0).all()
    assert made["bn1.running_mean"].eq(0).all()


def test_a_tensor_that_random_numbers_cannot_stand_for_is_refused() -> None:
    with pytest.raises(WeightsError) as refused:
        untrained.parameters("swin_t", {"attn.relative_position_index": torch.Size((2401,))})
    assert refused.value.code == "weights-untrained"
