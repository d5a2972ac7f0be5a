"""A truncated network that runs: prepared pictures in, the activations of its layers out."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from models import runtime, spec
from models.activations import channels_first
from models.runtime import RuntimeChoice
from models.weights import Weights


class Trunk:
    """A truncated network with its weights on a device.

    >>> from models.weights import WeightsFolder
    >>> weights = WeightsFolder().resolve("alexnet", "untrained")
    >>> trunk = Trunk(weights, ["conv1", "conv5"], torch.device("cpu"))
    >>> activations = trunk(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
    >>> {name: tuple(x.shape) for name, x in activations.items()}
    {'conv1': (1, 64, 55, 55), 'conv5': (1, 256, 13, 13)}
    """

    def __init__(
        self,
        weights: Weights,
        layers: Iterable[str],
        device: torch.device,
        choice: RuntimeChoice | None = None,
    ) -> None:
        """Load what the layers need; `notices` says what has to be said aloud about how it runs.

        Raises SpecError for unknown layers, WeightsError for weights that do not fit, and
        DeviceError for a runtime that is not there or does not run them.
        """
        self.layers = {name: spec.find_layer(weights.network, name) for name in layers}
        self.preprocessing = weights.preprocessing
        self.device = device
        # Several names may stand for one node.
        nodes = list(dict.fromkeys(layer.node for layer in self.layers.values()))
        self._nodes = nodes
        self.runtime, self.notices = runtime.start(
            weights, list(self.layers), nodes, device, choice or RuntimeChoice()
        )

    def __call__(self, batch: Tensor) -> Mapping[str, Tensor]:
        """B×3×H×W uint8 RGB to {layer: B×C×H×W float32}; without a grid it is B×C×1×1."""
        with torch.inference_mode():
            outputs = dict(zip(self._nodes, self.runtime(batch), strict=True))
            return {
                name: channels_first(outputs[layer.node], layer.channel_axis)
                for name, layer in self.layers.items()
            }
