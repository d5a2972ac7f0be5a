"""Local descriptors: unit vectors of the salient positions, where they stand in the picture."""

import numpy as np
import pytest

from models.local import local_descriptors


def grid(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).random(shape, np.float32) + np.float32(0.1)


def test_each_is_a_position_of_the_grid_normalised() -> None:
    x = grid(5, 6, 9)
    found = local_descriptors(x, 900, 600)
    assert found.vectors.shape == (4 * 7, 5)  # without the border
    for vector, (across, down) in zip(found.vectors, found.positions, strict=True):
        column, row = round(across * 9 - 0.5), round(down * 9 - 0.5)
        assert 1 <= row <= 4
        assert 1 <= column <= 7
        expected = x[:, row, column] / np.sqrt((x[:, row, column] ** 2).sum())
        np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_the_most_salient_come_first_and_the_others_are_left_out() -> None:
    x = grid(5, 8, 8)
    norms = sorted(float(np.linalg.norm(x[:, i, j])) for i in range(1, 7) for j in range(1, 7))
    found = local_descriptors(x, 100, 100, most=10)
    cells = np.floor(found.positions * 8).astype(int)
    there = [float(np.linalg.norm(x[:, row, column])) for column, row in cells]
    assert there == pytest.approx(norms[:-11:-1])


def test_positions_are_in_the_picture_whatever_part_the_grid_covers() -> None:
    found = local_descriptors(grid(2, 4, 4), 400, 200, cover=(0.25, 0.0, 0.75, 1.0))
    # Cells (1, 1) to (2, 2) of four over the middle half: x in 0.25 + 0.5·(1.5…2.5)/4.
    assert sorted({round(float(x), 4) for x in found.positions[:, 0]}) == [0.4375, 0.5625]
    assert sorted({round(float(y), 4) for y in found.positions[:, 1]}) == [0.1875, 0.3125]


def test_a_dead_grid_has_none_and_a_tiny_one_keeps_its_border() -> None:
    assert local_descriptors(np.zeros((3, 5, 5), np.float32), 10, 10).vectors.shape == (0, 3)
    assert local_descriptors(grid(3, 1, 2), 10, 10).vectors.shape == (2, 3)
