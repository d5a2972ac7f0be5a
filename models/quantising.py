"""Weights in int8 out of weights in float32: calibrated, measured, and written as one file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, fx

from models import download, geometry, provenance, spec, zoo
from models.activations import channels_first, loaded
from models.calibration import calibrate
from models.errors import WeightsError
from models.folding import folded
from models.pooling import pool_joined
from models.preprocess import Preprocessing, normalise
from models.provenance import Provenance
from models.quantisation import quantised
from models.weights import Weights, WeightsFolder

HELD_OUT = 4
"""Every so manieth picture is not calibrated on, but measured."""

_BATCH = 16
_PASSES = 2
"""Of calibration, and of measuring."""


def quantise(
    weights: Weights,
    pixels: npt.NDArray[np.uint8],
    calibrated_on: str,
    folder: WeightsFolder,
    name: str | None = None,
    told: Callable[[int, int], None] = lambda _done, _total: None,
) -> Weights:
    """Calibrate `weights` on pictures, and write them quantised into the folder.

    `pixels` are n×3×H×W uint8 RGB as `weights.preprocessing` prepares them, n ≥ 2 × HELD_OUT, and
    `calibrated_on` says what they are. A quarter of them measures the cosine that the file then
    states. The file is `name`, by default `<network>-<weights>-int8.safetensors`, and holds the
    parameters in float32 as they were, up to the deepest layer that the weights reach. `told`
    hears of pictures that have passed the network.

    Raises WeightsError: `weights-unquantisable`, `weights-few-pictures`, `weights-exists`,
    `weights-folder`, `weights-unknown` (the name), and those of loading.
    """
    _check(weights, len(pixels))
    path = _path(weights, folder, name)
    high = spec.parse(f"{weights.network}/high")
    layer = spec.find_layer(weights.network, high.layer)
    cut = _whole(weights, layer)
    state = {key: value.clone() for key, value in cut.state_dict().items()}

    held_out = np.arange(len(pixels)) % HELD_OUT == HELD_OUT - 1
    passed = _Passed(_PASSES * len(pixels), told)
    fitting = _Batches(pixels[~held_out], weights.preprocessing, passed)
    measuring = _Batches(pixels[held_out], weights.preprocessing, passed)

    def describe(network: fx.GraphModule) -> Tensor:
        with torch.inference_mode():
            grids = [channels_first(network(x)[layer.node], layer.channel_axis) for x in measuring]
            return torch.cat([pool_joined([x], high.pooling) for x in grids])

    cut = folded(cut)
    ranges = calibrate(cut, fitting)
    before = describe(cut)
    cosines = (before * describe(quantised(cut, ranges))).sum(1)
    said = Provenance(
        network=weights.network,
        source=weights.name,
        source_sha256=weights.sha256,
        preprocessing=weights.preprocessing,
        ranges=ranges,
        calibrated_on=calibrated_on,
        pictures=int((~held_out).sum()),
        measured_on=int(held_out.sum()),
        spec=str(high),
        cosine_mean=float(cosines.mean()),
        cosine_least=float(cosines.min()),
    )
    _write(path, state, said)
    return folder.resolve(weights.network, path.name)


def _check(weights: Weights, count: int) -> None:
    if weights.quantised or zoo.network(weights.network).module:
        raise WeightsError(
            "weights-unquantisable",
            f"{weights.name} of {weights.network} "
            + ("is quantised already" if weights.quantised else "has no convolutions of its own"),
        )
    if count < 2 * HELD_OUT:
        raise WeightsError(
            "weights-few-pictures",
            f"{count} pictures are too few to quantise with: give {2 * HELD_OUT} or more, "
            "and better hundreds",
        )


def _path(weights: Weights, folder: WeightsFolder, name: str | None) -> Path:
    stem = Path(weights.name.partition(":")[0]).stem
    stem = stem if stem.startswith(weights.network) else f"{weights.network}-{stem}"
    name = name or f"{stem}-int8.safetensors"
    path = folder.folder / name
    if Path(name).name != name or not name.isprintable() or path.suffix != ".safetensors":
        raise WeightsError(
            "weights-unknown", f"{name!r} is no name for weights: it ends with .safetensors"
        )
    if path.exists():
        raise WeightsError(
            "weights-exists",
            f"{path} is there already, and collections may be made with it: give another name",
        )
    return path


def _whole(weights: Weights, least: geometry.Layer) -> fx.GraphModule:
    """The network up to the deepest layer whose parameters there are, which `least` is at least.

    Files of a trunk alone are quantised as far as they go.
    """
    loaded(weights, [least.name])  # What fits not even here is of another network.
    above = {one.node: one for one in geometry.layers(weights.network).values()}
    for one in sorted(above.values(), key=lambda one: -one.depth):
        try:
            return loaded(weights, [least.name, one.name])
        except WeightsError as why:
            if why.code != "weights-keys-missing":
                raise
    raise AssertionError("the layer that was just loaded is one of them")


@dataclass
class _Passed:
    """How many of so many pictures have passed."""

    total: int
    told: Callable[[int, int], None]
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        self.told(self.done, self.total)


@dataclass(frozen=True)
class _Batches:
    """Pictures as a network takes them, normalised batch by batch, as often as they are wanted."""

    pixels: npt.NDArray[np.uint8]
    how: Preprocessing
    passed: _Passed

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.pixels), _BATCH):
            batch = torch.from_numpy(self.pixels[start : start + _BATCH])
            yield normalise(batch, self.how)
            self.passed.add(len(batch))


def _write(path: Path, state: dict[str, Tensor], said: Provenance) -> None:
    """Whole and durable, or not there."""
    aside = path.with_suffix(".part")
    header: dict[str, Any] = {"format": "pt", provenance.KEY: said.text()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with download.claimed(aside) as stream:
            stream.truncate(0)
            safetensors.torch.save_file(state, aside, header)
            with aside.open("rb+") as written:
                download.publish(written, aside, path)
    except OSError as why:
        raise WeightsError(
            "weights-folder", f"{path} cannot be written ({why.strerror}): make room there"
        ) from why
