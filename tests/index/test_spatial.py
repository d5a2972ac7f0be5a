"""Spatial verification finds the map that the test applied, and nothing where there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.ranking.spatial import Verification, mutual_matches, reranked, verify
from tests.index.making import units


def mapped(
    points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]
) -> np.ndarray:
    """Turned, scaled and moved, in plain arithmetic."""
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    x, y = points[:, 0].astype(float), points[:, 1].astype(float)
    moved = [cos * x - sin * y + shift[0], sin * x + cos * y + shift[1]]
    return np.stack(moved, axis=1).astype(np.float32)


def positions(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 2), np.float32)


@given(
    angle=st.floats(-3, 3),
    scale=st.floats(0.3, 3),
    shift=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_a_known_map_is_recovered_among_outliers(
    angle: float, scale: float, shift: tuple[float, float], seed: int
) -> None:
    vectors = units(seed, 60, 32)
    here = positions(seed, 60)
    there = mapped(here, angle, scale, shift)
    there[40:] = positions(seed + 1, 20) * 3 - 1  # a third of the matches is wrong
    order = np.random.default_rng(seed).permutation(60)
    found = verify((vectors, here), (vectors[order], there[order]), tolerance=0.01)
    assert 40 <= found.inliers <= 44
    assert found.map is not None
    carried = here[:40] @ found.map[:, :2].T + found.map[:, 2]
    np.testing.assert_allclose(carried, there[:40], atol=0.03)


def test_matches_without_a_common_map_have_few_inliers() -> None:
    vectors = units(1, 80, 32)
    found = verify((vectors, positions(1, 80)), (vectors, positions(2, 80)))
    assert found.inliers < 10


def test_a_map_that_collapses_the_picture_is_no_evidence() -> None:
    vectors, here = units(1, 50, 32), positions(1, 50)
    found = verify((vectors, here), (vectors, mapped(here, 0, 0.01, (0.5, 0.5))))
    assert (found.inliers, found.map) == (0, None)


def test_a_mirrored_picture_is_no_evidence() -> None:
    vectors, here = units(1, 50, 32), positions(1, 50)
    found = verify((vectors, here), (vectors, here * np.float32([-1, 1])))
    assert found.inliers < Verification().inliers


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_matches_verify_nothing(n: int) -> None:
    side = units(1, n, 8) if n else np.empty((0, 8), np.float32), positions(1, n)
    assert verify(side, side).inliers == 0


def test_points_on_one_line_or_in_one_spot_are_no_evidence() -> None:
    vectors = units(1, 50, 32)
    spot = np.full((50, 2), 0.5, np.float32)
    assert verify((vectors, spot), (vectors, spot)).inliers == 0


def test_the_same_input_gives_the_same_answer() -> None:
    one, other = (units(1, 200, 8), positions(1, 200)), (units(2, 200, 8), positions(2, 200))
    assert len({verify(one, other).inliers for _ in range(5)}) == 1


@given(seed=st.integers(0, 100), n=st.integers(1, 12), m=st.integers(1, 12))
def test_mutual_matches_are_those_of_two_plain_loops(seed: int, n: int, m: int) -> None:
    one, other = units(seed, n, 4), units(seed + 1, m, 4)
    pairs = []
    for i in range(n):
        j = max(range(m), key=lambda j: float(one[i] @ other[j]))
        if max(range(n), key=lambda i: float(one[i] @ other[j])) == i:
            pairs.append([i, j])
    assert mutual_matches(one, other).tolist() == pairs


@given(inliers=st.lists(st.integers(0, 60), max_size=12))
def test_the_verified_come_first_and_the_others_keep_their_order(inliers: list[int]) -> None:
    order = reranked(inliers, fewest=20)
    assert sorted(order) == list(range(len(inliers)))
    verified = [at for at in order if inliers[at] >= 20]
    assert order[: len(verified)] == verified
    assert [inliers[at] for at in verified] == sorted(
        (inliers[at] for at in verified), reverse=True
    )
    rest = order[len(verified) :]
    assert rest == sorted(rest)
