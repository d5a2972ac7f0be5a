"""The recipe of the embedded weights, small: what comes out is a row of the weights table."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from models.training import shards
from models.training.embedded import FILE, STAGES, Lesson, save
from models.training.loop import Plan, train
from models.training.procedural import picture
from models.training.shards import prepare
from models.training.teacher import Teachers
from models.training.views import Views
from models.trunk import Trunk
from models.weights import WeightsFolder

CPU = torch.device("cpu")


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taught: bool) -> list[Path]:
    monkeypatch.setattr(shards, "SIZE", 32)
    drawn = []
    for n, family in enumerate(("tiles", "leaves", "glyphs", "planets")):
        drawn.append(tmp_path / f"{family}.png")
        picture(family, n, 96).save(drawn[-1])
    folder = WeightsFolder(offline=True)
    teachers = [folder.resolve("squeezenet1_1", "untrained")] if taught else []
    return prepare(Views([], drawn, side=96), Teachers(teachers, CPU), tmp_path / "shards", 1)


@pytest.mark.parametrize("taught", [True, False])
def test_a_student_learns_and_becomes_weights_of_alexnet(paths: list[Path], tmp_path: Path) -> None:
    plan = Plan(steps=12, learning_rate=1e-3, warmup=2, average=0.5)
    lesson = Lesson(paths, plan.steps, 16, seed=0, device=CPU)
    losses: list[float] = []
    trained = train(lesson, plan, tmp_path, progress=lambda now: losses.append(now.loss))
    assert losses[-1] < losses[0]
    save(trained, tmp_path / FILE, {"steps": 12})
    assert (tmp_path / FILE).stat().st_size <= 5_000_000
    with safe_open(tmp_path / FILE, "pt") as file:
        assert file.metadata() == {"made by": '{"steps": 12}'}
    weights = WeightsFolder(tmp_path, offline=True).resolve("alexnet", FILE)
    conv5 = Trunk(weights, ["conv5"], CPU)(torch.randint(0, 256, (1, 3, 224, 224)).to(torch.uint8))
    assert conv5["conv5"].shape == (1, 256, 13, 13)
    assert float(conv5["conv5"].max()) > 0


@pytest.mark.parametrize("taught", [True])
def test_the_same_seed_gives_the_same_losses(paths: list[Path]) -> None:
    first, again, other = (Lesson(paths, 10, 16, seed, CPU) for seed in (0, 0, 1))
    totals = [float(sum(lesson.losses(3).values())) for lesson in (first, again, other)]
    assert totals[0] == totals[1]
    assert totals[0] != totals[2]


@pytest.mark.parametrize("taught", [False])
def test_views_grow_with_the_training(paths: list[Path]) -> None:
    lesson = Lesson(paths, 100, 16, seed=0, device=CPU)
    sides: list[int] = []
    lesson.student.register_forward_pre_hook(lambda _, given: sides.append(given[0].shape[-1]))
    for step in (0, 64, 65, 90, 99):
        lesson.losses(step)
    small, middle, large = (side for _, side in STAGES)
    assert sides == [small, small, middle, large, large]
