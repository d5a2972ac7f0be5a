"""Which spec of the embedded weights searches best, and how well.

    python -m benchmarks.embedded_weights choose [--weights FILE]
    python -m benchmarks.embedded_weights fit --spec alexnet/conv3+conv5/gem --dim 128
    python -m benchmarks.embedded_weights report

`choose` gives leave-one-out mAP over layers and runs of layers, poolings, input sizes and
PCA-whitenings. `fit` writes the whitening of one spec beside the embedded weights. `report`
measures the default spec against the baselines: mAP, and recall@1 of pictures that were cropped,
turned, compressed, darkened, mirrored or made small, among all there are. Whitenings are fitted on
crops of the training photographs alone.
"""

import argparse
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance

from benchmarks.sets import (
    MEASURE,
    RESULTS,
    SETS,
    SHARED,
    files,
    interval,
    machine,
    measured,
    opened,
    rounded,
)
from models import Descriptors, Extractor, Weights, WeightsFolder, WhiteningFolder
from models.embedded import FOLDER
from models.pooling import pool
from models.preprocess import prepare
from models.spec import parse
from models.training.views import Views
from models.trunk import Trunk
from models.whitening import Whitening, fit

NETWORK = "alexnet"
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
POOLINGS: Mapping[str, Mapping[str, float]] = {
    "spoc": {},
    "gem": {},
    "mac": {},
    "rmac": {},
}
SIDES = (160, 176, 224)
DIMS = (64, 96, 112, 128)
VIEWS = 2048
"""Crops of the training photographs that a whitening is fitted on."""
BASELINES: Mapping[str, tuple[str, str]] = {
    "untrained trunk": ("alexnet/conv5/spoc", "untrained"),
    "colour histogram": ("colour/rgb8", "auto"),
    "SqueezeNet 1.1": ("squeezenet1_1/fire9/gem", "squeezenet1_1.pth"),
}
BATCH = 32

Pictures = Sequence[Image.Image]


def pooled(weights: Weights, pictures: Pictures, side: int) -> dict[tuple[str, str], Descriptors]:
    """Every layer in every pooling from one pass per picture at one input size."""
    how = replace(weights.preprocessing, resize=side, crop=side)
    trunk = Trunk(replace(weights, preprocessing=how), LAYERS, torch.device("cpu"))
    found: dict[tuple[str, str], list[Descriptors]] = {}
    for start in range(0, len(pictures), BATCH):
        pixels = np.stack([prepare(one, how) for one in pictures[start : start + BATCH]])
        activations = trunk(torch.from_numpy(pixels))
        for layer, (name, parameters) in itertools.product(LAYERS, POOLINGS.items()):
            operator = name.partition("(")[0]
            rows = pool(activations[layer], operator, **parameters).numpy()
            found.setdefault((layer, name), []).append(rows)
    return {key: np.concatenate(parts) for key, parts in found.items()}


def crops(side: int) -> list[Image.Image]:
    """Square crops of the training photographs, as they are searched for: not mixed."""
    views = Views(files("train"), [], share=1.0, side=side, smallest=0.1, mixed=0.0, seed=7)
    return [Image.fromarray(views.view(n)) for n in range(VIEWS)]


def runs() -> Iterator[tuple[str, ...]]:
    """Unbroken runs of layers, one or more, that end with conv3 or above."""
    for start, end in itertools.combinations(range(len(LAYERS) + 1), 2):
        if end >= 3:
            yield LAYERS[start:end]


Pooled = Mapping[tuple[str, str], Descriptors]


def joined(rows: Pooled, layers: Sequence[str], pooling: str) -> Descriptors:
    parts = [rows[layer, pooling] for layer in layers]
    return np.concatenate(parts, axis=1) / np.sqrt(np.float32(len(layers)))


def candidates(weights: Weights, side: int) -> Iterator[dict[str, object]]:
    """One row per spec at this input size."""
    sets = {name: pooled(weights, opened(name), side) for name in SETS}
    fitting = pooled(weights, crops(side), side)
    for layers, pooling in itertools.product(runs(), POOLINGS):
        rows = {of: joined(found, layers, pooling) for of, found in sets.items()}
        spec = f"{NETWORK}/{'+'.join(layers)}/{pooling}"
        yield scored(spec, side, rows)
        sample = joined(fitting, layers, pooling)
        dims = [dim for dim in DIMS if dim <= sample.shape[1]]
        whole = fit(sample, dims[-1], spec)
        for dim in dims:
            shorter = replace(whole, projection=whole.projection[:, :dim])
            whitened = {of: shorter.apply(found) for of, found in rows.items()}
            yield scored(f"{spec}/pca{dim}", side, whitened)


def scored(spec: str, side: int, rows: Mapping[str, Descriptors]) -> dict[str, object]:
    means = {name: found.mean(MEASURE) for name, found in measured(rows).items()}
    return {"spec": spec, "side": side} | rounded(means, 4)


def choose(weights: Weights) -> dict[str, object]:
    """Every candidate, the best mean over the sets first."""
    rows: list[dict[str, object]] = []
    for side in SIDES:
        rows += candidates(weights, side)
        print(f"{side} px: {len(rows)} specs", flush=True)
    rows.sort(key=lambda found: -sum(float(str(found[name])) for name in SETS))
    for found in rows[:25]:
        print(*found.values())
    return {"compared": len(rows), "best": rows[:200]}


def fit_default(weights: Weights, spec: str, dim: int) -> Whitening:
    """Fit the whitening of a spec at the input size of the weights' own row."""
    extractor = Extractor(spec, weights="embedded", device="cpu")
    descriptors = np.asarray(extractor.describe(crops(weights.preprocessing.crop)))
    return fit(descriptors, dim, f"{parse(spec).base}@{weights.sha256}")


def _jpeg(picture: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=20)
    return Image.open(stream).convert("RGB")


def _cut(picture: Image.Image) -> Image.Image:
    """The middle half of the area."""
    width, height = picture.size
    left, top = width * (1 - 0.5**0.5) / 2, height * (1 - 0.5**0.5) / 2
    return picture.crop((int(left), int(top), int(width - left), int(height - top)))


def _turned(picture: Image.Image) -> Image.Image:
    """By 15°, without the corners that this leaves empty."""
    turned = picture.rotate(15, Image.Resampling.BICUBIC)
    width, height = picture.size
    return turned.crop(
        (int(width * 0.12), int(height * 0.12), int(width * 0.88), int(height * 0.88))
    )


def _small(picture: Image.Image) -> Image.Image:
    scale = 64 / min(picture.size)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)))


CHANGES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "cropped to 50 %": _cut,
    "rotated 15°": _turned,
    "JPEG quality 20": _jpeg,
    "half brightness": lambda picture: ImageEnhance.Brightness(picture).enhance(0.5),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "64 px": _small,
}


def recalls(extractor: Extractor) -> dict[str, float]:
    """Recall@1: how many changed pictures find themselves first among all pictures."""
    pictures = [picture for name in ("train", *SETS) for picture in opened(name)]
    gallery = np.asarray(extractor.describe(pictures))
    found = {}
    for name, change in CHANGES.items():
        asked = np.asarray(extractor.describe([change(picture) for picture in pictures]))
        first = (asked @ gallery.T).argmax(axis=1)
        found[name] = float((first == np.arange(len(pictures))).mean())
    return rounded(found)


def report() -> dict[str, object]:
    """The default spec and the baselines on everything."""
    folder = WeightsFolder(SHARED / "weights", offline=True)
    default = folder.resolve(NETWORK, "embedded").best_spec
    rows = []
    for name, (spec, choice) in ({"embedded": (default, "embedded")} | dict(BASELINES)).items():
        extractor = Extractor(spec, weights=choice, folder=folder, device="cpu")
        found = measured({of: np.asarray(extractor.describe(files(of))) for of in SETS})
        rows.append(
            {
                "name": name,
                "spec": spec,
                "dim": extractor.spaces[""].dim,
                "mAP": rounded({of: each.mean(MEASURE) for of, each in found.items()}),
                "interval": {of: interval(each) for of, each in found.items()},
                "precision@5": rounded({of: each.mean("mP@5") for of, each in found.items()}),
                "recall@1": recalls(extractor),
            }
        )
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    return {"rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("choose", "fit", "report"))
    parser.add_argument("--spec", help="of `fit`")
    parser.add_argument("--dim", type=int, help="of `fit`")
    parser.add_argument("--weights", type=Path, help="of `choose`: another file")
    given = parser.parse_args()
    folder = WeightsFolder(given.weights.parent if given.weights else FOLDER, offline=True)
    weights = folder.resolve(NETWORK, given.weights.name if given.weights else "embedded")
    if given.task == "fit":
        print(WhiteningFolder(FOLDER).keep(fit_default(weights, given.spec, given.dim)))
        return
    found = choose(weights) if given.task == "choose" else report()
    about = {"benchmark": f"embedded_weights {given.task}", "machine": machine()}
    about |= {"weights": weights.sha256, "measure": MEASURE}
    path = RESULTS / f"embedded_weights_{given.task}.json"
    path.write_text(json.dumps(about | found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
