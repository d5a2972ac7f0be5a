"""How the activation of a layer becomes one vector: MAC, SPoC, GeM, CroW, R-MAC, flatten.

And hellinger and VLAD, which pool the grids of counts and residuals that are made by hand.

Every operator takes X, float32 of shape B×C×H×W (non-negative where it follows a ReLU), and
gives B×D float32, not yet normalised.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor

import torch
from torch import Tensor
from torch.nn import functional as F


def mac(x: Tensor) -> Tensor:
    """Maximum activations of convolutions: max over H, W (Tolias et al. 2016, eq. 2). B×C."""
    return x.amax(dim=(2, 3))


def spoc(x: Tensor, centre: float = 0.0) -> Tensor:
    """Sum-pooled convolutional features: the mean over H, W (Babenko & Lempitsky 2015, eq. 2). B×C.

    `centre` 1 weighs positions by the paper's Gaussian prior (eq. 3), whose σ is a third of the
    distance between the centre and the closest border.
    """
    return (x * spoc_weights(x, centre)).mean(dim=(2, 3))


def spoc_weights(x: Tensor, centre: float) -> Tensor:
    """What SPoC weighs each position by: H×W, or 1 without the centre prior."""
    if not centre:
        return x.new_ones(())
    height, width = x.shape[-2:]
    down = torch.arange(height, device=x.device) - (height - 1) / 2
    across = torch.arange(width, device=x.device) - (width - 1) / 2
    sigma = max(min(height, width) / 2 / 3, 1e-6)
    squared = down.square()[:, None] + across.square()[None, :]
    return torch.exp(-squared / (2 * sigma**2))


def gem(x: Tensor, p: float = 3.0) -> Tensor:
    """Generalised mean (mean max(x, 1e-6)^p)^(1/p) (Radenović et al. 2018, eq. 3). B×C.

    p = 1 is SPoC and p → ∞ is MAC.

    >>> gem(torch.tensor([[[[1.0, 2.0], [2.0, 3.0]]]]), p=3.0).item() ** 3  # (1+8+8+27) / 4
    11.0...
    """
    mean = x.clamp(min=1e-6).pow(p).mean(dim=(2, 3))
    root: Tensor = mean.pow(1.0 / p)
    return root


def crow(x: Tensor) -> Tensor:
    """Cross-dimensional weighting (Kalantidis et al. 2016, section 3). B×C.

    A position weighs (S/‖S‖₂)^½ with S = Σ_k X_k; a channel weighs log(ΣQ/Q_k), where Q_k is
    its share of non-zero positions: rare channels say more, as rare words do.
    """
    position, channel = crow_weights(x)
    weighed: Tensor = (x * position).sum(dim=(2, 3)) * channel
    return weighed


def crow_weights(x: Tensor) -> tuple[Tensor, Tensor]:
    """CroW's weights of positions, B×1×H×W, and of channels, B×C."""
    total = x.sum(dim=1, keepdim=True).clamp(min=0)
    position = (total / total.flatten(1).norm(dim=1).view(-1, 1, 1, 1).clamp(min=1e-12)).sqrt()
    share = (x > 0).to(x.dtype).mean(dim=(2, 3))
    channel = (share.sum(dim=1, keepdim=True) / share).log()
    # A channel without any activation adds nothing, whatever its weight.
    return position, torch.where(share > 0, channel, torch.zeros_like(channel))


def rmac_regions(height: int, width: int, levels: int = 3) -> list[tuple[int, int, int]]:
    """The square regions of R-MAC as (top, left, side) (Tolias et al. 2016, section 3.2).

    At scale l the side is ⌊2·min(W, H)/(l+1)⌋. The longer dimension takes as many more regions
    as bring the overlap of neighbours closest to 40 %.

    >>> len(rmac_regions(7, 7))  # 1 + 4 + 9
    14
    """
    short, long = min(height, width), max(height, width)
    extra = 0
    if long > short:
        gaps = {n: (long - short) / n for n in range(1, 7)}
        extra = min(gaps, key=lambda n: abs((short - gaps[n]) / short - 0.4))
    more_down, more_across = (extra, 0) if height > width else (0, extra)
    regions = []
    for level in range(1, levels + 1):
        side = floor(2 * short / (level + 1))
        if side < 1:
            continue
        tops = _spread(height, side, level + more_down)
        lefts = _spread(width, side, level + more_across)
        regions += [(top, left, side) for top in tops for left in lefts]
    return regions


def _spread(length: int, side: int, count: int) -> list[int]:
    """`count` starts that spread regions of `side` evenly over `length`."""
    step = (length - side) / (count - 1) if count > 1 else 0.0
    return [floor(n * step) for n in range(count)]


def rmac(x: Tensor, levels: float = 3) -> Tensor:
    """Regional MAC: Σ over regions of the L2-normalised MAC (Tolias et al. 2016, eq. 4). B×C."""
    height, width = x.shape[2:]
    regions = rmac_regions(height, width, int(levels))
    # Channels last, and a strip of rows once for all regions in it: five times as fast as `mac` of
    # each region, which reads short runs of one channel.
    last = x.permute(0, 2, 3, 1).contiguous()
    rows = {(top, side) for top, _, side in regions}
    strips = {(top, side): last[:, top : top + side].amax(dim=1) for top, side in rows}
    maxima = [strips[top, side][:, left : left + side].amax(dim=1) for top, left, side in regions]
    return F.normalize(torch.stack(maxima), dim=2).sum(dim=0)


def flatten(x: Tensor) -> Tensor:
    """Every activation where it stands, channel by channel and row by row. B×(C·H·W)."""
    return x.flatten(1)


def hellinger(x: Tensor) -> Tensor:
    """The square root of the mean over H, W: the inner product of two is Σ √(p_k·q_k). B×C.

    Of histograms this is the Bhattacharyya coefficient, of which Hellinger's distance is made: few
    large counts do not decide alone (Arandjelović & Zisserman 2012, section 2).

    >>> hellinger(torch.tensor([[[[0.5, 0.0]], [[0.5, 1.0]]]])).square()
    tensor([[0.2500, 0.7500]])
    """
    return x.mean(dim=(2, 3)).clamp(min=0).sqrt()


def vlad(x: Tensor, words: float = 64) -> Tensor:
    """Vectors of locally aggregated descriptors from residuals by cell. B×C.

    C is `words` times D. Σ over H, W gives each word's residual (Jégou et al. 2010, section 3.1),
    which is L2-normalised by itself: intra-normalisation (Arandjelović & Zisserman 2013, section
    3.1); then each component z becomes sign(z)·√|z| (Jégou et al. 2012, section 3.1).
    """
    residuals = x.sum(dim=(2, 3)).reshape(len(x), int(words), -1)
    normalised = F.normalize(residuals, dim=2).flatten(1)
    return normalised.sign() * normalised.abs().sqrt()


@dataclass(frozen=True)
class Pooling:
    """A row of the table: the operator, and the parameters a spec may set.

    `parameters` are the defaults, `ranges` the smallest and largest values that make sense.
    `divisor` names the parameter that must divide the number of channels, `exponent` that of the
    generalised mean that it is.
    """

    operator: Callable[..., Tensor]
    parameters: Mapping[str, float] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    divisor: str | None = None
    exponent: str | None = None


POOLINGS: Mapping[str, Pooling] = {
    "mac": Pooling(mac),
    "spoc": Pooling(spoc, {"centre": 0.0}, {"centre": (0, 1)}),
    "gem": Pooling(gem, {"p": 3.0}, {"p": (0.1, 20)}, exponent="p"),
    "crow": Pooling(crow),
    "rmac": Pooling(rmac, {"levels": 3.0}, {"levels": (1, 8)}),
    "flatten": Pooling(flatten),
    "hellinger": Pooling(hellinger),
    "vlad": Pooling(vlad, {"words": 64.0}, {"words": (1, 4096)}, divisor="words"),
}


def pool(activation: Tensor, pooling: str, **parameters: float) -> Tensor:
    """Pool B×C×H×W by name and L2-normalise: B×D float32.

    A vector of zeros (a black picture in a dead layer) stays zero rather than becoming NaN.
    """
    return F.normalize(POOLINGS[pooling].operator(activation.float(), **parameters), dim=1)


def pool_joined(activations: Sequence[Tensor], pooling: str, **parameters: float) -> Tensor:
    """Pool several layers, B×C×H×W each, concatenate with equal weights, L2-normalise: B×ΣD.

    >>> one, other = torch.ones(1, 2, 3, 3), torch.ones(1, 2, 5, 5)
    >>> pool_joined([one, other], "spoc").tolist()
    [[0.5, 0.5, 0.5, 0.5]]
    """
    return join([pool(activation, pooling, **parameters) for activation in activations])


def join(each: Sequence[Tensor]) -> Tensor:
    """Concatenate L2-normalised vectors, B×D each, with equal weights, L2-normalise: B×ΣD."""
    return each[0] if len(each) == 1 else F.normalize(torch.cat(list(each), dim=1), dim=1)
