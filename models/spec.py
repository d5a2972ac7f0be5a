"""Descriptor specs: `network/layer/pooling`, then optional post-processing; and fingerprints.

    resnet152/layer4/gem    vgg19/conv5_4/rmac/pca256    alexnet/fc7    resnet152/high
    alexnet/conv5/gem(p=4)  alexnet/conv5/spoc(centre=1)    alexnet/conv3+conv5/gem
    resnet152/layer4/gem/ms    resnet152/layer4/gem/ms/pca128

Layers joined by `+` are pooled and L2-normalised each, concatenated with equal weights, and
normalised again: their inner product is the mean of the layers' cosines. With `ms` each of them is
the mean over several scales of the picture (`models.scales`).

A layer may be a level (`low`, `mid`, `high`; of a network whose row names none, `high` is the
last layer that still has a grid); a pooling left out is the level's own or else the layer's:
`flatten` where there is no grid to pool over, `gem` where the network's row names no other.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from models import geometry, scales, zoo
from models.errors import SpecError
from models.pooling import POOLINGS
from models.preprocess import Preprocessing

_FORM = (
    "network/layer[/pooling][/ms][/pcaN], such as resnet152/layer4/gem or vgg19/conv5_4/rmac/pca256"
)
_MULTISCALE = "ms"
_POOLING = re.compile(r"(?P<name>[a-z]+)(\((?P<parameters>[^()]*)\))?")
_WHITENING = re.compile(r"pca(?P<dim>[1-9]\d{0,5})")


@dataclass(frozen=True)
class DescriptorSpec:
    """A parsed, canonical spec: levels and defaults are resolved, `str` gives the text again.

    `layer` is one layer's name, or several joined by `+`, the deepest last.
    """

    network: str
    layer: str
    pooling: str
    parameters: tuple[tuple[str, float], ...] = ()
    whiten: int | None = None
    multiscale: bool = False

    def __str__(self) -> str:
        pooling = self.pooling
        if self.parameters:
            pooling += "(" + ",".join(f"{name}={value:g}" for name, value in self.parameters) + ")"
        scaling = [_MULTISCALE] if self.multiscale else []
        whitening = [f"pca{self.whiten}"] if self.whiten else []
        return "/".join([self.network, self.layer, pooling, *scaling, *whitening])

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that are joined, mostly one."""
        return tuple(self.layer.split("+"))

    @property
    def grids(self) -> tuple[str, ...]:
        """The activations that are pooled, `network/layer`: specs that share one share its grid."""
        return tuple(f"{self.network}/{layer}" for layer in self.layers)

    @property
    def scales(self) -> tuple[float, ...]:
        """The scales of the picture that it is made from, the largest first."""
        return scales.SEVERAL if self.multiscale else scales.SINGLE

    @property
    def base(self) -> "DescriptorSpec":
        """The same without whitening: what one is fitted on."""
        return replace(self, whiten=None)


def parse(text: str) -> DescriptorSpec:
    """Parse and resolve a spec.

    Raises SpecError: `spec-invalid`, `spec-unknown-network`, `spec-unknown-layer`,
    `spec-unknown-pooling`, `spec-pooling-unfit`, `spec-scales-unfit`.

    >>> str(parse("alexnet/high"))
    'alexnet/conv5/gem'
    >>> parse("alexnet/conv3+conv5/gem").layers
    ('conv3', 'conv5')
    >>> str(parse("vgg19/conv5_4/gem(p=3)/pca256"))  # p = 3 is the default
    'vgg19/conv5_4/gem/pca256'
    >>> [round(scale, 2) for scale in parse("resnet152/high/ms").scales]
    [1.0, 0.71, 0.5]
    >>> str(parse("sift/vlad64"))
    'sift/vlad64/vlad'
    """
    parts = text.strip().split("/")
    if not 2 <= len(parts) <= 5 or not all(parts):
        raise SpecError("spec-invalid", f"{text!r} is no descriptor spec: it has the form {_FORM}")
    row = zoo.network(parts[0])
    layer, pooling = _level(row, parts[1])
    rest = parts[2:]
    whitening = _WHITENING.fullmatch(rest[-1]) if rest else None
    if whitening:
        rest.pop()
    if multiscale := rest[-1:] == [_MULTISCALE]:
        rest.pop()
    if len(rest) > 1:
        raise SpecError("spec-invalid", f"{rest[-1]!r} in {text!r} is no post-processing: {_FORM}")
    found = sorted(
        (find_layer(row.name, name) for name in layer.split("+")), key=lambda one: one.depth
    )
    if len({one.node for one in found}) < len(found):
        raise SpecError("spec-invalid", f"{text!r} names one layer twice: name each once")
    usual = next((one.pooling for one in found if not one.flat), found[0].pooling)
    name, parameters = _pooling(rest[0] if rest else pooling or usual)
    for one in found:
        _check_fits(one, name, dict(parameters))
        if multiscale:
            _check_scales(row, one, name)
    dim = int(whitening["dim"]) if whitening else None
    joined = "+".join(one.name for one in found)
    return DescriptorSpec(row.name, joined, name, parameters, dim, multiscale)


def find_layer(network: str, name: str) -> geometry.Layer:
    """A layer by name; SpecError (`spec-unknown-layer`) names the closest ones."""
    layers = geometry.layers(network)
    if name not in layers:
        close = difflib.get_close_matches(name, layers, n=3, cutoff=0.4) or list(layers)[:3]
        raise SpecError(
            "spec-unknown-layer",
            f"{network} has no layer {name!r}; the closest are {', '.join(close)} "
            f"(`pool5 networks {network}` lists all)",
        )
    return layers[name]


def layer_of_grid(grid: str) -> geometry.Layer:
    """The layer of an activation, `network/layer`, as `DescriptorSpec.grids` names them."""
    return find_layer(*grid.split("/"))


def _level(row: zoo.Network, layer: str) -> tuple[str, str | None]:
    """The layer and pooling that a level stands for; any other name stands for itself."""
    if layer not in zoo.LEVELS:
        return layer, None
    if not row.levels and layer == "high":
        grids = [name for name, found in geometry.layers(row.name).items() if found.stride]
        return grids[-1], None
    if layer not in row.levels:
        raise SpecError(
            "spec-unknown-layer",
            f"{row.name} has no level {layer!r}: name one of its layers "
            f"(`pool5 networks {row.name}` lists them)",
        )
    name, pooling = row.levels[layer].split("/")
    return name, pooling


def _pooling(text: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    match = _POOLING.fullmatch(text)
    row = POOLINGS.get(match["name"]) if match else None
    if not match or row is None:
        raise SpecError(
            "spec-unknown-pooling", f"there is no pooling {text!r}; there are {', '.join(POOLINGS)}"
        )
    given: dict[str, float] = {}
    for assignment in filter(None, (match["parameters"] or "").split(",")):
        name, _, value = assignment.partition("=")
        low, high = row.ranges.get(name, (1.0, 0.0))
        if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value) or not low <= float(value) <= high:
            allowed = [f"{n} from {low:g} to {high:g}" for n, (low, high) in row.ranges.items()]
            raise SpecError(
                "spec-unknown-pooling",
                f"{assignment!r} is no parameter of {match['name']}; it has "
                f"{', '.join(allowed) or 'none'}",
            )
        given[name] = float(value)
    differing = {n: v for n, v in given.items() if v != row.parameters[n]}
    return match["name"], tuple(sorted(differing.items()))


def _check_fits(layer: geometry.Layer, pooling: str, parameters: Mapping[str, float]) -> None:
    row = POOLINGS[pooling]
    if row.divisor is None:
        return
    parts = int(parameters.get(row.divisor, row.parameters[row.divisor]))
    if layer.channels % parts:
        raise SpecError(
            "spec-pooling-unfit",
            f"{pooling}({row.divisor}={parts}) cannot pool the {layer.channels} channels of "
            f"{layer.name}, which are no multiple of {parts}: name another pooling",
        )


def _check_scales(row: zoo.Network, layer: geometry.Layer, pooling: str) -> None:
    why = None
    if not layer.resizable:
        why = f"{row.name} takes pictures of one size alone"
    elif pooling == "flatten" and not layer.flat:
        why = f"flatten gives {layer.name} fewer dimensions at a smaller scale"
    if why:
        raise SpecError("spec-scales-unfit", f"{why}: leave `{_MULTISCALE}` out")


def fingerprint(
    spec: DescriptorSpec, weights_sha256: str, preprocessing: Preprocessing, whitening: str | None
) -> str:
    """SHA-256 (hex) over everything that a descriptor's numbers depend on.

    Two vectors may meet in an index only where their fingerprints are equal. A layer counts by
    its node, so that two names of one activation are one descriptor.
    """
    nodes = [find_layer(spec.network, name).node for name in spec.layers]
    facts: dict[str, Any] = {
        "version": 1,
        "network": spec.network,
        "node": "+".join(nodes),
        "pooling": [spec.pooling, *spec.parameters],
        "weights": weights_sha256,
        "preprocessing": preprocessing.declaration(),
        "whitening": whitening,
    }
    if recipe := zoo.network(spec.network).recipe:
        facts["recipe"] = recipe
    if spec.multiscale:
        facts["scales"] = spec.scales
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
