"""PyTorch as it is, for every network and device: channels last, half precision where asked for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.runtimes.network import FromPixels


class Eager:
    """A network on a device, run operation by operation; safe in several threads."""

    name = "torch"

    def __init__(self, network: FromPixels, device: torch.device, precision: str) -> None:
        """Move the network there; in int8 it is simulated."""
        self.precision = precision
        self._device = device
        self._network = network.placed(device, precision)

    def __call__(self, pixels: Tensor) -> Sequence[Tensor]:
        """B×3×H×W uint8 RGB to float32 activations, in the order of the network's nodes."""
        with torch.inference_mode():
            outputs = self._network(pixels.to(self._device, non_blocking=True))
            return [output.float() for output in outputs]
