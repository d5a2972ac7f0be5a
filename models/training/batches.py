"""Batches out of shards, in an order that a seed fixes: training resumes where it stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from models.training import shards

WINDOW = 8
"""Shards that are in memory, and shuffled, together."""


@dataclass
class Batches:
    """Batch n of the training is always batch n: pairs of views, shuffled within a few shards."""

    paths: Sequence[Path]
    size: int
    seed: int = 0
    _at: int = field(default=-1, init=False)
    _window: Mapping[str, Tensor] = field(default_factory=dict, init=False)

    def batch(self, n: int) -> dict[str, Tensor]:
        """`views` B×3×S×S uint8 and the teachers' targets, B×D float16."""
        per_window = min(WINDOW, len(self.paths)) * shards.SIZE // self.size
        at, within = divmod(n, per_window)
        if at != self._at:
            self._at, self._window = at, self._read(at)
        pairs = len(self._window["views"]) // 2
        order = torch.randperm(pairs, generator=self._random(at))
        chosen = order[within * self.size // 2 : (within + 1) * self.size // 2]
        rows = torch.stack([2 * chosen, 2 * chosen + 1], dim=1).flatten()
        return {name: value[rows] for name, value in self._window.items()}

    def _read(self, at: int) -> dict[str, Tensor]:
        together = min(WINDOW, len(self.paths))
        windows = len(self.paths) // together
        epoch, place = divmod(at, windows)
        order = torch.randperm(len(self.paths), generator=self._random(-1 - epoch))
        chosen = order[place * together : (place + 1) * together].tolist()
        read = [shards.read(self.paths[number]) for number in chosen]
        return {name: torch.cat([shard[name] for shard in read]) for name in read[0]}

    def _random(self, n: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + n + 500_000)


def jittered(views: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """B×3×S×S uint8 to B×3×side×side uint8: a part of 72 to 100 % of the area, half mirrored.

    The teacher saw all of it and not mirrored; so little changes nothing that it says.
    """
    whole = views.shape[-1]
    draw = torch.rand(3, generator=generator).tolist()
    length = round(whole * (0.85 + 0.15 * draw[0]))
    top, left = (int(share * (whole - length + 1)) for share in draw[1:])
    part = views[..., top : top + length, left : left + length]
    if part.device.type != "cpu":  # Only there bytes are interpolated, and fast.
        part = part.float()
    scaled = F.interpolate(part, (side, side), mode="bilinear", antialias=True)
    scaled = scaled.round().clamp(0, 255).to(torch.uint8) if scaled.is_floating_point() else scaled
    mirrored = (torch.rand(len(views), generator=generator) < 0.5).to(scaled.device)
    scaled[mirrored] = scaled[mirrored].flip(-1)
    return scaled
