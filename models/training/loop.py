"""The loop: steps of AdamW on whatever is to be learnt, with checkpoints that survive a kill.

Step n depends on the checkpoint and on n alone, so training that was killed and resumed ends at
the same weights as training that was not (on one machine, in one number of threads).
"""

import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from tensorboardX import SummaryWriter
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.errors import TrainingError

CHECKPOINT = "checkpoint.pt"
_LOG_EVERY = 20


@dataclass(frozen=True)
class Plan:
    """How long and how fast. The learning rate rises over `warmup` steps and falls as a cosine.

    `average` is the decay of the running mean of the weights that is the result
    (Tarvainen & Valpola 2017). `recipe` is a hash of all that the batches are made of: a checkpoint
    of another recipe is not gone on with.
    """

    steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 200
    average: float = 0.998
    recipe: str = ""
    checkpoint_every_s: float = 60.0

    def rate(self, step: int) -> float:
        """The share of `learning_rate` at a step, 0…1.

        >>> plan = Plan(steps=1200, warmup=200)
        >>> [round(plan.rate(step), 2) for step in (99, 199, 700, 1199)]
        [0.5, 1.0, 0.5, 0.0]
        """
        if step < self.warmup:
            return (step + 1) / self.warmup
        along = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * along))


class Learner(Protocol):
    """What the loop trains: a module, and its named losses at a step, which are summed."""

    batch_size: int

    @property
    def module(self) -> nn.Module:
        """All that is learnt."""
        ...

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """The losses of the batch of that step, and of no other."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far a training is: views per second, the loss smoothed over the last steps."""

    step: int
    steps: int
    views_per_s: float
    loss: float


def train(
    learner: Learner,
    plan: Plan,
    folder: Path,
    precision: torch.dtype = torch.float32,
    progress: Callable[[Progress], None] | None = None,
) -> nn.Module:
    """Train from the checkpoint in `folder`, or from the start; return the averaged module.

    Checkpoints are written every minute, at the end, and when an exception ends the training
    between two steps; within a step all is half done, and the last checkpoint stands. Losses,
    learning rate and speed go to `folder` in TensorBoard's format.

    Raises TrainingError: `training-plan-differs` where the checkpoint is of another plan or module,
    `training-under-way` where another process trains in this folder, `training-diverged` where a
    loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        return _trained(_State(learner, plan, folder), learner, precision, progress)


def _trained(
    state: "_State",
    learner: Learner,
    precision: torch.dtype,
    progress: Callable[[Progress], None] | None,
) -> nn.Module:
    plan, folder = state.plan, state.path.parent
    log = SummaryWriter(str(folder / "log"), purge_step=state.step)
    device = next(learner.module.parameters()).device
    smoothed, since, started = math.nan, state.step, time.monotonic()
    saved = started
    try:
        while state.step < plan.steps:
            state.whole = False
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                losses = learner.losses(state.step)
            loss = state.advance(losses)
            smoothed = loss if math.isnan(smoothed) else 0.98 * smoothed + 0.02 * loss
            now = time.monotonic()
            speed = (state.step - since) * learner.batch_size / (now - started)
            if state.step % _LOG_EVERY == 0:
                _log(log, state, losses, speed)
            if now - saved > plan.checkpoint_every_s:
                state.save()
                saved = now
            if progress is not None:
                progress(Progress(state.step, plan.steps, speed, smoothed))
    finally:
        if state.whole:
            state.save()
        log.close()
    averaged: nn.Module = state.averaged.module
    return averaged.eval()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no second process write to the same checkpoint; dying unlocks it."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                "training-under-way",
                f"another process trains in {folder}: wait for it, or train in another folder",
            ) from error
        yield


class _State:
    """All that a step changes."""

    def __init__(self, learner: Learner, plan: Plan, folder: Path) -> None:
        self.step = 0
        self.whole = True  # not within a step
        self.plan = plan
        self.path = folder / CHECKPOINT
        self.module = learner.module.train()
        self.optimizer = torch.optim.AdamW(
            _groups(self.module, plan.weight_decay), lr=plan.learning_rate
        )
        self.averaged = AveragedModel(
            self.module,
            multi_avg_fn=get_ema_multi_avg_fn(plan.average),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        if self.path.exists():
            self._load()

    def advance(self, losses: Mapping[str, Tensor]) -> float:
        """One step down the sum of the losses, which is returned."""
        total = torch.stack(list(losses.values())).sum()
        loss = float(total.detach())
        if not math.isfinite(loss):
            raise TrainingError(
                "training-diverged",
                f"the loss is {loss} at step {self.step}: lower the learning rate and start anew",
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.learning_rate * self.plan.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.averaged.update_parameters(self.module)
        self.step += 1
        self.whole = True
        return loss

    def save(self) -> None:
        aside = self.path.with_suffix(".part")
        with aside.open("wb") as file:
            torch.save(self._all(), file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)

    def _all(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "plan": _lasting(self.plan),
            "module": self.module.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def _load(self) -> None:
        stored = torch.load(self.path, map_location="cpu", weights_only=True)
        if stored["plan"] != _lasting(self.plan):
            raise TrainingError(
                "training-plan-differs",
                f"{self.path} is of the plan {stored['plan']}, this is {_lasting(self.plan)}: "
                "train with the former, or in another folder",
            )
        try:
            self.module.load_state_dict(stored["module"])
            self.averaged.load_state_dict(stored["averaged"])
        except RuntimeError as error:
            raise TrainingError(
                "training-plan-differs",
                f"{self.path} is of another module ({error}): train in another folder",
            ) from error
        self.optimizer.load_state_dict(stored["optimizer"])
        self.step = stored["step"]


def _lasting(plan: Plan) -> dict[str, float | str]:
    """What of a plan must not change while it is carried out."""
    facts = asdict(plan)
    del facts["checkpoint_every_s"]
    return facts


def _groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights of convolutions and maps decay; biases, normalisations and scales do not."""
    learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in learnt if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in learnt if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _log(log: SummaryWriter, state: _State, losses: Mapping[str, Tensor], speed: float) -> None:
    for name, value in losses.items():
        log.add_scalar(f"loss/{name}", float(value.detach()), state.step)
    log.add_scalar("learning_rate", state.optimizer.param_groups[0]["lr"], state.step)
    log.add_scalar("views_per_s", speed, state.step)
