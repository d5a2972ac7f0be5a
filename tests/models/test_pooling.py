"""Each pooling against a plain-loop statement of its formula."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.pooling import (
    POOLINGS,
    crow,
    flatten,
    gem,
    hellinger,
    mac,
    pool,
    rmac,
    rmac_regions,
    spoc,
    vlad,
)

Grid = npt.NDArray[np.float32]  # C×H×W

grids = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    elements=st.floats(0, 8, width=16),
)


def loop_mac(x: Grid) -> list[float]:
    return [max(float(v) for row in channel for v in row) for channel in x]


def loop_spoc(x: Grid, centre: bool) -> list[float]:
    _, height, width = x.shape
    sigma = max(min(height, width) / 2 / 3, 1e-6)
    pooled = []
    for channel in x:
        total = 0.0
        for i in range(height):
            for j in range(width):
                squared = (i - (height - 1) / 2) ** 2 + (j - (width - 1) / 2) ** 2
                weight = math.exp(-squared / (2 * sigma**2)) if centre else 1.0
                total += weight * float(channel[i, j])
        pooled.append(total / (height * width))
    return pooled


def loop_gem(x: Grid, p: float) -> list[float]:
    pooled = []
    for channel in x:
        powers = [max(float(v), 1e-6) ** p for row in channel for v in row]
        pooled.append((sum(powers) / len(powers)) ** (1 / p))
    return pooled


def loop_crow(x: Grid) -> list[float]:
    channels, height, width = x.shape
    total = [
        [sum(float(x[k, i, j]) for k in range(channels)) for j in range(width)]
        for i in range(height)
    ]
    norm = math.sqrt(sum(v * v for row in total for v in row)) or 1.0
    share = [float((x[k] > 0).mean()) for k in range(channels)]
    pooled = []
    for k in range(channels):
        weight = math.log(sum(share) / share[k]) if share[k] else 0.0
        weighed = sum(
            math.sqrt(total[i][j] / norm) * float(x[k, i, j])
            for i in range(height)
            for j in range(width)
        )
        pooled.append(weight * weighed)
    return pooled


def loop_rmac(x: Grid, levels: int) -> list[float]:
    pooled = [0.0] * len(x)
    for top, left, side in rmac_regions(x.shape[1], x.shape[2], levels):
        region = loop_mac(x[:, top : top + side, left : left + side])
        norm = math.sqrt(sum(v * v for v in region)) or 1.0
        pooled = [sofar + v / norm for sofar, v in zip(pooled, region, strict=True)]
    return pooled


CASES = {
    "mac": (mac, loop_mac),
    "spoc": (spoc, lambda x: loop_spoc(x, centre=False)),
    "spoc with the centre prior": (lambda x: spoc(x, 1.0), lambda x: loop_spoc(x, centre=True)),
    "gem": (gem, lambda x: loop_gem(x, 3.0)),
    "gem with p = 5": (lambda x: gem(x, 5.0), lambda x: loop_gem(x, 5.0)),
    "crow": (crow, loop_crow),
    "rmac": (rmac, lambda x: loop_rmac(x, 3)),
    "flatten": (flatten, lambda x: [float(v) for v in x.reshape(-1)]),
}


@pytest.mark.parametrize("name", CASES)
@given(x=grids)
@settings(max_examples=30, deadline=None)
def test_the_operator_is_its_formula(name: str, x: Grid) -> None:
    operator, formula = CASES[name]
    computed = operator(torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_allclose(computed, formula(x), rtol=2e-3, atol=2e-4)


def test_gem_lies_between_the_mean_and_the_maximum() -> None:
    x = torch.rand(2, 3, 7, 5)
    assert torch.allclose(gem(x, 1.0), spoc(x), atol=1e-5)
    assert torch.allclose(gem(x, 300.0), mac(x), atol=2e-2)
    assert ((spoc(x) <= gem(x) + 1e-6) & (gem(x) <= mac(x) + 1e-6)).all()


@pytest.mark.parametrize(
    ("height", "width", "regions"),
    [(7, 7, 14), (14, 14, 14), (13, 13, 14), (24, 32, 20), (32, 24, 20), (1, 1, 1)],
)
def test_rmac_has_as_many_regions_as_the_paper_says(height: int, width: int, regions: int) -> None:
    # Tolias 2016: 1 + 4 + 9 on a square, one more per row along the longer side at 4:3.
    assert len(rmac_regions(height, width)) == regions


@given(height=st.integers(1, 40), width=st.integers(1, 40), levels=st.integers(1, 5))
def test_rmac_regions_lie_inside_and_reach_every_border(
    height: int, width: int, levels: int
) -> None:
    regions = rmac_regions(height, width, levels)
    assert all(t >= 0 and le >= 0 and t + s <= height and le + s <= width for t, le, s in regions)
    assert any(t == 0 and le == 0 for t, le, _ in regions)
    assert max(t + s for t, _, s in regions) == height
    assert max(le + s for _, le, s in regions) == width


def loop_vlad(x: Grid, words: int) -> list[float]:
    """Sum over positions; L2 for each word's block; √|z| with the sign of z."""
    sums = [math.fsum(float(v) for row in channel for v in row) for channel in x]
    size = len(sums) // words
    pooled = []
    for word in range(words):
        block = sums[word * size : (word + 1) * size]
        length = math.sqrt(math.fsum(v * v for v in block)) or 1.0
        pooled += [math.copysign(math.sqrt(abs(v) / length), v) for v in block]
    return pooled


@settings(deadline=None, max_examples=30)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.just(6), st.integers(1, 4), st.integers(1, 4)),
        elements=st.integers(-8, 8).map(float),
    ),
    st.sampled_from([1, 2, 3, 6]),
)
def test_vlad_is_its_formula(x: Grid, words: int) -> None:
    computed = vlad(torch.from_numpy(x)[None], words=words)[0]
    assert computed.tolist() == pytest.approx(loop_vlad(x, words), abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(grids)
def test_hellinger_is_the_square_root_of_the_mean(x: Grid) -> None:
    computed = hellinger(torch.from_numpy(x)[None])[0]
    expected = [math.sqrt(mean) for mean in loop_spoc(x, centre=False)]
    assert computed.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", POOLINGS)
def test_a_pooled_descriptor_has_unit_length(name: str) -> None:
    pooled = pool(torch.rand(3, 64, 6, 5), name)
    assert torch.allclose(pooled.norm(dim=1), torch.ones(3), atol=1e-5)
    assert pooled.dtype == torch.float32


@pytest.mark.parametrize("name", POOLINGS)
def test_dead_activations_give_no_nan(name: str) -> None:
    assert torch.isfinite(pool(torch.zeros(2, 64, 4, 4), name)).all()


@pytest.mark.parametrize("name", POOLINGS)
def test_a_picture_is_pooled_alike_alone_and_in_a_batch(name: str) -> None:
    x = torch.rand(4, 64, 5, 5)
    assert torch.allclose(pool(x, name)[2:3], pool(x[2:3], name), atol=1e-6)
