"""Boxes to cells and back, and which region of a neighbour matches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.extractor import DescriptorSpace, Extractor, Grid
from models.preparation import Region
from models.preprocess import IMAGENET, prepare
from models.region import Cells, box, cells, covered, match, reached
from models.spec import parse
from models.weights import WeightsFolder

lengths = st.integers(1, 40)
sides = st.integers(16, 4000)


def space(pooling: str) -> DescriptorSpace:
    weights = WeightsFolder().resolve("alexnet", "untrained")
    return DescriptorSpace(parse(f"alexnet/conv5/{pooling}"), 4, "f" * 64, weights, None)


def test_the_grid_covers_what_preprocessing_lets_through() -> None:
    # Red inside of the box that the grid is said to cover, blue outside.
    width, height = 700, 500
    picture = Image.new("RGB", (width, height), "blue")
    x0, y0, x1, y1 = covered(width, height, IMAGENET)
    inside = (round(x0 * width), round(y0 * height), round(x1 * width), round(y1 * height))
    picture.paste("red", inside)
    pixels = prepare(picture, IMAGENET)
    assert (pixels[0, 2:-2, 2:-2] > 250).all()
    assert (pixels[2, 2:-2, 2:-2] < 5).all()
    picture.paste("blue", (0, 0, inside[0] + 30, height))
    assert (prepare(picture, IMAGENET)[2, :, 5] > 250).all()


@pytest.mark.parametrize(("network", "cell"), [("colour", 16), ("sift", 40)])
@pytest.mark.parametrize("size", [(150, 110), (160, 80), (201, 95)])
def test_the_cells_of_a_whole_picture_stand_where_they_looked(
    network: str, cell: int, size: tuple[int, int]
) -> None:
    # A patch in the cell of row 1 and column 2.
    picture = Image.new("RGB", size, (128, 128, 128))
    left, top = 2 * cell, cell
    patch = np.random.default_rng(1).integers(0, 256, (cell, cell, 3)).astype(np.uint8)
    picture.paste(Image.fromarray(patch), (left, top))
    plain = Image.new("RGB", size, (128, 128, 128))
    extractor = Extractor({"colour": "colour/rgb8", "sift": "sift/vlad64"}[network])
    (layer,) = extractor.spaces[""].spec.grids
    both = [extractor.prepare_whole(one, max(size)) for one in (picture, plain)]
    grid, without = extractor.forward(both, [layer])[layer]
    strength = np.abs(grid - without).sum(axis=0)
    row, column = np.unravel_index(strength.argmax(), strength.shape)
    x0, y0, x1, y1 = reached(size[1], size[0], *grid.shape[1:], cell)
    x = (x0 + (column + 0.5) / grid.shape[2] * (x1 - x0)) * size[0]
    y = (y0 + (row + 0.5) / grid.shape[1] * (y1 - y0)) * size[1]
    assert (x, y) == pytest.approx((left + cell / 2, top + cell / 2))


def test_a_region_is_covered_within_itself() -> None:
    region = (0.5, 0.25, 1.0, 0.75)
    x0, y0, x1, y1 = covered(800, 600, IMAGENET, region)
    inner = covered(400, 300, IMAGENET)
    assert (x0, y0) == pytest.approx((0.5 + inner[0] / 2, 0.25 + inner[1] / 2))
    assert (x1, y1) == pytest.approx((0.5 + inner[2] / 2, 0.25 + inner[3] / 2))


@given(width=sides, height=sides)
def test_the_shorter_side_is_covered_by_its_middle_seven_eighths(width: int, height: int) -> None:
    x0, y0, x1, y1 = covered(width, height, IMAGENET)
    low, high = (x0, x1) if width <= height else (y0, y1)
    assert (low, high) == pytest.approx((1 / 16, 15 / 16))
    assert x0 >= 0
    assert y0 >= 0
    assert x1 <= 1
    assert y1 <= 1


@given(rows=lengths, columns=lengths, data=st.data())
def test_the_box_of_some_cells_covers_just_these_cells(
    rows: int, columns: int, data: st.DataObject
) -> None:
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    bottom = data.draw(st.integers(top + 1, rows))
    right = data.draw(st.integers(left + 1, columns))
    cover = (0.1, 0.2, 0.9, 0.8)
    some = Cells(top, left, bottom, right)
    assert cells(box(some, cover, rows, columns), cover, rows, columns) == some


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ((0.0, 0.0, 1.0, 1.0), Cells(0, 0, 8, 8)),
        ((0.5, 0.0, 1.0, 0.5), Cells(0, 4, 4, 8)),
        ((0.51, 0.51, 0.52, 0.52), Cells(4, 4, 5, 5)),  # smaller than a cell: the one it is in
        ((0.0, 0.0, 0.2, 1.0), None),  # beside the part that is covered
    ],
)
def test_a_box_is_the_cells_whose_middle_is_in_it(region: Region, expected: Cells | None) -> None:
    cover = (0.25, 0.0, 0.75, 1.0)
    shifted = (0.25 + region[0] / 2, region[1], 0.25 + region[2] / 2, region[3])
    given_box = region if expected is None else shifted
    assert cells(given_box, cover, 8, 8) == expected


@pytest.mark.parametrize("pooling", ["mac", "spoc", "gem", "crow", "rmac", "flatten"])
def test_the_best_region_is_where_the_query_was_put(pooling: str) -> None:
    rng = np.random.default_rng(5)
    query: Grid = rng.random((4, 6, 6), np.float32) * np.float32([4, 4, 0, 0])[:, None, None]
    neighbour: Grid = rng.random((4, 12, 12), np.float32)
    neighbour *= np.float32([0, 0, 1, 1])[:, None, None]
    neighbour[:, 6:, 6:] = query
    found, score = match(query, neighbour, space(pooling))
    assert found == Cells(6, 6, 12, 12)
    assert score == pytest.approx(1, abs=1e-4)


def test_a_picture_is_found_in_the_whole_of_itself() -> None:
    grid = np.random.default_rng(1).random((4, 7, 9), np.float32)
    assert match(grid, grid, space("gem"))[0] == Cells(0, 0, 7, 9)
