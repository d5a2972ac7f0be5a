"""Views: the same every time, of the pictures they say, in the shares they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.training.procedural import picture
from models.training.views import Views

SIDE = 48


@pytest.fixture
def views(tmp_path: Path) -> Views:
    paths = []
    for n, family in enumerate(("tiles", "leaves", "clouds", "weaves")):
        path = tmp_path / f"{family}.png"
        picture(family, n, 96).save(path)
        paths.append(path)
    return Views(paths[:2], paths[2:], side=SIDE)


def test_view_n_is_always_view_n_and_never_another(views: Views) -> None:
    first, again, other = views.view(5), views.view(5), views.view(6)
    assert first.shape == (SIDE, SIDE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_pair_of_views_shows_one_picture(views: Views) -> None:
    assert all(views.picture(2 * m) == views.picture(2 * m + 1) for m in range(50))
    assert len({views.picture(2 * m) for m in range(50)}) == 4


def test_photographs_have_their_share(views: Views) -> None:
    shown = [views.picture(2 * m) in views.photographs for m in range(2000)]
    assert np.mean(shown) == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize("kind", ["photographs", "procedural"])
def test_one_kind_of_picture_is_enough(views: Views, kind: str) -> None:
    only = replace(views, **{kind: []})
    assert only.view(0).shape == (SIDE, SIDE, 3)


def test_without_mixing_a_view_of_a_flat_picture_stays_flat_and_of_its_colour(
    tmp_path: Path,
) -> None:
    Image.new("RGB", (200, 120), (180, 90, 40)).save(tmp_path / "flat.png")
    views = Views([tmp_path / "flat.png"], [], side=SIDE, mixed=0.0)
    for n in range(30):
        view = views.view(n).reshape(-1, 3).astype(float)
        assert view.std(axis=0).max() < 4  # JPEG may round
        red, green, blue = view.mean(axis=0)
        assert red > green > blue  # products are found by their colour: it is not augmented away


def test_mixed_views_show_two_pictures(tmp_path: Path) -> None:
    for name, colour in (("black", 0), ("white", 255)):
        Image.new("RGB", (64, 64), (colour,) * 3).save(tmp_path / f"{name}.png")
    views = Views([tmp_path / "black.png", tmp_path / "white.png"], [], side=SIDE, mixed=1.0)
    means = [views.view(n).mean() for n in range(40)]
    assert any(60 < mean < 200 for mean in means)


def test_the_recipe_is_of_contents_not_of_places(views: Views, tmp_path: Path) -> None:
    moved = []
    for path in views.photographs:
        (tmp_path / "moved").mkdir(exist_ok=True)
        copy = tmp_path / "moved" / path.name
        copy.write_bytes(path.read_bytes())
        moved.append(copy)
    assert replace(views, photographs=moved).recipe() == views.recipe()
    for change in ({"seed": 1}, {"share": 0.5}, {"side": 64}, {"photographs": moved[:1]}):
        assert replace(views, **change).recipe() != views.recipe()
