"""The extractor: specs in, descriptors out, the same as torchvision by hand."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model, get_model_weights

from models import Extractor, PictureError, SpecError, WeightsFolder, WhiteningFolder, whitening
from models.extractor import resolve
from models.preparation import Prepared, crop, scaled_side


def noise(seed: int, size: tuple[int, int] = (300, 260)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def three_levels() -> Extractor:
    specs = {level: f"alexnet/{level}" for level in ("low", "mid", "high")}
    return Extractor(specs, weights="untrained", device="cpu")


def test_several_spaces_come_from_one_pass(three_levels: Extractor) -> None:
    described = three_levels.describe([noise(n) for n in range(5)], batch=2)
    assert {name: rows.shape for name, rows in described.items()} == {
        "low": (5, 192),
        "mid": (5, 384),
        "high": (5, 256),
    }
    for rows in described.values():
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_joined_layers_give_the_mean_of_their_cosines() -> None:
    pictures = [noise(n) for n in range(4)]
    specs = {"both": "alexnet/conv3+conv5/spoc", "one": "alexnet/conv3/spoc"}
    extractor = Extractor(specs | {"other": "alexnet/conv5/spoc"}, weights="untrained")
    described = extractor.describe(pictures)
    assert extractor.spaces["both"].dim == described["both"].shape[1] == 384 + 256
    cosines = {name: rows @ rows.T for name, rows in described.items()}
    np.testing.assert_allclose(cosines["both"], (cosines["one"] + cosines["other"]) / 2, atol=1e-5)


def test_bytes_a_file_and_a_decoded_picture_are_the_same_picture(
    three_levels: Extractor, tmp_path: Path
) -> None:
    picture = noise(3)
    (tmp_path / "a.png").write_bytes(encoded(picture))
    rows = three_levels.describe([picture, encoded(picture), tmp_path / "a.png"])["high"]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-6)


def test_one_spec_by_itself_gives_one_array() -> None:
    rows = Extractor("alexnet/conv3/mac", weights="untrained").describe([noise(1)])
    assert isinstance(rows, np.ndarray)
    assert rows.shape == (1, 384)


def test_no_picture_is_no_row(three_levels: Extractor) -> None:
    assert three_levels.describe([])["high"].shape == (0, 256)


def test_a_file_that_is_no_picture_is_named(three_levels: Extractor, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    with pytest.raises(PictureError, match=r"notes\.jpg"):
        three_levels.describe([tmp_path / "notes.jpg"])


def test_pictures_stay_in_their_order_and_no_more_than_a_batch_is_taken_ahead(
    three_levels: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [encoded(noise(n, (60 + 40 * (n % 3), 60))) for n in range(7)]
    taken = 0

    def coming() -> Iterator[bytes]:
        nonlocal taken
        for content in contents:
            taken += 1
            yield content

    ahead = []
    forward = Extractor.forward

    def watched(extractor: Extractor, batch: Sequence[Prepared]) -> object:
        ahead.append(taken)
        return forward(extractor, batch)

    monkeypatch.setattr(Extractor, "forward", watched)
    rows = three_levels.describe(coming(), batch=2)["high"]
    assert ahead == [4, 6, 7, 7]
    singly = [three_levels.describe([content])["high"][0] for content in contents]
    np.testing.assert_allclose(rows, singly, atol=1e-5)


def test_of_several_broken_pictures_the_first_is_named(
    three_levels: Extractor, tmp_path: Path
) -> None:
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / name).write_text("not a picture")
    pictures = [noise(1), tmp_path / "b.jpg", tmp_path / "a.jpg"]
    with pytest.raises(PictureError, match=r"b\.jpg"):
        three_levels.describe(pictures)


def test_a_region_is_the_picture_cut_out(three_levels: Extractor) -> None:
    picture = noise(4, (400, 400))
    by_region = three_levels.describe([picture], region=(0.25, 0.5, 0.75, 1.0))["high"]
    by_hand = three_levels.describe([picture.crop((100, 200, 300, 400))])["high"]
    np.testing.assert_allclose(by_region, by_hand, atol=1e-6)


@pytest.mark.parametrize(
    "region", [(0.5, 0, 0.5, 1), (0.6, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1, 2)]
)
def test_a_region_outside_the_picture_is_refused(region: tuple[float, float, float, float]) -> None:
    with pytest.raises(PictureError) as refused:
        crop(noise(1), region)
    assert refused.value.code == "picture-region-invalid"


def test_a_region_is_at_least_one_pixel() -> None:
    assert crop(noise(1), (0.999, 0.999, 1.0, 1.0)).size == (1, 1)


def test_a_small_region_asks_for_a_larger_decode() -> None:
    assert scaled_side(512, None) == 512
    assert scaled_side(512, (0.0, 0.0, 0.5, 1.0)) == 1024


def test_reduced_decoding_keeps_the_descriptor(three_levels: Extractor) -> None:
    large = noise(9, (3000, 2200))
    buffer = io.BytesIO()
    large.save(buffer, "JPEG", quality=95)
    reduced = three_levels.describe([buffer.getvalue()])["high"][0]
    full = three_levels.describe([Image.open(buffer)])["high"][0]
    assert float(reduced @ full) >= 0.999


def test_untrained_weights_are_said_aloud(three_levels: Extractor) -> None:
    assert any("untrained" in notice for notice in three_levels.notices)


def test_no_spec_is_refused() -> None:
    with pytest.raises(SpecError):
        Extractor({})


def test_a_whitened_space_is_projected_and_pinned(tmp_path: Path) -> None:
    folder = WhiteningFolder(tmp_path)
    plain = Extractor("alexnet/conv5/gem", weights="untrained")
    rows = plain.describe([noise(n) for n in range(12)])
    sha256 = plain.spaces[""].weights.sha256
    fitted = whitening.fit(np.asarray(rows), 8, f"alexnet/conv5/gem@{sha256}")
    folder.keep(fitted)
    whitened = Extractor("alexnet/conv5/gem/pca8", weights="untrained", whitenings=folder)
    np.testing.assert_allclose(
        whitened.describe([noise(0)]), fitted.apply(np.asarray(rows)[:1]), atol=1e-4
    )
    assert whitened.spaces[""].fingerprint != plain.spaces[""].fingerprint
    with pytest.raises(SpecError, match="pool5 whiten"):
        resolve(
            {"": "alexnet/conv5/gem/pca8"},
            "untrained",
            whitenings=folder,
            pins={"alexnet/conv5/gem/pca8": "0" * 64},
        )


def test_genuine_weights_give_what_torchvision_gives(
    shared_images: Path, shared_weights: Path
) -> None:
    files = sorted((shared_images / "clothing" / "hat").iterdir())[:6]
    extractor = Extractor(
        "squeezenet1_1/features.12/spoc",
        weights="squeezenet1_1.pth",
        folder=WeightsFolder(shared_weights, offline=True),
        device="cpu",
    )
    model = get_model("squeezenet1_1").eval()
    model.load_state_dict(torch.load(shared_weights / "squeezenet1_1.pth", weights_only=True))
    transform = get_model_weights("squeezenet1_1").IMAGENET1K_V1.transforms()
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
        pooled = model.features(pixels).mean(dim=(2, 3)).numpy()
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    computed = np.asarray(extractor.describe(files))
    assert (computed * expected).sum(axis=1).min() > 0.9995
