"""PyTorch's compiler: kernels are fused, and on CUDA a whole pass is replayed as one graph.

It compiles for one shape, which takes seconds to minutes; so a batch is filled up to one of a few
sizes, and what compiled before comes from torch's own cache on disk.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.runtimes.network import FromPixels

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Batches that are compiled for: at most half of a pass is filling."""


def filled(batch: int) -> int:
    """How many pictures the pass for so many has.

    >>> [filled(batch) for batch in (1, 3, 16, 100, 200)]
    [1, 4, 16, 128, 200]
    """
    return next((size for size in SIZES if size >= batch), batch)


class Compiled:
    """A network compiled by `torch.compile`, for one picture size as it comes; one thread only."""

    name = "compiled"

    def __init__(self, network: FromPixels, device: torch.device, precision: str) -> None:
        """Prepare it; the first pass of each size compiles."""
        self.precision = precision
        self._device = device
        mode = "reduce-overhead" if device.type == "cuda" else "default"
        placed = network.placed(device, precision)
        self._network = torch.compile(placed, mode=mode, dynamic=False)

    def __call__(self, pixels: Tensor) -> Sequence[Tensor]:
        """B×3×H×W uint8 RGB to float32 activations, in the order of the network's nodes."""
        count = len(pixels)
        missing = filled(count) - count
        if missing:
            pixels = torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])])
        with torch.inference_mode():
            outputs = self._network(pixels.to(self._device, non_blocking=True))
            # A replayed graph writes to the same memory at every pass: what leaves is copied.
            return [output[:count].to(torch.float32, copy=True) for output in outputs]
