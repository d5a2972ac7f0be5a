"""Several scales in one descriptor: the mean over them, in plain numpy."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models import Extractor, WhiteningFolder, whitening, zoo
from models.extractor import Prepared
from models.scales import SEVERAL, combine, resized
from models.trunk import Trunk
from tests.pictures import picture

Floats = npt.NDArray[np.float64]


def unit(rows: Floats) -> Floats:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def bilinear(channel: npt.NDArray[np.uint8], height: int, width: int) -> Floats:
    """Every pixel between the four around its middle; at the border the nearest stand twice."""
    rows, columns = channel.shape
    made = np.empty((height, width))
    for i, j in np.ndindex(height, width):
        y = max((i + 0.5) * rows / height - 0.5, 0)
        x = max((j + 0.5) * columns / width - 0.5, 0)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
        down, across = y - top, x - left
        above = channel[top, left] * (1 - across) + channel[top, right] * across
        below = channel[bottom, left] * (1 - across) + channel[bottom, right] * across
        made[i, j] = above * (1 - down) + below * down
    return made


@pytest.mark.parametrize("scale", SEVERAL[1:])
def test_a_picture_is_made_smaller_by_bilinear_interpolation(scale: float) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, 48, 40)).astype(np.uint8)
    found = resized(torch.from_numpy(pixels), scale, 8)
    assert found.dtype == torch.uint8
    height, width = round(48 * scale), round(40 * scale)
    expected = np.stack([bilinear(channel, height, width) for channel in pixels[0]])
    assert found.shape == (1, 3, height, width)
    assert np.abs(found[0].numpy() - expected).max() <= 0.5 + 1e-3


def test_half_the_size_is_the_mean_of_every_four_pixels() -> None:
    pixels = torch.tensor([[[[0, 10], [20, 200]]]], dtype=torch.uint8).expand(1, 3, 2, 2)
    assert resized(pixels, 0.5, 1).flatten().tolist() == [58] * 3  # 57.5, to even


def test_the_first_scale_is_the_picture_itself() -> None:
    pixels = torch.randint(0, 256, (2, 3, 9, 9), dtype=torch.uint8)
    assert resized(pixels, 1.0, 63) is pixels


@pytest.mark.parametrize(
    ("size", "expected"), [((100, 200), (63, 126)), ((63, 90), (63, 90)), ((40, 50), (40, 50))]
)
def test_no_scale_goes_below_what_the_network_accepts(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    pixels = torch.zeros(1, 3, *size, dtype=torch.uint8)
    assert resized(pixels, 0.5, 63).shape[2:] == expected


@pytest.mark.parametrize("name", ["alexnet", "inception_v3", "vgg19"])
def test_the_smallest_picture_of_a_network_is_the_smallest(name: str) -> None:
    row = zoo.network(name)
    model = zoo.build(row)
    model(torch.empty(2, 3, row.smallest, row.smallest, device="meta"))
    with pytest.raises(RuntimeError):
        model(torch.empty(2, 3, row.smallest - 1, row.smallest - 1, device="meta"))


vectors = hnp.arrays(
    np.float32,
    st.tuples(st.just(3), st.just(2), st.integers(2, 9)),
    elements=st.floats(2**-6, 1, width=32),
)


@given(rows=vectors, p=st.floats(0.5, 20))
def test_gem_is_combined_by_the_power_mean_with_its_own_exponent(
    rows: npt.NDArray[np.float32], p: float
) -> None:
    each = unit(rows.astype(np.float64))
    expected = unit(((each**p).sum(axis=0) / 3) ** (1 / p))
    found = combine(list(torch.from_numpy(each.astype(np.float32))), "gem", p=p)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mac", "spoc", "crow", "rmac", "vlad"])
def test_all_others_are_combined_by_the_mean(pooling: str) -> None:
    each = unit(np.random.default_rng(2).standard_normal((3, 4, 6)))
    found = combine(list(torch.from_numpy(each)), pooling)
    np.testing.assert_allclose(found, unit(each.mean(axis=0)), atol=1e-9)


def test_a_high_power_of_a_long_vector_neither_vanishes_nor_overflows() -> None:
    each = torch.full((1, 2048), 2048**-0.5)
    found = combine([each, each, each], "gem", p=20.0)
    np.testing.assert_allclose(found, each, rtol=1e-4)


def test_what_is_zero_at_every_scale_stays_zero() -> None:
    for pooling in ("gem", "spoc"):
        assert combine([torch.zeros(1, 4)] * 3, pooling).tolist() == [[0.0] * 4]


def gem(grid: Floats, p: float) -> Floats:
    return (np.maximum(grid, 1e-6) ** p).mean(axis=(1, 2)) ** (1 / p)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    """Every kind of space over one network, of one scale and of several."""
    specs = {
        "one": "alexnet/conv5/gem",
        "several": "alexnet/conv5/gem/ms",
        "spoc": "alexnet/conv3/spoc/ms",
        "joined": "alexnet/conv3+conv5/gem(p=2)/ms",
    }
    return Extractor(specs, weights="untrained", device="cpu")


@pytest.fixture(scope="module")
def grids() -> list[dict[str, Floats]]:
    """The activations of one picture at each scale, each from a pass of its own."""
    layers = [f"alexnet/{layer}" for layer in ("conv3", "conv5")]
    single = Extractor({layer.replace("/", "-"): layer for layer in layers}, weights="untrained")
    pixels = torch.from_numpy(single.prepare(picture(5)).pixels[0][None])
    found = []
    for scale in SEVERAL:
        smaller = Prepared((resized(pixels, scale, 63)[0].numpy(),))
        seen = single.forward([smaller], layers)
        found.append({layer: seen[layer][0].astype(np.float64) for layer in layers})
    return found


def test_every_space_is_the_mean_over_its_own_scales(
    extractor: Extractor, grids: list[dict[str, Floats]]
) -> None:
    found = {
        name: rows[0] for name, rows in extractor.forward([extractor.prepare(picture(5))]).items()
    }

    def over_scales(layer: str, p: float) -> Floats:
        return unit(
            (np.stack([unit(gem(seen[layer], p)) for seen in grids]) ** p).mean(axis=0) ** (1 / p)
        )

    conv3, conv5 = "alexnet/conv3", "alexnet/conv5"
    expected = {
        "one": unit(gem(grids[0][conv5], 3)),
        "several": over_scales(conv5, 3),
        "spoc": unit(np.mean([unit(seen[conv3].mean(axis=(1, 2))) for seen in grids], axis=0)),
        "joined": unit(np.concatenate([over_scales(conv3, 2), over_scales(conv5, 2)])),
    }
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        assert extractor.spaces[name].dim == row.size, name
        np.testing.assert_allclose(found[name], row, atol=2e-5, err_msg=name)
    assert float(found["one"] @ found["several"]) < 0.9999


def test_scales_share_their_passes(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = []
    forward = Trunk.__call__

    def counted(trunk: Trunk, batch: torch.Tensor) -> object:
        sides.append(batch.shape[-1])
        return forward(trunk, batch)

    monkeypatch.setattr(Trunk, "__call__", counted)
    extractor.forward([extractor.prepare(picture(n)) for n in range(2)])
    assert sides == [224, 158, 112]


def test_grids_are_those_of_the_picture_itself(
    extractor: Extractor, grids: list[dict[str, Floats]]
) -> None:
    seen = extractor.forward([extractor.prepare(picture(5))], ["alexnet/conv5"])["alexnet/conv5"]
    np.testing.assert_allclose(seen[0], grids[0]["alexnet/conv5"], atol=1e-4)


def test_whitening_is_fitted_on_several_scales_and_applied_after_them(tmp_path: Path) -> None:
    plain = Extractor("alexnet/conv5/gem/ms", weights="untrained")
    rows = np.asarray(plain.describe([picture(n) for n in range(10)]))
    fitted = whitening.fit(rows, 8, f"alexnet/conv5/gem/ms@{plain.spaces[''].weights.sha256}")
    folder = WhiteningFolder(tmp_path)
    folder.keep(fitted)
    whitened = Extractor("alexnet/conv5/gem/ms/pca8", weights="untrained", whitenings=folder)
    found = whitened.describe([picture(3)])
    np.testing.assert_allclose(found, fitted.apply(rows[3:4]), atol=1e-4)


def test_a_long_picture_keeps_what_the_network_accepts(extractor: Extractor) -> None:
    long = extractor.prepare_whole(picture(1, (400, 100)), 320)
    assert long.pixels[0].shape == (3, 80, 320)
    assert extractor.forward([long])["several"].shape == (1, 256)
