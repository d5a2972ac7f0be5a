"""Procedural pictures: the same every time, different between families, resumable on disk."""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.training.families.colour import srgb
from models.training.families.fields import noise, relief, sample
from models.training.procedural import FAMILIES, picture, render_gallery

SIDE = 64


def pixels(family: str, n: int, side: int = SIDE) -> NDArray[np.uint8]:
    return np.asarray(picture(family, n, side))


@cache
def kept(family: str, n: int) -> NDArray[np.uint8]:
    """The same, drawn once for all tests that only look at it."""
    return pixels(family, n)


def traits(family: str, n: int) -> NDArray[np.float64]:
    """How bright, how varied, how busy: what differs between families whatever the colours."""
    grey = kept(family, n).mean(axis=2)
    across, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    edges = np.concatenate([across.ravel(), down.ravel()])
    halves = [grey[: SIDE // 2].mean() - grey[SIDE // 2 :].mean(), grey[20:44, 20:44].mean()]
    corners = grey[:10, :10].std() + grey[-10:, -10:].std()
    numbers = [grey.mean(), grey.std(), edges.mean(), edges.std(), np.median(edges), corners]
    return np.array([*numbers, across.mean() / down.mean() * 10, *halves])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_is_rgb_of_the_side_asked_for_and_not_flat(family: str) -> None:
    drawn = pixels(family, 0, 80)
    assert drawn.shape == (80, 80, 3)
    assert drawn.dtype == np.uint8
    assert drawn.std() > 8


@pytest.mark.parametrize("family", FAMILIES)
def test_picture_n_is_always_picture_n_and_never_another(family: str) -> None:
    assert np.array_equal(pixels(family, 4), pixels(family, 4))
    different = {hashlib.sha256(pixels(family, n).tobytes()).digest() for n in range(3)}
    assert len(different) == 3


def test_numpys_global_random_state_is_neither_read_nor_changed() -> None:
    np.random.seed(1)
    first, before = pixels("leaves", 2), np.random.get_state()[1]
    np.random.seed(2)
    after_reseeding = np.random.get_state()[1]
    assert np.array_equal(first, pixels("leaves", 2))
    assert np.array_equal(after_reseeding, np.random.get_state()[1])
    assert not np.array_equal(before, after_reseeding)


def test_families_differ_more_from_one_another_than_within() -> None:
    """The nearest centre of simple grey statistics finds the family far above chance."""
    seen = {family: np.stack([traits(family, n) for n in range(10)]) for family in FAMILIES}
    spread = np.concatenate(list(seen.values())).std(axis=0)
    centres = np.stack([rows[:7].mean(axis=0) for rows in seen.values()]) / spread
    guesses = [
        (index, np.linalg.norm(centres - row / spread, axis=1).argmin())
        for index, rows in enumerate(seen.values())
        for row in rows[7:]
    ]
    right = np.mean([truth == guess for truth, guess in guesses])
    assert right > 0.4, f"{right:.0%} right, chance is {1 / len(FAMILIES):.0%}"


def test_colours_vary_within_most_families() -> None:
    spreads = [
        np.stack([kept(family, n).reshape(-1, 3).mean(axis=0) for n in range(8)]).std(axis=0).max()
        for family in FAMILIES
    ]
    assert np.median(spreads) > 20


def test_a_gallery_is_written_in_folders_by_family(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    count = len(FAMILIES) + 2
    paths = render_gallery(tmp_path, count, 64, lambda done, total: seen.append((done, total)))
    assert paths[0] == tmp_path / "blocks" / "blocks-000.jpg"
    assert sorted(paths) == sorted(tmp_path.rglob("*.jpg"))
    assert {path.parent.name for path in paths} == set(FAMILIES)
    assert seen == [(done, count) for done in range(count + 1)]
    with Image.open(paths[-1]) as opened:
        assert (opened.format, opened.size, opened.mode) == ("JPEG", (64, 64), "RGB")


def test_a_gallery_cut_off_goes_on_and_touches_nothing_that_is_there(tmp_path: Path) -> None:
    paths = render_gallery(tmp_path, 6, 64)
    whole = [path.read_bytes() for path in paths]
    paths[3].unlink()
    paths[0].write_bytes(b"somebody else's")
    assert render_gallery(tmp_path, 6, 64) == paths
    assert [path.read_bytes() for path in paths] == [b"somebody else's", *whole[1:]]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_a_picture_that_cannot_be_drawn_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Image.Image, path: Path, *args: object, **options: object) -> None:
        Path(path).write_bytes(b"half a pict")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(OSError, match="No space left"):
        render_gallery(tmp_path, 1, 64)
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_family_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="unicorns"):
        picture("unicorns", 0)


def test_noise_falls_off_with_frequency_as_asked() -> None:
    spectrum = np.abs(np.fft.rfft2(noise(np.random.default_rng(0), 256, exponent=2.0)))
    low, high = spectrum[0, 8:12].mean(), spectrum[0, 80:120].mean()
    assert low / high == pytest.approx(10**2, rel=0.6)


def test_sampling_a_field_at_its_own_pixels_gives_it_back_and_repeats() -> None:
    field = noise(np.random.default_rng(1), 32)
    line = (np.arange(32, dtype=np.float32) + 0.5) / 32
    y, x = np.meshgrid(line, line, indexing="ij")
    np.testing.assert_allclose(sample(field, y, x), field, atol=1e-5)
    np.testing.assert_allclose(sample(field, y + 1, x - 2), field, atol=1e-4)


def test_relief_is_bright_where_it_faces_the_light() -> None:
    slope = np.tile(np.linspace(1, 0, 64, dtype=np.float32), (64, 1))
    from_right, from_left = relief(slope, 0.5, 0.0).mean(), relief(slope, 0.5, 0.5).mean()
    flat = relief(np.zeros((8, 8), np.float32), 1.0, 0.0, elevation=0.6).mean()
    assert from_right > flat > from_left
    assert flat == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("oklch", "expected"),
    [
        ((0.6279554, 0.2576833, 29.2338804 / 360), (1, 0, 0)),
        ((0.8664396, 0.2948272, 142.4953389 / 360), (0, 1, 0)),
        ((0.4520137, 0.3132144, 264.0520206 / 360), (0, 0, 1)),
    ],
)
def test_oklch_of_the_primaries_gives_the_primaries(
    oklch: tuple[float, float, float], expected: tuple[int, int, int]
) -> None:
    np.testing.assert_allclose(srgb(*oklch), expected, atol=2e-3)
