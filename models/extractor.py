"""Pictures in, descriptors out: the whole of `models` behind one class."""

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from models import zoo
from models.decode import Limits, decode
from models.device import choose_device
from models.errors import PictureError, SpecError
from models.pooling import join, pool
from models.preparation import Preparation, Prepared, Region, crop, scaled_side
from models.preprocess import Preprocessing, prepare, prepare_whole
from models.runtime import RuntimeChoice
from models.scales import combine, resized
from models.spec import DescriptorSpec, find_layer, fingerprint, parse
from models.trunk import Trunk
from models.weights import Weights, WeightsFolder
from models.whitening import Whitening, WhiteningFolder

Descriptors = npt.NDArray[np.float32]
Grid = npt.NDArray[np.float32]
"""The activation of one layer for one picture: C×H×W float32."""

Picture = bytes | str | Path | Image.Image
"""Encoded bytes, a file, or a decoded picture."""

DECODING = os.cpu_count() or 1
"""Threads that decode for `Extractor.describe`."""


@dataclass(frozen=True)
class DescriptorSpace:
    """One kind of descriptor: its spec, dimension and all that its numbers depend on."""

    spec: DescriptorSpec
    dim: int
    fingerprint: str
    weights: Weights
    whitening: Whitening | None


def resolve(
    specs: Mapping[str, str],
    weights: Mapping[str, str | Weights] | str = "auto",
    folder: WeightsFolder | None = None,
    whitenings: WhiteningFolder | None = None,
    pins: Mapping[str, str] | None = None,
) -> dict[str, DescriptorSpace]:
    """Find what each spec needs, by name of space, without loading a network.

    `weights` chooses for every network, or per network where it is a mapping, in which weights
    that are found already may stand; `pins` are full
    SHA-256s by network name or whitened spec, from which nothing may differ. Raises SpecError and
    WeightsError.
    """
    folder = folder or WeightsFolder()
    whitenings = whitenings or WhiteningFolder()
    pins = pins or {}
    parsed = {name: parse(text) for name, text in specs.items()}
    choices = (
        weights if isinstance(weights, Mapping) else {s.network: weights for s in parsed.values()}
    )
    found = {}
    for network in dict.fromkeys(spec.network for spec in parsed.values()):
        chosen = choices.get(network, "auto")
        found[network] = (
            chosen
            if isinstance(chosen, Weights)
            else folder.resolve(network, chosen, pins.get(network))
        )
    return {
        name: _space(spec, found[spec.network], whitenings, pins.get(str(spec)))
        for name, spec in parsed.items()
    }


def _space(
    spec: DescriptorSpec, weights: Weights, whitenings: WhiteningFolder, pin: str | None
) -> DescriptorSpace:
    layers = [find_layer(spec.network, name) for name in spec.layers]
    whitening = None
    flat = spec.pooling == "flatten"
    dim = sum(one.channels * (one.height * one.width if flat else 1) for one in layers)
    if spec.whiten:
        whitening = whitenings.find(str(spec.base), weights.sha256, spec.whiten, pin)
        dim = whitening.dim
    print_ = fingerprint(
        spec, weights.sha256, weights.preprocessing, whitening.sha256 if whitening else None
    )
    return DescriptorSpace(spec, dim, print_, weights, whitening)


class Extractor:
    """Descriptors of pictures in one or several spaces, one forward pass for all of a network.

    Where some of them are of several scales (`…/ms`), it is one for each scale.

    >>> extractor = Extractor("alexnet/conv5/gem", weights="untrained")
    >>> extractor.describe([Image.new("RGB", (64, 64), "teal")]).shape
    (1, 256)
    """

    def __init__(
        self,
        specs: str | Mapping[str, str],
        *,
        weights: Mapping[str, str] | str = "auto",
        folder: WeightsFolder | None = None,
        whitenings: WhiteningFolder | None = None,
        pins: Mapping[str, str] | None = None,
        device: str = "auto",
        runtime: RuntimeChoice | None = None,
        limits: Limits | None = None,
        grids: Collection[str] = (),
    ) -> None:
        """Load the networks that `specs` (a spec, or several by name) need.

        `grids` are layers of these networks (`network/layer`) to be had beside those of `specs`.
        `runtime` is how to run them, by default the fastest way there is.
        Raises SpecError, WeightsError and DeviceError.
        """
        named = {"": specs} if isinstance(specs, str) else dict(specs)
        if not named:
            raise SpecError("spec-invalid", "name at least one descriptor spec")
        self.device = choose_device(device)
        self.limits = limits or Limits()
        self.spaces = resolve(named, weights, folder, whitenings, pins)
        self._trunks = self._load([parse(grid) for grid in grids], runtime or RuntimeChoice())
        self._preprocessings: tuple[Preprocessing, ...] = tuple(
            dict.fromkeys(trunk.preprocessing for trunk in self._trunks.values())
        )

    def _load(self, also: Sequence[DescriptorSpec], runtime: RuntimeChoice) -> dict[str, Trunk]:
        trunks = {}
        specs = [*(space.spec for space in self.spaces.values()), *also]
        for space in self.spaces.values():
            network = space.spec.network
            if network not in trunks:
                layers = dict.fromkeys(
                    layer for spec in specs if spec.network == network for layer in spec.layers
                )
                trunks[network] = Trunk(space.weights, layers, self.device, runtime)
        return trunks

    @property
    def notices(self) -> list[str]:
        """What must be said aloud: that weights are untrained, or a runtime was given up."""
        said = [space.weights.notice for space in self.spaces.values()]
        return [*dict.fromkeys(notice for notice in said if notice), *self.fallbacks]

    @property
    def fallbacks(self) -> list[str]:
        """Which runtimes and precisions were tried and given up, and why."""
        return [notice for trunk in self._trunks.values() for notice in trunk.notices]

    @property
    def runtimes(self) -> dict[str, str]:
        """How each network runs: {"resnet152": "openvino f32"}."""
        return {
            network: f"{trunk.runtime.name} {trunk.runtime.precision}"
            for network, trunk in self._trunks.items()
        }

    @property
    def min_side(self) -> int:
        """The shorter side, in pixels, that decoding at reduced scale must keep."""
        return 2 * max(how.resize for how in self._preprocessings)

    def preparation(
        self, region: Region | None = None, whole: int | None = None, thumbnail: bool = False
    ) -> Preparation:
        """What this extractor wants of an encoded picture, for `prepare_picture`.

        `whole` is the longer side, in pixels, of a picture that is not to be cropped.
        """
        min_side = whole or self.min_side
        return Preparation(self._preprocessings, min_side, region, whole, thumbnail)

    def prepare(self, picture: Image.Image, region: Region | None = None) -> Prepared:
        """An upright RGB picture, or a region of it, to network input. Safe in many threads."""
        cut = crop(picture, region) if region else picture
        return Prepared(tuple(prepare(cut, how) for how in self._preprocessings))

    def prepare_whole(self, picture: Image.Image, side: int) -> Prepared:
        """An upright RGB picture without the centre crop, its longer side `side` pixels."""
        return Prepared(tuple(prepare_whole(picture, how, side) for how in self._preprocessings))

    def forward(
        self, batch: Sequence[Prepared], grids: Collection[str] = ()
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Descriptors of n prepared pictures: {space: n×dim float32, L2-normalised}.

        The activations of the layers in `grids`, at scale 1, come with them under their names:
        {"network/layer": n×C×H×W float32}. No space has such a name.

        >>> extractor = Extractor("alexnet/conv5/gem", weights="untrained")
        >>> prepared = extractor.prepare(Image.new("RGB", (64, 64), "teal"))
        >>> seen = extractor.forward([prepared], ["alexnet/conv5"])
        >>> {name: array.shape for name, array in seen.items()}
        {'alexnet/conv5': (1, 256, 13, 13), '': (1, 256)}
        """
        seen: dict[str, npt.NDArray[np.float32]] = {}
        for network, trunk in self._trunks.items():
            at = self._preprocessings.index(trunk.preprocessing)
            stacked = torch.from_numpy(np.stack([prepared.pixels[at] for prepared in batch]))
            pixels = stacked.to(self.device, non_blocking=True)
            spaces = {n: s for n, s in self.spaces.items() if s.spec.network == network}
            pooled: dict[str, list[list[Tensor]]] = {name: [] for name in spaces}
            for scale in dict.fromkeys(s for one in spaces.values() for s in one.spec.scales):
                activations = trunk(resized(pixels, scale, zoo.network(network).smallest))
                for name, space in spaces.items():
                    if scale in space.spec.scales:
                        pooled[name].append(_pooled(activations, space.spec))
                if scale == 1:
                    seen |= {
                        f"{network}/{layer}": activation.float().cpu().numpy()
                        for layer, activation in activations.items()
                        if f"{network}/{layer}" in grids
                    }
            seen |= {name: _described(space, pooled[name]) for name, space in spaces.items()}
        return seen

    def preprocessing(self, grid: str) -> Preprocessing:
        """How pictures are prepared for the network of a layer, `network/layer`."""
        return self._trunks[parse(grid).network].preprocessing

    def describe(
        self, pictures: Iterable[Picture], *, batch: int = 16, region: Region | None = None
    ) -> Descriptors | dict[str, Descriptors]:
        """Descriptors of any number of pictures, n×dim float32, by space where specs were named.

        The next `batch` pictures are decoded by threads while the network works on these. Raises
        PictureError for the first that cannot be decoded, naming it.
        """
        prepared = self._prepared_ahead(pictures, region, batch)
        chunks = []
        while chunk := list(islice(prepared, batch)):
            chunks.append(self.forward(chunk))
        joined = {
            name: np.concatenate([chunk[name] for chunk in chunks])
            if chunks
            else np.empty((0, space.dim), np.float32)
            for name, space in self.spaces.items()
        }
        return joined.get("", joined)

    def _prepared_ahead(
        self, pictures: Iterable[Picture], region: Region | None, count: int
    ) -> Iterator[Prepared]:
        """Prepare pictures in their order, up to `count` of them ahead of who asks."""
        left = iter(pictures)
        ahead: deque[Future[Prepared]] = deque()
        threads = ThreadPoolExecutor(DECODING, thread_name_prefix="decode")

        def queue(picture: Picture) -> None:
            if isinstance(picture, Image.Image):
                picture.load()  # Pillow does so at the first use, and not safely in two threads.
            ahead.append(threads.submit(lambda: self.prepare(self._open(picture, region), region)))

        try:
            for picture in islice(left, count):
                queue(picture)
            while ahead:
                found = ahead.popleft().result()
                for picture in islice(left, 1):
                    queue(picture)
                yield found
        finally:
            threads.shutdown(wait=True, cancel_futures=True)

    def _open(self, picture: Picture, region: Region | None) -> Image.Image:
        if isinstance(picture, Image.Image):
            return picture.convert("RGB")
        content = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        try:
            return decode(content, self.limits, scaled_side(self.min_side, region)).image
        except PictureError as error:
            if isinstance(picture, bytes):
                raise
            raise PictureError(error.code, f"{picture}: {error}") from error


def _pooled(activations: Mapping[str, Tensor], spec: DescriptorSpec) -> list[Tensor]:
    """Each of its layers, B×D."""
    parameters = dict(spec.parameters)
    return [pool(activations[layer], spec.pooling, **parameters) for layer in spec.layers]


def _described(space: DescriptorSpace, pooled: Sequence[Sequence[Tensor]]) -> Descriptors:
    """Descriptors, n×dim, of the pooled layers of every scale."""
    spec = space.spec
    parameters = dict(spec.parameters)
    layers = [combine(each, spec.pooling, **parameters) for each in zip(*pooled, strict=True)]
    vectors: Descriptors = join(layers).cpu().numpy()
    return space.whitening.apply(vectors) if space.whitening else vectors
