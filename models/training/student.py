"""A student: the convolutional trunk of a plain network with batch normalisation while it learns.

At the end the normalisation is folded into the convolutions, so that what is left has the very
keys and shapes of torchvision's network without it.
"""

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
                f"{name}": _normalised(module) if isinstance(module, nn.Conv2d) else module
                for name, module in plain.named_children()
                if isinstance(module, nn.Conv2d | nn.MaxPool2d)
            }
        )
        self.channels = [m[0].out_channels for m in self.layers.values() if _convolves(m)]

    def forward(self, views: Tensor) -> list[Tensor]:
        """B×3×H×W uint8 RGB to the rectified output of every convolution, B×C×H×W each."""
        x = normalise(views, IMAGENET).contiguous(memory_format=torch.channels_last)
        outputs = []
        for layer in self.layers.values():
            x = layer(x)
            if _convolves(layer):
                outputs.append(x)
        return outputs

    def folded(self) -> dict[str, Tensor]:
        """The parameters of the plain trunk, float16 on the CPU, by torchvision's names.

        With y = γ·(w∗x - μ)/σ + β, the plain convolution has w·γ/σ and the bias β - μ·γ/σ.
        """
        parameters = {}
        for name, layer in self.layers.items():
            if isinstance(layer, nn.Sequential):
                convolution, norm = layer[0], layer[1]
                scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                weight = convolution.weight * scale[:, None, None, None]
                parameters[f"features.{name}.weight"] = weight
                parameters[f"features.{name}.bias"] = norm.bias - norm.running_mean * scale
        return {name: _half(value) for name, value in parameters.items()}


def _convolves(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Sequential)


def _normalised(plain: nn.Conv2d) -> nn.Sequential:
    convolution = nn.Conv2d(
        plain.in_channels,
        plain.out_channels,
        kernel_size=plain.kernel_size,  # type: ignore[arg-type]
        stride=plain.stride,  # type: ignore[arg-type]
        padding=plain.padding,  # type: ignore[arg-type]
        bias=False,
    )
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(plain.out_channels), nn.ReLU(inplace=True))


def _half(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float16, memory_format=torch.contiguous_format)
