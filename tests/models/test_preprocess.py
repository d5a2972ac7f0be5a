"""Preprocessing against torchvision's own."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights

from models import zoo
from models.preprocess import CAFFE, IMAGENET, normalise, prepare


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3))
    return Image.fromarray(noise.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("network", ["alexnet", "vgg19", "resnet152", "squeezenet1_1"])
@pytest.mark.parametrize("size", [(400, 533), (711, 400), (256, 256), (100, 90), (1024, 300)])
def test_prepared_pixels_are_those_of_torchvision(network: str, size: tuple[int, int]) -> None:
    source = picture(*size)
    how = zoo.native_preprocessing(zoo.network(network))
    reference = get_model_weights(network).IMAGENET1K_V1.transforms()(source)
    computed = normalise(torch.from_numpy(prepare(source, how))[None], how)[0]
    # One level of 255 of rounding, divided by the smallest standard deviation.
    assert (computed - reference).abs().max() <= 1.01 / 255 / min(how.std)
    assert (computed - reference).abs().mean() < 0.25 / 255 / min(how.std)
    assert (computed - reference).mean().abs() < 0.03 / 255 / min(how.std)


def test_v2_weights_have_their_own_resize() -> None:
    row = zoo.network("resnet152")
    assert zoo.native_preprocessing(row, "imagenet1k_v1").resize == 256
    assert zoo.native_preprocessing(row, "imagenet1k_v2").resize == 232


def test_caffe_preprocessing_is_bgr_minus_the_mean_in_0_to_255() -> None:
    red = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    red[:, 0] = 200
    values = normalise(red, CAFFE)[0, :, 0, 0]
    expected = torch.tensor([0 - 103.939, 0 - 116.779, 200 - 123.68])
    assert torch.allclose(values, expected, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 60000), (60000, 1), (1, 1), (3, 2)])
def test_extreme_shapes_cost_no_more_than_others(size: tuple[int, int]) -> None:
    assert prepare(Image.new("RGB", size, "red"), IMAGENET).shape == (3, 224, 224)


def test_the_batch_given_is_left_alone() -> None:
    batch = torch.full((1, 3, 4, 4), 9, dtype=torch.uint8)
    normalise(batch, IMAGENET)
    assert (batch == 9).all()
