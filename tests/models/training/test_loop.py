"""The loop: it learns, and a training that was killed ends where one that was not would have."""

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.errors import TrainingError
from models.training.loop import CHECKPOINT, Plan, Progress, train


class Line:
    """Learns y = 2x + 1 from noisy points, a batch of its own for every step."""

    batch_size = 16

    def __init__(self, width: int = 1) -> None:
        torch.manual_seed(3)
        self.module: nn.Module = nn.Linear(1, width)

    def losses(self, step: int) -> Mapping[str, Tensor]:
        x = torch.randn(16, 1, generator=torch.Generator().manual_seed(step))
        return {"square": (self.module(x) - (2 * x + 1)).square().mean()}


PLAN = Plan(steps=400, learning_rate=0.05, weight_decay=0.0, warmup=20, average=0.95)


def test_it_learns(tmp_path: Path) -> None:
    trained = train(Line(), PLAN, tmp_path)
    weight, bias = (float(value) for value in trained.state_dict().values())
    assert (weight, bias) == (pytest.approx(2, abs=0.02), pytest.approx(1, abs=0.02))
    assert not trained.training


def test_interrupted_it_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    whole = train(Line(), PLAN, tmp_path / "whole")

    def interrupt(now: Progress) -> None:
        if now.step == 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Line(), PLAN, tmp_path / "legs", progress=interrupt)
    seen: list[int] = []
    resumed = train(Line(), PLAN, tmp_path / "legs", progress=lambda now: seen.append(now.step))
    assert seen[0] == 151
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters()))  # noqa: B905


class Counting(Line):
    """Normalises, which moves running means on every forward pass; fails once within a step."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.module = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self._fails_at = fails_at

    def losses(self, step: int) -> Mapping[str, Tensor]:
        found = super().losses(step)
        if step == self._fails_at:
            raise KeyboardInterrupt
        return found


def test_interrupted_within_a_step_nothing_is_counted_twice(tmp_path: Path) -> None:
    whole = train(Counting(), PLAN, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Counting(fails_at=150), PLAN, tmp_path / "legs")
    resumed = train(Counting(), PLAN, tmp_path / "legs")
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


SLOWLY = """
import sys, time
from dataclasses import replace
from pathlib import Path
from tests.models.training.test_loop import Line, PLAN
from models.training.loop import train
train(Line(), replace(PLAN, checkpoint_every_s=0.0), Path(sys.argv[1]),
      progress=lambda now: time.sleep(0.01))
"""


def test_killed_it_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(folder)])
    try:
        end = time.monotonic() + 60
        while not (folder / CHECKPOINT).exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.5)
    finally:
        process.kill()
        process.wait()
    seen: list[int] = []
    resumed = train(Line(), PLAN, folder, progress=lambda now: seen.append(now.step))
    assert seen[0] > 1
    whole = train(Line(), PLAN, tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters()))  # noqa: B905


def test_what_is_reported_counts_every_step(tmp_path: Path) -> None:
    reports: list[Progress] = []
    train(Line(), Plan(steps=5, warmup=1), tmp_path, progress=reports.append)
    assert [(now.step, now.steps) for now in reports] == [(n, 5) for n in range(1, 6)]
    assert all(now.views_per_s > 0 for now in reports)


def test_tensorboard_finds_its_log(tmp_path: Path) -> None:
    train(Line(), Plan(steps=40, warmup=1), tmp_path)
    (events,) = (tmp_path / "log").glob("events.out.tfevents.*")
    content = events.read_bytes()
    for tag in (b"loss/square", b"learning_rate", b"views_per_s"):
        assert tag in content


@pytest.mark.parametrize("change", [{"steps": 3}, {"recipe": "other"}, {"learning_rate": 0.1}])
def test_a_checkpoint_of_another_plan_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    plan = Plan(steps=2, warmup=1, recipe="one")
    train(Line(), plan, tmp_path)
    with pytest.raises(TrainingError) as refused:
        train(Line(), replace(plan, **change), tmp_path)
    assert refused.value.code == "training-plan-differs"
    assert CHECKPOINT in str(refused.value)


def test_a_checkpoint_of_another_module_is_refused(tmp_path: Path) -> None:
    train(Line(), Plan(steps=2, warmup=1), tmp_path)
    with pytest.raises(TrainingError) as refused:
        train(Line(width=2), Plan(steps=2, warmup=1), tmp_path)
    assert refused.value.code == "training-plan-differs"


def test_two_trainings_in_one_folder_do_not_overwrite_each_other(tmp_path: Path) -> None:
    def again(now: Progress) -> None:
        with pytest.raises(TrainingError) as refused:
            train(Line(), Plan(steps=2, warmup=1), tmp_path)
        assert refused.value.code == "training-under-way"

    train(Line(), Plan(steps=2, warmup=1), tmp_path, progress=again)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    class Diverging(Line):
        def losses(self, step: int) -> Mapping[str, Tensor]:
            return {"square": super().losses(step)["square"] * float("inf" if step == 3 else 1)}

    with pytest.raises(TrainingError) as refused:
        train(Diverging(), Plan(steps=9, warmup=1), tmp_path)
    assert refused.value.code == "training-diverged"
    assert "step 3" in str(refused.value)


def test_biases_and_scales_do_not_decay(tmp_path: Path) -> None:
    class Idle(Line):
        def losses(self, step: int) -> Mapping[str, Tensor]:
            return {"none": sum(p.sum() for p in self.module.parameters()) * 0.0}

    idle = Idle()
    before = {name: value.clone() for name, value in idle.module.state_dict().items()}
    train(idle, Plan(steps=30, warmup=1, weight_decay=0.5), tmp_path)
    after = idle.module.state_dict()
    assert abs(float(after["weight"])) < abs(float(before["weight"]))
    assert torch.equal(after["bias"], before["bias"])
