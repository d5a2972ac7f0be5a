"""Teachers: trained networks whose features and logits a student learns to give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from models import geometry
from models.activations import loaded
from models.errors import SpecError
from models.preprocess import normalise
from models.weights import Weights

CLASSES = 1000


@dataclass(frozen=True)
class _One:
    """A teacher's network on a device, and the nodes of its features and logits."""

    weights: Weights
    features: str
    logits: str
    module: nn.Module


class Teachers:
    """Several trained networks that look at the same views.

    Their convolutions and normalisations are fused, which changes no number beyond rounding: a
    teacher is run once over every view, and is the greater part of the work of preparing them.
    """

    def __init__(self, weights: Sequence[Weights], device: torch.device) -> None:
        """Load one network for each of `weights`.

        Raises WeightsError, and SpecError (`spec-unknown-layer`) for a network without logits of
        ImageNet's classes.
        """
        self.weights = tuple(weights)
        self.device = device
        self._all = [_load(one, device) for one in weights]

    def targets(self, views: Tensor) -> Mapping[str, Tensor]:
        """B×3×H×W uint8 RGB to float16: `<network>/features` B×D and `<network>/logits` B×1000.

        Features are the mean over the grid of the last layer that has one (SPoC), not normalised.
        """
        found = {}
        with torch.inference_mode():
            for one in self._all:
                x = normalise(views.to(self.device), one.weights.preprocessing)
                outputs = one.module(x.contiguous(memory_format=torch.channels_last))
                name = one.weights.network
                found[f"{name}/features"] = outputs[one.features].mean(dim=(2, 3)).half().cpu()
                found[f"{name}/logits"] = outputs[one.logits].half().cpu()
        return found


def _load(weights: Weights, device: torch.device) -> _One:
    layers = list(geometry.layers(weights.network).values())
    logits = next((n for n in reversed(layers) if n.flat and n.channels == CLASSES), None)
    grid = [layer for layer in layers if layer.stride and layer.channel_axis == 1]
    if logits is None or not grid:
        raise SpecError(
            "spec-unknown-layer", f"{weights.network} has no logits to teach by: take another"
        )
    level = next((layer for layer in grid if layer.level == "high"), grid[-1])
    module = loaded(weights, [level.name, logits.name])
    fused = fuse(module).to(device).to(memory_format=torch.channels_last)
    return _One(weights, level.node, logits.node, fused)
