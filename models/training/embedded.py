"""The recipe of the embedded weights: AlexNet's trunk, taught by teachers or by contrast."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.training.batches import Batches, jittered
from models.training.objectives import Contrast, Distillation
from models.training.shards import read
from models.training.student import Student

NETWORK = "alexnet"
FILE = "alexnet-embedded.safetensors"
STAGES: Sequence[tuple[float, int]] = ((0.0, 96), (0.65, 112), (0.9, 128))
"""From which share of the steps on views have which side: small ones first, they cost less."""


class Lesson:
    """A student before its shards: what the loop trains."""

    def __init__(
        self, paths: Sequence[Path], steps: int, batch_size: int, seed: int, device: torch.device
    ) -> None:
        """With targets in the shards the student is taught, without any it learns by contrast."""
        self.batch_size = batch_size
        self.device = device
        self._steps = steps
        self._seed = seed
        self._batches = Batches(paths, batch_size, seed)
        targets = {name: value for name, value in read(paths[0]).items() if name != "views"}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.student = Student(NETWORK)
            channels = self.student.channels
            self.objective = Distillation(channels, targets) if targets else Contrast(channels)
        self.module = nn.ModuleDict({"student": self.student, "objective": self.objective})
        self.module.to(device).to(memory_format=torch.channels_last)

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """The losses of batch `step`."""
        batch = self._batches.batch(step)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        views = jittered(batch.pop("views").to(self.device), self._side(step), generator)
        targets = {name: value.to(self.device) for name, value in batch.items()}
        losses: Mapping[str, Tensor] = self.objective(self.student(views), targets)
        return losses

    def _side(self, step: int) -> int:
        return [side for share, side in STAGES if step >= share * self._steps][-1]


def save(trained: nn.Module, path: Path, facts: Mapping[str, object]) -> None:
    """Fold the student of a trained lesson; write it as float16 safetensors with `facts` inside."""
    student = trained.get_submodule("student")
    if not isinstance(student, Student):
        raise TypeError(f"{type(student).__name__} is no student")
    aside = path.with_suffix(".part")
    save_file(student.folded(), aside, {"made by": json.dumps(facts, sort_keys=True)})
    aside.replace(path)
