"""Shards and batches: prepared once, whole or not at all, read in an order that a seed fixes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.training import shards
from models.training.batches import Batches, jittered
from models.training.procedural import picture
from models.training.shards import prepare, read
from models.training.teacher import Teachers
from models.training.views import Views
from models.weights import WeightsFolder

CPU = torch.device("cpu")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SIZE", 32)


@pytest.fixture
def views(tmp_path: Path) -> Views:
    picture("tiles", 0, 96).save(tmp_path / "tiles.png")
    picture("leaves", 0, 96).save(tmp_path / "leaves.png")
    return Views([tmp_path / "tiles.png"], [tmp_path / "leaves.png"], side=64)


@pytest.fixture
def teachers() -> Teachers:
    return Teachers([WeightsFolder(offline=True).resolve("squeezenet1_1", "untrained")], CPU)


def test_a_shard_holds_views_and_what_the_teacher_says_of_them(
    few: None, views: Views, teachers: Teachers, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    paths = prepare(views, teachers, tmp_path / "shards", 2, lambda *now: seen.append(now))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    second = read(paths[1])
    assert {name: tuple(value.shape) for name, value in second.items()} == {
        "views": (32, 3, 64, 64),
        "squeezenet1_1/features": (32, 512),
        "squeezenet1_1/logits": (32, 1000),
    }
    assert torch.equal(second["views"][3], torch.from_numpy(views.view(35).copy()).permute(2, 0, 1))
    again = teachers.targets(second["views"])
    for name, value in again.items():
        assert torch.allclose(second[name].float(), value.float(), atol=2e-2, rtol=2e-2)


def test_a_fused_teacher_says_what_the_network_says(teachers: Teachers, views: Views) -> None:
    """Against torchvision's own forward pass with the same parameters."""
    from torchvision.models import get_model

    from models.untrained import parameters

    network = get_model("mobilenet_v2").eval()
    state = network.state_dict()
    network.load_state_dict(
        parameters("mobilenet_v2", {name: value.shape for name, value in state.items()})
    )
    weights = WeightsFolder(offline=True).resolve("mobilenet_v2", "untrained")
    pixels = torch.from_numpy(views.view(0).copy()).permute(2, 0, 1)[None]
    found = Teachers([weights], CPU).targets(pixels)
    mean, std = torch.tensor(weights.preprocessing.mean), torch.tensor(weights.preprocessing.std)
    with torch.inference_mode():
        x = (pixels / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
        features = network.features(x).mean(dim=(2, 3))
        logits = network.classifier(features)
    for ours, theirs in (
        (found["mobilenet_v2/features"], features),
        (found["mobilenet_v2/logits"], logits),
    ):
        assert torch.allclose(
            ours.float(), theirs, rtol=1e-2, atol=1e-3 * float(theirs.abs().max())
        )


def test_preparing_goes_on_where_it_stopped(
    few: None, views: Views, teachers: Teachers, tmp_path: Path
) -> None:
    first, second = prepare(views, teachers, tmp_path / "shards", 2)
    before = first.stat().st_mtime_ns
    second.unlink()
    (tmp_path / "shards" / "00001.part").write_bytes(b"half")
    assert prepare(views, teachers, tmp_path / "shards", 2) == [first, second]
    assert first.stat().st_mtime_ns == before
    assert len(read(second)["views"]) == 32


@pytest.mark.long
def test_shards_of_another_recipe_are_made_anew(
    few: None, views: Views, teachers: Teachers, tmp_path: Path
) -> None:
    (path,) = prepare(views, teachers, tmp_path / "shards", 1)
    before = read(path)["views"]
    prepare(replace(views, seed=1), teachers, tmp_path / "shards", 1)
    assert not torch.equal(read(path)["views"], before)


def test_without_teachers_there_are_views_alone(few: None, views: Views, tmp_path: Path) -> None:
    (path,) = prepare(views, Teachers([], CPU), tmp_path / "shards", 1)
    assert list(read(path)) == ["views"]


@pytest.fixture
def numbered(few: None, tmp_path: Path) -> list[Path]:
    """Three shards whose view n is n everywhere."""
    from safetensors.torch import save_file

    paths = []
    for shard in range(3):
        numbers = torch.arange(32) + 32 * shard
        views = numbers.to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()
        paths.append(tmp_path / f"{shard}.safetensors")
        save_file({"views": views, "t": numbers.half()[:, None].contiguous()}, paths[-1])
    return paths


def test_an_epoch_shows_every_view_once_and_keeps_pairs_and_targets_together(
    numbered: list[Path],
) -> None:
    batches = Batches(numbered, 8)
    epoch = [batches.batch(n) for n in range(12)]
    shown = torch.cat([batch["views"][:, 0, 0, 0] for batch in epoch]).tolist()
    assert sorted(shown) == list(range(96))
    assert shown != list(range(96))
    for batch in epoch:
        numbers = batch["views"][:, 0, 0, 0]
        assert torch.equal(numbers[::2] + 1, numbers[1::2])
        assert torch.equal(batch["t"][:, 0], numbers.half())


def test_batch_n_is_always_batch_n_and_another_in_the_next_epoch(numbered: list[Path]) -> None:
    forwards, anew = Batches(numbered, 8), Batches(numbered, 8)
    first = [forwards.batch(n)["t"] for n in range(24)]
    assert torch.equal(anew.batch(17)["t"], first[17])
    assert not torch.equal(first[0], first[12])


def test_jitter_keeps_most_of_a_view_and_may_mirror_it() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).repeat(3, 64, 1)[None].expand(16, -1, -1, -1)
    out = jittered(ramp.contiguous(), 32, torch.Generator().manual_seed(1))
    assert out.shape == (16, 3, 32, 32)
    assert out.dtype == torch.uint8
    slopes = out[:, 0, 0, -1].int() - out[:, 0, 0, 0].int()
    assert set(slopes.sign().tolist()) == {-1, 1}
    assert int(slopes.abs().min()) >= 45
