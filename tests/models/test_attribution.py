"""Heatmaps sum to what they take apart, and say what plain loops and gradients say."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.attribution import ATTRIBUTIONS, crow, gem, mac, rmac, spoc, vlad
from models.explanation import Explanation, describe_grids, explain, shares, spread
from models.extractor import DescriptorSpace, Grid
from models.pooling import POOLINGS, crow_weights, pool, rmac_regions
from models.spec import parse
from models.weights import WeightsFolder
from models.whitening import Whitening, fit

grids = hnp.arrays(
    np.float32,
    st.tuples(st.just(6), st.integers(1, 7), st.integers(1, 7)),
    elements=st.floats(0, 8, width=16),
)


def random_grid(seed: int, *shape: int) -> Grid:
    """About half of it zero, as after a ReLU."""
    values = np.random.default_rng(seed).standard_normal(shape or (6, 5, 4))
    return np.maximum(values, 0).astype(np.float32)


LAYER = "alexnet/conv5"
SMALL = {"vlad": {"words": 2.0}}
"""Parameters that fit six channels."""


def space(
    pooling: str, whitening: Whitening | None = None, layers: str = "conv5"
) -> DescriptorSpace:
    weights = WeightsFolder().resolve("alexnet", "untrained")
    return DescriptorSpace(parse(f"alexnet/{layers}/{pooling}"), 6, "f" * 64, weights, whitening)


def explained_by(q: Grid, n: Grid, of: DescriptorSpace) -> Explanation:
    return explain({LAYER: q}, {LAYER: n}, of)


def test_every_pooling_can_be_taken_apart() -> None:
    assert ATTRIBUTIONS.keys() == POOLINGS.keys()


@pytest.mark.parametrize("pooling", POOLINGS)
@given(x=grids)
@settings(max_examples=40, deadline=None)
def test_the_parts_sum_to_the_pooled_vector(pooling: str, x: Grid) -> None:
    given = SMALL.get(pooling, {})
    parts = ATTRIBUTIONS[pooling](torch.from_numpy(x).double(), **given)
    pooled = POOLINGS[pooling].operator(torch.from_numpy(x)[None].double(), **given)[0]
    summed = parts.flatten() if pooling == "flatten" else parts.sum(dim=(1, 2))
    np.testing.assert_allclose(summed, pooled, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("part", [mac, gem, spoc, lambda x: spoc(x, 1.0), lambda x: gem(x, 5.0)])
def test_of_what_is_homogeneous_it_is_activation_times_gradient(part: object) -> None:
    """Euler's theorem, with the gradient by central differences of the summed parts."""
    x = torch.rand(2, 3, 4, dtype=torch.float64) + 0.1
    parts = part(x)
    for at in np.ndindex(*x.shape):
        up, down = x.clone(), x.clone()
        up[at] += 1e-6
        down[at] -= 1e-6
        gradient = (part(up).sum() - part(down).sum()) / 2e-6
        assert float(parts[at]) == pytest.approx(float(x[at] * gradient), abs=1e-6)


def test_crow_is_a_sum_over_positions_with_its_own_weights() -> None:
    x = random_grid(1)
    position, channel = (w.numpy()[0] for w in crow_weights(torch.from_numpy(x)[None]))
    parts = crow(torch.from_numpy(x)).numpy()
    for k, i, j in np.ndindex(*x.shape):
        assert parts[k, i, j] == pytest.approx(
            x[k, i, j] * position[0, i, j] * channel[k], abs=1e-6
        )


def test_rmac_gives_each_region_s_maximum_its_share() -> None:
    x = random_grid(2, 3, 4, 6)
    expected = np.zeros_like(x)
    for top, left, side in rmac_regions(4, 6):
        peaks = [float(x[k, top : top + side, left : left + side].max()) for k in range(3)]
        norm = math.sqrt(sum(peak**2 for peak in peaks))
        for k, peak in enumerate(peaks):
            cells = [
                (i, j)
                for i in range(top, top + side)
                for j in range(left, left + side)
                if x[k, i, j] == peak
            ]
            for i, j in cells:
                expected[k, i, j] += peak / norm / len(cells)
    np.testing.assert_allclose(rmac(torch.from_numpy(x)).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "pooling",
    ["mac", "spoc", "gem", "crow", "rmac", "hellinger", "vlad(words=2)", "spoc(centre=1)"],
)
@given(q=grids, n=grids)
@settings(max_examples=40, deadline=None)
def test_both_heatmaps_sum_to_the_cosine(pooling: str, q: Grid, n: Grid) -> None:
    described = space(pooling)
    explained = explained_by(q, n, described)
    vectors = [
        pool(torch.from_numpy(x)[None], described.spec.pooling, **dict(described.spec.parameters))
        for x in (q, n)
    ]
    cosine = float((vectors[0] * vectors[1]).sum())
    assert explained.score == pytest.approx(cosine, abs=1e-4)
    for side, grid in ((explained.query, q), (explained.neighbour, n)):
        assert side.heatmap.shape == grid.shape[1:]
        assert float(side.heatmap.sum()) + side.offset == pytest.approx(cosine, abs=1e-4)
        assert side.offset == 0


def test_a_flattened_layer_is_explained_cell_by_cell() -> None:
    q, n = random_grid(3), random_grid(4)
    explained = explained_by(q, n, space("flatten"))
    norms = np.linalg.norm(q) * np.linalg.norm(n)
    np.testing.assert_allclose(explained.query.heatmap, (q * n).sum(axis=0) / norms, atol=1e-6)


@pytest.mark.parametrize("pooling", ["gem", "spoc", "rmac"])
def test_whitening_leaves_an_offset_and_the_sum_is_still_the_score(pooling: str) -> None:
    plain = space(pooling)
    samples = np.stack([describe_grids({LAYER: random_grid(seed)}, plain) for seed in range(40)])
    whitened = space(pooling, fit(samples, 3, "test"))
    q, n = random_grid(100), random_grid(101)
    explained = explained_by(q, n, whitened)
    by_hand = [
        (describe_grids({LAYER: x}, plain) - whitened.whitening.mean)
        @ whitened.whitening.projection
        for x in (q, n)
    ]
    cosine = by_hand[0] @ by_hand[1] / np.linalg.norm(by_hand[0]) / np.linalg.norm(by_hand[1])
    assert explained.score == pytest.approx(cosine, abs=1e-5)
    for side in (explained.query, explained.neighbour):
        assert abs(side.offset) > 1e-3
        assert float(side.heatmap.sum()) + side.offset == pytest.approx(cosine, abs=1e-4)


@pytest.mark.parametrize("pooling", ["gem", "spoc", "mac", "rmac"])
def test_of_joined_layers_the_heatmaps_are_added_on_the_finest_grid(pooling: str) -> None:
    joined = space(pooling, layers="conv3+conv5")
    sides = [
        {"alexnet/conv3": random_grid(seed, 4, 6, 6), LAYER: random_grid(seed + 9, 6, 3, 3)}
        for seed in (1, 2)
    ]
    explained = explain(sides[0], sides[1], joined)
    alone = [
        explain(sides[0], sides[1], space(pooling, layers=layer)) for layer in ("conv3", "conv5")
    ]
    assert explained.score == pytest.approx(sum(one.score for one in alone) / 2, abs=1e-6)
    assert explained.query.heatmap.shape == (6, 6)
    coarse = np.kron(alone[1].query.heatmap, np.ones((2, 2))) / 4
    np.testing.assert_allclose(
        explained.query.heatmap, (alone[0].query.heatmap + coarse) / 2, atol=1e-6
    )
    assert float(explained.neighbour.heatmap.sum()) == pytest.approx(explained.score, abs=1e-4)


@given(
    heatmap=hnp.arrays(np.float64, (3, 4), elements=st.floats(-1, 1)),
    height=st.integers(3, 11),
    width=st.integers(4, 11),
)
def test_spreading_a_heatmap_keeps_its_sum(heatmap: Grid, height: int, width: int) -> None:
    finer = spread(heatmap, height, width)
    assert finer.shape == (height, width)
    assert float(finer.sum()) == pytest.approx(float(heatmap.sum()), abs=1e-9)


def test_residuals_that_cancel_have_no_part_in_vlad() -> None:
    x = torch.tensor([[[1.0, -1.0]], [[0.5, 0.5]]], dtype=torch.float64)
    assert vlad(x, words=1)[0].abs().sum() == 0
    assert vlad(x, words=1)[1].sum() == pytest.approx(1.0)


def test_grids_of_different_sizes_are_compared() -> None:
    explained = explained_by(random_grid(1, 6, 3, 9), random_grid(2, 6, 8, 2), space("gem"))
    assert explained.query.heatmap.shape == (3, 9)
    assert explained.neighbour.heatmap.shape == (8, 2)


def test_a_dead_grid_explains_nothing_and_gives_no_nan() -> None:
    dead = np.zeros((6, 3, 3), np.float32)
    for pooling in POOLINGS.keys() - {"vlad"} | {"vlad(words=2)"}:
        explained = explained_by(dead, dead, space(pooling))
        assert np.isfinite(explained.query.heatmap).all()


def test_shares_of_unlike_spaces_are_negative() -> None:
    found = shares({"a": 0.5, "b": -0.5}, {"a": 0.75, "b": 0.25})
    assert found == {"a": pytest.approx(0.75), "b": pytest.approx(-0.25)}
    assert shares({"a": 0.0}, {"a": 1.0}) == {"a": 0.0}
