"""One picture at several scales in one descriptor: `…/ms`, a forward pass for each scale.

The scales 1, 1/√2 and 1/2 and the mean over them are those of Radenović, Tolias & Chum (2018), as
their cirtorch computes them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.pooling import POOLINGS

SINGLE = (1.0,)
SEVERAL = (1.0, 2**-0.5, 0.5)


def resized(pixels: Tensor, scale: float, smallest: int) -> Tensor:
    """B×3×H×W uint8 at a scale, by bilinear interpolation, rounded: what runtimes take is uint8.

    A scale that would make the shorter side less than `smallest` pixels is raised to that.

    >>> resized(torch.zeros(1, 3, 224, 224, dtype=torch.uint8), 2**-0.5, 63).shape
    torch.Size([1, 3, 158, 158])
    >>> resized(torch.zeros(1, 3, 100, 200, dtype=torch.uint8), 0.5, 63).shape
    torch.Size([1, 3, 63, 126])
    """
    height, width = pixels.shape[-2:]
    scale = min(max(scale, smallest / min(height, width)), 1.0)
    if scale == 1:
        return pixels
    size = (round(height * scale), round(width * scale))
    scaled = F.interpolate(pixels.float(), size, mode="bilinear", align_corners=False)
    return scaled.round_().to(torch.uint8)


def combine(each: Sequence[Tensor], pooling: str, **parameters: float) -> Tensor:
    """The mean over scales of B×D pooled, L2-normalised vectors, L2-normalised: B×D.

    Where the pooling is itself a generalised mean (GeM), so is this, with the same exponent p:
    (mean v^p)^(1/p).

    >>> small, large = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> combine([large, small], "spoc")
    tensor([[0.7071, 0.7071]])
    """
    if len(each) == 1:
        return each[0]
    row = POOLINGS[pooling]
    p = {**row.parameters, **parameters}[row.exponent] if row.exponent else 1.0
    vectors = torch.stack(list(each))
    if p == 1:
        return F.normalize(vectors.mean(dim=0), dim=1)
    # Over the largest: the 20th power of one of 2,048 channels would be nothing in float32.
    largest = vectors.amax(dim=0).clamp(min=1e-12)
    mean = largest * (vectors / largest).pow(p).mean(dim=0).pow(1.0 / p)
    return F.normalize(mean, dim=1)
