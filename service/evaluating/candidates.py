"""The descriptor specs that the advisor compares, by network."""

from dataclasses import replace
from itertools import combinations

from models import DescriptorSpec, geometry, parse, zoo

POOLINGS = ("spoc", "gem", "mac", "crow", "rmac")
DIMS = (64, 128, 256)
"""What a whitening leaves."""
APART = 2
"""How far joined layers may be from one another, counted in layers compared."""


def grids(network: str) -> list[str]:
    """The layers with a grid, in the order of the forward pass.

    They are those that the network's row names, of a ResNet without its single blocks. A network
    whose row names none has the last module of each stride, down to two parts of a name.
    """
    layers = geometry.layers(network)
    row = zoo.network(network)
    named = [name for name in row.layers if "." not in name and not layers[name].flat]
    return named or _stages(network)


def _stages(network: str) -> list[str]:
    last: dict[int, geometry.Layer] = {}
    for layer in geometry.layers(network).values():
        module = layer.name.count(".") < 2
        if module and layer.stride and layer.stride > 1:  # a stride of 1 is the input
            before = last.get(layer.stride)
            # A node comes after its modules' names: the first name of the last node is its module.
            if before is None or layer.node != before.node:
                last[layer.stride] = layer
    names = [last[stride].name for stride in sorted(last)]
    deepest = parse(f"{network}/high").layer
    return names if deepest in names else [*names, deepest]


def flats(network: str) -> list[str]:
    """The fully connected layers that the network's row names; `avgpool` is SPoC and none."""
    layers = geometry.layers(network)
    named = zoo.network(network).layers
    return [name for name in named if layers[name].flat and name != "avgpool"]


def singles(network: str) -> list[DescriptorSpec]:
    """Every layer with every pooling."""
    pooled = [
        DescriptorSpec(network, layer, pooling) for layer in grids(network) for pooling in POOLINGS
    ]
    return pooled + [DescriptorSpec(network, layer, "flatten") for layer in flats(network)]


def joined(network: str) -> list[DescriptorSpec]:
    """Every two layers at most APART, with every pooling."""
    at = list(enumerate(grids(network)))
    return [
        DescriptorSpec(network, f"{a}+{b}", pooling)
        for (i, a), (j, b) in combinations(at, 2)
        if j - i <= APART
        for pooling in POOLINGS
    ]


def dims(full: int, pictures: int) -> list[int]:
    """What `full` dimensions can be whitened to by a fit on so many pictures."""
    return [dim for dim in DIMS if dim < min(full, pictures)]


def whitened(base: DescriptorSpec, dim: int) -> DescriptorSpec:
    """The same, whitened to `dim` dimensions."""
    return replace(base, whiten=dim)
