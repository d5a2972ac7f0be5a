"""A student: the convolutional trunk of a plain network with batch normalisation while it learns.

At the end the normalisation is folded into the convolutions, so that what is left has the very
keys and shapes of torchvision's network without it.
"""

from typing import cast

import torch
from torch import Tensor, nn

from models import zoo
from models.preprocess import IMAGENET, normalise


class Student(nn.Module):
    """`features` of AlexNet, VGG or the like, normalised after each convolution.

    >>> student = Student("alexnet")
    >>> [tuple(x.shape[1:]) for x in student(torch.zeros(2, 3, 96, 96, dtype=torch.uint8))]
    [(64, 23, 23), (192, 11, 11), (384, 5, 5), (256, 5, 5), (256, 5, 5)]
    """

    def __init__(self, network: str) -> None:
        super().__init__()
        plain = zoo.build(zoo.network(network)).get_submodule("features")
        self.network = network
        self.layers = nn.ModuleDict(
            {
                name: _Normalised(module) if isinstance(module, nn.Conv2d) else module
                for name, module in plain.named_children()
                if isinstance(module, nn.Conv2d | nn.MaxPool2d)
            }
        )
        self.channels = [block.convolution.out_channels for block in self._blocks().values()]

    def forward(self, views: Tensor) -> list[Tensor]:
        """B×3×H×W uint8 RGB to the rectified output of every convolution, B×C×H×W each."""
        x = normalise(views, IMAGENET).contiguous(memory_format=torch.channels_last)
        outputs = []
        for layer in self.layers.values():
            x = layer(x)
            if isinstance(layer, _Normalised):
                outputs.append(x)
        return outputs

    def folded(self) -> dict[str, Tensor]:
        """The parameters of the plain trunk, float16 on the CPU, by torchvision's names.

        With y = γ·(w∗x - μ)/σ + β, the plain convolution has w·γ/σ and the bias β - μ·γ/σ.
        """
        parameters = {}
        for name, block in self._blocks().items():
            weight, bias = block.folded()
            parameters[f"features.{name}.weight"] = _half(weight)
            parameters[f"features.{name}.bias"] = _half(bias)
        return parameters

    def _blocks(self) -> dict[str, "_Normalised"]:
        return {name: m for name, m in self.layers.items() if isinstance(m, _Normalised)}


class _Normalised(nn.Sequential):
    """A convolution, its batch normalisation and the non-linearity."""

    def __init__(self, plain: nn.Conv2d) -> None:
        convolution = nn.Conv2d(
            plain.in_channels,
            plain.out_channels,
            kernel_size=plain.kernel_size,  # type: ignore[arg-type]
            stride=plain.stride,  # type: ignore[arg-type]
            padding=plain.padding,  # type: ignore[arg-type]
            bias=False,
        )
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        super().__init__(convolution, nn.BatchNorm2d(plain.out_channels), nn.ReLU(inplace=True))

    @property
    def convolution(self) -> nn.Conv2d:
        """The convolution, without a bias: the normalisation has one."""
        return cast(nn.Conv2d, self[0])

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of one convolution that does as much in evaluation mode."""
        norm = cast(nn.BatchNorm2d, self[1])
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None:
            raise TypeError("a normalisation without running statistics cannot be folded")
        scale = norm.weight / torch.sqrt(variance + norm.eps)
        weight = self.convolution.weight * scale[:, None, None, None]
        return weight, norm.bias - mean * scale


def _half(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float16, memory_format=torch.contiguous_format)
