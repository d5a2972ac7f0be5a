"""The networks: a row of a table each, naming its layers, its levels and the weights it pins.

Layers are named as the literature names them and stand for the activation *after* the
non-linearity; torchvision's own node names are accepted beside them. Any torchvision
classification network without a row of its own gets one in which the two coincide. A row may also
name a module of ours, which then stands in torchvision's place.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import fx, nn
from torchvision import models as torchvision_models
from torchvision.models.feature_extraction import create_feature_extractor

from models import handmade
from models.errors import SpecError
from models.preprocess import IMAGENET, PIXELS, Preprocessing

LEVELS = ("low", "mid", "high")
EMBEDDED = "embedded"
"""The weights that come with pool5 itself."""

NONE = "none"
"""The weights of a network that has no parameters."""


@dataclass(frozen=True)
class Network:
    """One architecture.

    `layers` maps the literature's names to torchvision's nodes, in the order of the forward
    pass. `levels` maps low, mid and high to a `layer/pooling`. `weights` is the pinned member of
    torchvision's weights enum, lower-case. `builder` holds arguments for torchvision's constructor.

    `module` makes what torchvision has not; `recipe` names what its numbers are computed by and
    changes whenever they do, and `preprocessing` is its own. `poolings` names, by layer, the one
    that a spec means where it names none. `smallest` is the shorter side, in pixels, of the
    smallest picture that it takes.
    """

    name: str
    layers: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=dict)
    weights: str = "imagenet1k_v1"
    builder: Mapping[str, Any] = field(default_factory=dict)
    module: Callable[[], nn.Module] | None = None
    recipe: str | None = None
    preprocessing: Preprocessing = IMAGENET
    poolings: Mapping[str, str] = field(default_factory=dict)
    smallest: int = 32


def _vgg(*convolutions: int) -> dict[str, str]:
    """Name a VGG's convolutions (by their ReLU) and pools, stage by stage."""
    names, node = {}, 0
    for stage, count in enumerate(convolutions, start=1):
        for n in range(1, count + 1):
            names[f"conv{stage}_{n}"] = f"features.{node + 1}"
            node += 2
        names[f"pool{stage}"] = f"features.{node}"
        node += 1
    return names


_ALEXNET_CLASSIFIER = {"fc6": "classifier.2", "fc7": "classifier.5"}
_VGG_CLASSIFIER = {"fc6": "classifier.1", "fc7": "classifier.4"}


def _resnet(*blocks: int) -> dict[str, str]:
    """Name a ResNet's stem, stages and blocks; a block's output is its last ReLU."""
    names = {"conv1": "relu", "pool1": "maxpool"}
    for stage, count in enumerate(blocks, start=1):
        names |= {f"layer{stage}.{n}": f"layer{stage}.{n}.relu_2" for n in range(count)}
        names[f"layer{stage}"] = f"layer{stage}.{count - 1}.relu_2"
    return names | {"avgpool": "flatten"}


_RESNET_LEVELS = {"low": "layer1/spoc", "mid": "layer3/gem", "high": "layer4/gem"}

NETWORKS: Mapping[str, Network] = {
    row.name: row
    for row in (
        Network(
            "alexnet",
            layers={
                "conv1": "features.1",
                "pool1": "features.2",
                "conv2": "features.4",
                "pool2": "features.5",
                "conv3": "features.7",
                "conv4": "features.9",
                "conv5": "features.11",
                "pool5": "features.12",
                **_ALEXNET_CLASSIFIER,
            },
            levels={"low": "conv2/spoc", "mid": "conv3/gem", "high": "conv5/gem"},
            smallest=63,
        ),
        Network(
            "vgg19",
            layers=_vgg(2, 2, 4, 4, 4) | _VGG_CLASSIFIER,
            levels={"low": "conv2_2/spoc", "mid": "conv4_4/gem", "high": "conv5_4/gem"},
        ),
        Network(
            "vgg16",
            layers=_vgg(2, 2, 3, 3, 3) | _VGG_CLASSIFIER,
            levels={"low": "conv2_2/spoc", "mid": "conv4_3/gem", "high": "conv5_3/gem"},
        ),
        Network("resnet50", layers=_resnet(3, 4, 6, 3), levels=_RESNET_LEVELS),
        Network("resnet101", layers=_resnet(3, 4, 23, 3), levels=_RESNET_LEVELS),
        Network("resnet152", layers=_resnet(3, 8, 36, 3), levels=_RESNET_LEVELS),
        Network(
            "squeezenet1_1",
            layers={"conv1": "features.1", "pool1": "features.2"}
            | {
                f"fire{n}": f"features.{node}.cat"
                for n, node in enumerate((3, 4, 6, 7, 9, 10, 11, 12), start=2)
            },
            levels={"low": "fire3/spoc", "mid": "fire5/gem", "high": "fire9/gem"},
        ),
        Network(
            "mobilenet_v2",
            levels={"low": "features.3/spoc", "mid": "features.13/gem", "high": "features.18/spoc"},
        ),
        Network("googlenet", builder={"init_weights": False, "aux_logits": False}),
        Network("inception_v3", builder={"init_weights": False, "aux_logits": False}, smallest=75),
        Network(
            "sift",
            module=handmade.Sift,
            layers={"vlad64": "vlad64", "bow1024": "bow1024"},
            levels={"high": "vlad64/vlad"},
            poolings={"vlad64": "vlad", "bow1024": "hellinger"},
            weights=EMBEDDED,
            preprocessing=replace(PIXELS, resize=320, crop=320),
            recipe="RootSIFT 1",
        ),
        Network(
            "colour",
            module=handmade.Colour,
            layers={"rgb8": "rgb8"},
            levels={"low": "rgb8/hellinger"},
            poolings={"rgb8": "hellinger"},
            weights=NONE,
            preprocessing=PIXELS,
            recipe="histogram 1",
        ),
    )
}


@cache
def names() -> tuple[str, ...]:
    """Every network there is, sorted: torchvision's classification networks and our own."""
    own = (row.name for row in NETWORKS.values() if row.module)
    return tuple(sorted({*torchvision_models.list_models(module=torchvision_models), *own}))


def network(name: str) -> Network:
    """The row of a network.

    Raises SpecError (`spec-unknown-network`) where there is none of that name.
    """
    if name not in names():
        known = ", ".join(NETWORKS)
        raise SpecError(
            "spec-unknown-network",
            f"there is no network {name!r}; there are {known} and {len(names())} in all: "
            "`pool5 networks` lists them",
        )
    return NETWORKS.get(name, Network(name))


def build(row: Network) -> nn.Module:
    """The network in evaluation mode on torch's `meta` device: its shape without its parameters."""
    try:
        with torch.device("meta"):
            built = _construct(row)
    except NotImplementedError:  # RegNets compute their widths with tensors.
        built = _construct(row).to("meta")
    return built.eval()


def _construct(row: Network) -> nn.Module:
    if row.module:
        return row.module()
    built: nn.Module = torchvision_models.get_model(row.name, weights=None, **row.builder)
    return built


def tracing() -> dict[str, Any]:
    """How to trace a network; anew at each call, since torchvision adds its own to it."""
    return {"leaf_modules": handmade.Operation.__subclasses__()}


def cut(model: nn.Module, nodes: Iterable[str]) -> fx.GraphModule:
    """The network up to the deepest of `nodes`; called, it gives {node: activation}."""
    extractor: fx.GraphModule = create_feature_extractor(
        model, {node: node for node in nodes}, tracer_kwargs=tracing(), suppress_diff_warning=True
    )
    return extractor


def enum_weights(row: Network) -> Mapping[str, Any]:
    """torchvision's weights for a network by lower-case name, such as `imagenet1k_v1`."""
    if row.module:
        return {}
    members = torchvision_models.get_model_weights(row.name).__members__
    return {name.lower(): member for name, member in members.items()}


def native_preprocessing(row: Network, weights: str | None = None) -> Preprocessing:
    """What is declared for `weights` (by default the pinned ones) of this network."""
    members = enum_weights(row)
    member = members.get(weights or row.weights) or next(iter(members.values()), None)
    if member is None:
        return row.preprocessing
    preset = member.transforms()
    return Preprocessing(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
