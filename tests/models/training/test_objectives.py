"""What is learnt, against plain statements of the formulas."""

import math

import numpy as np
import pytest
import torch

from models.training.objectives import TEMPERATURE, Contrast, Distillation


def activations(batch: int, channels: int = 8, side: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return [torch.rand(batch, channels, side, side, generator=generator) for _ in range(3)]


def targets(batch: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch + 1)
    return {
        "a/features": torch.rand(batch, 6, generator=generator),
        "a/logits": torch.randn(batch, 5, generator=generator),
    }


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def test_logits_are_the_kl_divergence_at_the_temperature() -> None:
    learnt = Distillation([8, 8, 8], targets(4))
    x, y = activations(4), targets(4)
    given = learnt.heads["a_logits"](x[-1].mean(dim=(2, 3))).detach().numpy()
    wanted = y["a/logits"].numpy()
    expected = 0.0
    for ours, theirs in zip(given, wanted, strict=True):
        p, q = softmax(theirs / TEMPERATURE), softmax(ours / TEMPERATURE)
        expected += float((p * np.log(p / q)).sum()) / 4
    assert float(learnt(x, y)["logits"]) == pytest.approx(expected * TEMPERATURE**2 / 4, rel=1e-4)


def test_features_are_cosines_to_what_is_left_without_the_mean() -> None:
    y = targets(4)
    learnt = Distillation([8, 8, 8], y)
    x = activations(4)
    given = learnt.heads["a_features"](x[-1].mean(dim=(2, 3))).detach().numpy()
    wanted = y["a/features"].numpy() - y["a/features"].numpy().mean(axis=0)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(given, wanted)]  # noqa: B905
    assert float(learnt(x, y)["features"]) == pytest.approx(4 * (1 - np.mean(cosines)), rel=1e-4)


def test_relations_are_least_where_the_student_finds_alike_what_the_teacher_does() -> None:
    """Descriptors in the very geometry of the teacher's features lose less than shuffled ones."""
    torch.manual_seed(0)
    y = {"a/features": torch.eye(8).repeat(2, 1)}
    learnt = Distillation([8, 8, 8], y)
    same = [y["a/features"][:, :, None, None].expand(-1, -1, 2, 2)] * 3
    shuffled = [x[torch.randperm(16)] for x in same]
    assert float(learnt(same, y)["relations"]) < float(learnt(shuffled, y)["relations"])


def test_without_logits_there_is_still_something_to_learn() -> None:
    y = {"a/features": targets(4)["a/features"]}
    losses = Distillation([8, 8, 8], y)(activations(4), y)
    assert float(losses["logits"]) == 0
    assert float(losses["features"]) > 0


def test_contrast_is_info_nce() -> None:
    learnt = Contrast([8, 8, 8], temperature=0.5)
    x = activations(4)
    unit = learnt.projection(x[-1].mean(dim=(2, 3))).detach().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = 0.0
    for one, twin in ((0, 1), (1, 0), (2, 3), (3, 2)):
        others = [math.exp(unit[one] @ unit[n] / 0.5) for n in range(4) if n != one]
        expected -= math.log(math.exp(unit[one] @ unit[twin] / 0.5) / sum(others)) / 4
    assert float(learnt(x, {})["contrast"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("objective", [Distillation([8, 8, 8], targets(4)), Contrast([8, 8, 8])])
def test_every_layer_that_is_searched_with_receives_a_gradient(objective: torch.nn.Module) -> None:
    x = [one.requires_grad_() for one in activations(4)]
    sum(objective(x, targets(4)).values()).backward()
    assert x[-1].grad is not None
    assert float(x[-1].grad.abs().sum()) > 0
