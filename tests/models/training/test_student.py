"""The student: torchvision's own trunk once its normalisation is folded away."""

import pytest
import torch
from torch.nn import functional as F

from models import zoo
from models.preprocess import IMAGENET, normalise
from models.training.student import Student


@pytest.fixture
def student() -> Student:
    """One whose normalisations have something to say."""
    torch.manual_seed(0)
    student = Student("alexnet")
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr,operator]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr,operator]
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    return student.eval()


def test_folded_it_has_torchvisions_names_and_shapes(student: Student) -> None:
    plain = zoo.build(zoo.network("alexnet")).state_dict()
    trunk = {name: value.shape for name, value in plain.items() if name.startswith("features.")}
    folded = student.folded()
    assert {name: value.shape for name, value in folded.items()} == trunk
    assert all(value.dtype == torch.float16 for value in folded.values())


def test_folded_it_computes_the_same(student: Student) -> None:
    views = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    folded = {name: value.float() for name, value in student.folded().items()}
    x, outputs = normalise(views, IMAGENET), []
    for name, stride, padding, pooled in (
        ("0", 4, 2, True), ("3", 1, 2, True), ("6", 1, 1, False),
        ("8", 1, 1, False), ("10", 1, 1, False),
    ):  # fmt: skip
        weight, bias = folded[f"features.{name}.weight"], folded[f"features.{name}.bias"]
        x = F.relu(F.conv2d(x, weight, bias, stride, padding))
        outputs.append(x)
        x = F.max_pool2d(x, 3, 2) if pooled else x
    for ours, plain in zip(student(views), outputs, strict=True):
        assert torch.allclose(ours, plain, atol=0.02 * float(plain.abs().max()))


def test_channels_are_those_of_its_layers(student: Student) -> None:
    assert student.channels == [64, 192, 384, 256, 256]
    assert Student("vgg16").channels[-1] == 512
