"""Which positions of a grid make up its pooled vector: one row for each pooling.

Every function takes X, C×H×W float32, and gives A of the same shape: the part that each activation
has in its pooled channel, so that Σ A over H, W is the pooled vector before it is normalised. For
SPoC and CroW, sums over positions, these are the summands. MAC and GeM are homogeneous of degree 1,
f(tX) = t·f(X), and by Euler's theorem Σ X·∂f/∂X = f(X): A is activation × gradient, the gradient
written out. R-MAC is a sum of MACs over their norms, which are held fixed (with them R-MAC would be
of degree 0, and activation × gradient would sum to nothing), as are CroW's weights. The square
roots of Hellinger and VLAD are shared out in proportion to what stands under them.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from models import pooling
from models.pooling import crow_weights, rmac_regions, spoc_weights


def mac(x: Tensor) -> Tensor:
    """The maximum where it stands; positions that are equally high share it.

    >>> mac(torch.tensor([[[1.0, 4.0], [4.0, 0.0]]])).tolist()
    [[[0.0, 2.0], [2.0, 0.0]]]
    """
    peak = x.amax(dim=(1, 2), keepdim=True)
    highest = (x == peak).to(x.dtype)
    return peak * highest / highest.sum(dim=(1, 2), keepdim=True)


def spoc(x: Tensor, centre: float = 0.0) -> Tensor:
    """X over H·W, weighed by the centre prior where there is one."""
    height, width = x.shape[1:]
    return x * spoc_weights(x, centre) / (height * width)


def gem(x: Tensor, p: float = 3.0) -> Tensor:
    """f · x^p / Σ x^p: activation × gradient of the generalised mean f."""
    powers = x.clamp(min=1e-6).pow(p)
    pooled = pooling.gem(x[None], p)[0, :, None, None]
    return pooled * powers / powers.sum(dim=(1, 2), keepdim=True)


def crow(x: Tensor) -> Tensor:
    """X weighed by position and by channel."""
    position, channel = crow_weights(x[None])
    return x * position[0] * channel[0, :, None, None]


def rmac(x: Tensor, levels: float = 3) -> Tensor:
    """The sum over regions of their MAC's part, over the norm of the region's vector."""
    parts = torch.zeros_like(x)
    for top, left, side in rmac_regions(x.shape[1], x.shape[2], int(levels)):
        region = x[:, top : top + side, left : left + side]
        norm = region.amax(dim=(1, 2)).norm().clamp(min=1e-12)
        parts[:, top : top + side, left : left + side] += mac(region) / norm
    return parts


def hellinger(x: Tensor) -> Tensor:
    """√mean(X), shared out as X is: twice activation × gradient, for it is of degree ½."""
    return _shared(pooling.hellinger(x[None])[0], x)


def vlad(x: Tensor, words: float = 64) -> Tensor:
    """Each component of the vector, shared out as the residuals that add up to it."""
    return _shared(pooling.vlad(x[None], words)[0], x)


def _shared(pooled: Tensor, x: Tensor) -> Tensor:
    """`pooled` (C,) over the positions of X in proportion to them; nothing where they cancel."""
    total = x.sum(dim=(1, 2))
    scale = torch.where(total == 0, torch.zeros_like(total), pooled / total)
    return x * scale[:, None, None]


def flatten(x: Tensor) -> Tensor:
    """X itself: nothing is pooled, every activation is a channel of its own."""
    return x


ATTRIBUTIONS: Mapping[str, Callable[..., Tensor]] = {
    "mac": mac,
    "spoc": spoc,
    "gem": gem,
    "crow": crow,
    "rmac": rmac,
    "flatten": flatten,
    "hellinger": hellinger,
    "vlad": vlad,
}
