"""A truncated network as every runtime takes it: uint8 pixels in, the activations in order out."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, fx, nn

from models.preprocess import Preprocessing, normalise

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
"""torch's types by our names."""


class UnfitError(Exception):
    """A runtime does not run a network as it must; the message says why."""


class FromPixels(nn.Module):
    """A truncated network with its normalisation: B×3×H×W uint8 RGB to a tuple by `nodes`.

    A tuple, as compilers keep its order, which they promise of no mapping.
    """

    def __init__(self, cut: fx.GraphModule, nodes: Sequence[str], how: Preprocessing) -> None:
        super().__init__()
        self.cut = cut
        self.nodes = tuple(nodes)
        self.how = how

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Float32 in, whatever the parameters are: what is cast is cast behind normalisation."""
        x = normalise(pixels, self.how)
        outputs = self.cut(x.to(self.precision))
        return tuple(outputs[node] for node in self.nodes)

    def placed(self, device: torch.device, precision: str) -> Self:
        """This network, moved to a device and a precision; int8 is simulated in float32.

        Channels lie last, as the vector units and tensor cores of convolutions read them.
        """
        moved = self.to(device, dtype=DTYPES.get(precision, torch.float32))
        return moved.to(memory_format=torch.channels_last).eval()

    @property
    def precision(self) -> torch.dtype:
        """Of the parameters; float32 where there are none."""
        first = next(self.cut.parameters(), None)
        return torch.float32 if first is None else first.dtype
