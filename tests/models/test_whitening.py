"""PCA-whitening against its definition, and its life as a file."""

from pathlib import Path

import numpy as np
import pytest

from models import whitening
from models.errors import SpecError
from models.whitening import WhiteningFolder


def descriptors(count: int = 400, dim: int = 12) -> np.ndarray:
    rng = np.random.default_rng(7)
    return (rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + 3).astype(np.float32)


def test_whitened_data_have_unit_covariance() -> None:
    x = descriptors()
    fitted = whitening.fit(x, 5, "spec@weights")
    projected = (x - fitted.mean) @ fitted.projection
    np.testing.assert_allclose(np.cov(projected, rowvar=False), np.eye(5), atol=2e-2)
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-2)


def test_the_leading_directions_are_those_of_a_singular_value_decomposition() -> None:
    x = descriptors()
    fitted = whitening.fit(x, 4, "spec@weights")
    _, singular, directions = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    scaled = directions[:4].T / (singular[:4] / np.sqrt(len(x) - 1))
    np.testing.assert_allclose(np.abs(fitted.projection), np.abs(scaled), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [9, 12, 13, 40])
def test_fewer_pictures_than_dimensions_give_the_same_directions(count: int) -> None:
    x = descriptors(count)
    fitted = whitening.fit(x, 4, "spec@weights")
    eigenvalues, eigenvectors = np.linalg.eigh(np.cov(x.astype(np.float64), rowvar=False))
    scaled = eigenvectors[:, ::-1][:, :4] / np.sqrt(eigenvalues[::-1][:4])
    np.testing.assert_allclose(np.abs(fitted.projection), np.abs(scaled), rtol=1e-3, atol=1e-4)


def test_a_fit_to_fewer_dimensions_is_the_first_columns_of_one_to_more() -> None:
    more, fewer = (whitening.fit(descriptors(), dim, "spec@weights") for dim in (7, 3))
    np.testing.assert_array_equal(more.projection[:, :3], fewer.projection)


def test_whitened_descriptors_have_unit_length() -> None:
    x = descriptors()
    whitened = whitening.fit(x, 6, "spec@weights").apply(x)
    assert whitened.shape == (400, 6)
    np.testing.assert_allclose(np.linalg.norm(whitened, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("count", "dim"), [(5, 5), (400, 13), (400, 0), (1, 1)])
def test_too_few_pictures_or_too_many_dimensions_are_refused(count: int, dim: int) -> None:
    with pytest.raises(SpecError) as refused:
        whitening.fit(descriptors(count), dim, "spec@weights")
    assert refused.value.code == "spec-whitening-samples"


def test_fitting_twice_gives_the_same_file(tmp_path: Path) -> None:
    first, second = (whitening.fit(descriptors(), 5, "spec@weights") for _ in range(2))
    assert first.sha256 == second.sha256
    whitening.save(first, tmp_path / "w.safetensors")
    loaded = whitening.load(tmp_path / "w.safetensors")
    assert loaded.sha256 == first.sha256
    np.testing.assert_array_equal(loaded.projection, first.projection)


def test_one_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    whitening.save(whitening.fit(descriptors(), 5, "spec@weights"), path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(SpecError) as refused:
        whitening.load(path)
    assert refused.value.code == "spec-whitening-changed"


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    whitening.save(whitening.fit(descriptors(), 5, "spec@weights"), path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SpecError) as refused:
        whitening.load(path)
    assert refused.value.code == "spec-whitening-unreadable"


def test_the_folder_gives_the_latest_unless_one_is_pinned(tmp_path: Path) -> None:
    folder = WhiteningFolder(tmp_path)
    older = whitening.fit(descriptors(300), 5, "alexnet/conv5/gem@abc")
    newer = whitening.fit(descriptors(400), 5, "alexnet/conv5/gem@abc")
    folder.keep(older)
    folder.keep(newer)
    assert folder.find("alexnet/conv5/gem", "abc", 5).sha256 == newer.sha256
    assert folder.find("alexnet/conv5/gem", "abc", 5, older.sha256).sha256 == older.sha256


@pytest.mark.parametrize(
    ("spec", "weights", "dim"),
    [
        ("alexnet/conv5/mac", "abc", 5),
        ("alexnet/conv5/gem", "abd", 5),
        ("alexnet/conv5/gem", "abc", 6),
    ],
)
def test_a_whitening_of_anything_else_does_not_fit(
    tmp_path: Path, spec: str, weights: str, dim: int
) -> None:
    folder = WhiteningFolder(tmp_path)
    folder.keep(whitening.fit(descriptors(), 5, "alexnet/conv5/gem@abc"))
    with pytest.raises(SpecError, match="pool5 whiten") as refused:
        folder.find(spec, weights, dim)
    assert refused.value.code == "spec-whitening-missing"
