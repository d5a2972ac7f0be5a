"""Ranges of activations: what is seen, and how much of it is worth its steps."""

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from models import WeightsError
from models.calibration import BINS, SHARES, calibrate, least_error


class Doubling(nn.Module):
    """Twice the picture, rectified, into a second convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 1, 1)
        self.first.weight.data = 2 * torch.eye(3)[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        of: Tensor = self.second(torch.relu(self.first(x)))
        return of


@pytest.fixture
def doubling() -> fx.GraphModule:
    return fx.symbolic_trace(Doubling().eval()).requires_grad_(False)


def test_ranges_are_those_of_all_pictures_together(doubling: fx.GraphModule) -> None:
    """Evenly spread values are kept whole, wherever the batches are divided."""
    spread = torch.linspace(-1, 3, 4 * 3 * 20 * 20).reshape(4, 3, 20, 20)
    for batches in ([spread], list(spread.split(1))):
        found = calibrate(doubling, batches)
        assert list(found) == ["x", "relu"]
        assert found["x"] == pytest.approx((-1, 3))
        assert found["relu"][0] == 0
        assert found["relu"][1] == pytest.approx(6)


def test_a_dead_activation_has_an_empty_range(doubling: fx.GraphModule) -> None:
    assert calibrate(doubling, [torch.full((1, 3, 4, 4), -1.0)])["relu"] == (0, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_an_activation_that_overflows_fits_nothing(doubling: fx.GraphModule, value: float) -> None:
    x = torch.zeros(1, 3, 4, 4)
    x[0, 0, 0, 0] = value
    with pytest.raises(WeightsError) as refused:
        calibrate(doubling, [torch.zeros(1, 3, 4, 4), x])
    assert refused.value.code == "weights-not-finite"


@pytest.mark.parametrize(("low", "high"), [(0.0, 8.0), (-1.0, 8.0), (-4.0, 1.0)])
def test_the_range_taken_is_the_one_of_least_squared_error(low: float, high: float) -> None:
    """Of the values themselves, quantised for every part of the range; a histogram is coarser."""
    rng = np.random.default_rng(0)
    values = np.clip(rng.normal(scale=0.4, size=20_000) + max(low, 0), low, high)
    counts, _ = np.histogram(values, BINS, (low, high))

    def error(share: float) -> float:
        if low >= 0:
            scale, least, most = high * share / 255, 0, 255
        else:
            scale, least, most = max(-low, high) * share / 127.5, -128, 127
        kept = np.clip(np.round(values / scale), least, most) * scale
        return float(((kept - values) ** 2).mean())

    least = min(error(float(share)) for share in SHARES)
    found = least_error(torch.from_numpy(counts.astype(np.float64)), (low, high))
    share = found[1] / high
    assert found[0] == pytest.approx(low * share)
    assert share < 1
    assert error(share) == pytest.approx(least, rel=0.15)
