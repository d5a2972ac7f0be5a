"""A truncated network as every runtime takes it: uint8 pixels in, the activations in order out."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from models.preprocess import Preprocessing, normalise


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

    @property
    def precision(self) -> torch.dtype:
        """Of the parameters; float32 where there are none."""
        first = next(self.cut.parameters(), None)
        return torch.float32 if first is None else first.dtype
