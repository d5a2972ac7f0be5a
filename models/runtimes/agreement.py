"""Whether a runtime computes what the network is: measured before it is used.

Compilers and half precision may be wrong for one network and right for the next, so each is
compared with the same network in torch and float32.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Runs = Callable[[Tensor], Sequence[Tensor]]

TOLERANCE = {"f32": 0.9999, "bf16": 0.999, "f16": 0.999, "int8": 0.99}
"""The least cosine of `pictures` to those in float32 (for int8: to int8 simulated in float32).

Above it a descriptor is the same descriptor: neither runtime nor precision is in its fingerprint.
`benchmarks.precision` is what .999 rests on: bfloat16 gives AlexNet and SqueezeNet .99998 here,
.9996 on photographs and the same mAP within .001; MobileNetV2 .9977 here, .987 on photographs and
an mAP that moves by .011, which is why it is refused there. float16 passes everywhere.
"""

PICTURES = 4


def pictures(side: int) -> Tensor:
    """PICTURES×3×side×side uint8: colours that change smoothly and edges, as photographs have.

    >>> pictures(64).shape
    torch.Size([4, 3, 64, 64])
    """
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.random((PICTURES, 3, 9, 9), dtype=np.float32))
    smooth = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    edges = F.interpolate(coarse.flip(0), size=(side, side), mode="nearest")
    mixed = (0.6 * smooth + 0.4 * edges).clamp(0, 1)
    return (mixed * 255).to(torch.uint8)


def least_cosine(one: Runs, other: Runs, side: int) -> float:
    """The least cosine between what two runtimes make of `pictures`, over layers.

    Of activations that are averaged over positions, as descriptors are; a layer without any
    activation agrees where both have none.
    """
    seen = pictures(side)
    found = [
        _cosines(_averaged(mine), _averaged(theirs)).min().item()
        for mine, theirs in zip(one(seen), other(seen), strict=True)
    ]
    return min(found)


def _averaged(x: Tensor) -> Tensor:
    """B×C of any activation: the channels are axis 1, or the last one where there are tokens."""
    if x.ndim == 3:
        return x.mean(dim=1)
    return x.flatten(2).mean(dim=2) if x.ndim > 3 else x


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.double().cpu(), b.double().cpu()
    both_silent = (a.norm(dim=1) == 0) & (b.norm(dim=1) == 0)
    cosines = F.cosine_similarity(a, b, dim=1)
    # A runtime that gives NaN agrees with nothing.
    return torch.where(both_silent, 1.0, cosines.nan_to_num(-1.0))
