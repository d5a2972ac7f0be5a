"""What a layer is, without its weights: channels, stride, receptive field, by tracing on `meta`.

Receptive fields follow Araujo, Norris & Sim, "Computing Receptive Fields of Convolutional Neural
Networks" (Distill 2019): r ← r + (k - 1)·dilation·jump, jump ← jump·stride along the graph, the
largest over the branches.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from math import ceil, inf
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import get_graph_node_names

from models import handmade, zoo
from models.artefacts import Artefacts, default_folder, key_of

_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, handmade.Operation)
_WINDOWED_FUNCTIONS = (F.max_pool2d, F.avg_pool2d, torch.max_pool2d)
_GLOBAL = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.MultiheadAttention)
_GLOBAL_FUNCTIONS = (
    F.adaptive_avg_pool2d,
    F.scaled_dot_product_attention,
    torch.flatten,
    torch.matmul,
    torch.mean,
)


@dataclass(frozen=True)
class Layer:
    """One named activation.

    `channel_axis` is 1 for B×C×H×W, 3 for B×H×W×C, 2 for tokens B×N×C; `flat` activations are
    B×C. `depth` counts the nodes before it in the forward pass. `height` and `width` are those of
    the grid at the network's own input size. `stride` and `receptive_field` are in input pixels. A
    `receptive_field` of None is the whole picture; a `stride` of None means that there is no grid.
    """

    name: str
    node: str
    channels: int
    height: int
    width: int
    channel_axis: int
    stride: int | None
    receptive_field: int | None
    level: str | None
    depth: int
    pooling: str
    """The one that a spec means where it names none."""
    resizable: bool = True
    """Whether the network takes other input sizes than its own."""

    @property
    def flat(self) -> bool:
        """Whether there is no grid left to pool over, as in `fc7`."""
        return self.height == self.width == 1

    def activations(self, height: int, width: int) -> int:
        """About how many there are of a picture of so many pixels; the layer has a grid.

        >>> layers("vgg19")["conv2_2"].activations(224, 224)  # 128×112×112
        1605632
        """
        stride = self.stride or 1
        return self.channels * ceil(height / stride) * ceil(width / stride)


@cache
def layers(network: str) -> Mapping[str, Layer]:
    """Every layer of a network by name: the literature's names, torchvision's nodes, its modules.

    A module such as `features.3` stands for its last node, its output. Where a name means both,
    as `conv1` of ResNets, it is the literature's: the activation after the non-linearity.

    Traces the network once (0.1 s for AlexNet, 2 s for ResNet-152); the answer is kept on disk.
    """
    row = zoo.network(network)
    kept = Artefacts(default_folder())
    key = key_of({"row": repr(row), "code": _code(), "torchvision": torchvision.__version__})
    if found := kept.find(key):
        return {one["name"]: Layer(**one) for one in json.loads(bytes(found.blob))}
    traced = _traced(row)
    told = json.dumps([asdict(layer) for layer in traced.values()])
    kept.keep(key, told.encode(), {"network": network})
    return traced


@cache
def _code() -> str:
    """What the answers are computed by: this file, and what a row may name of ours."""
    files = [Path(__file__), Path(zoo.__file__), *Path(handmade.__file__).parent.glob("*.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


def _traced(row: zoo.Network) -> dict[str, Layer]:
    model = zoo.build(row)
    nodes = get_graph_node_names(model, zoo.tracing(), suppress_diff_warning=True)[1]
    traced = zoo.cut(model, nodes)
    size = zoo.native_preprocessing(row).crop
    shapes = _shapes(traced, size, size)
    larger = _larger(traced, size)
    channel_axes = _channel_axes(shapes, larger)
    fields = dict(_receptive_fields(traced, shapes))
    levels = {layer.split("/")[0]: level for level, layer in row.levels.items()}
    depths = {node: depth for depth, node in enumerate(shapes)}
    found = {}
    for name, node in {**row.layers, **_modules(shapes, row.layers)}.items():
        shape = shapes[node]
        axis = channel_axes[node]
        grid = [length for at, length in enumerate(shape) if at not in (0, axis)] or [1]
        height, width = (grid[0], grid[1] if len(grid) > 1 else 1)
        field, jump = fields.get(node, (inf, 1))
        found[name] = Layer(
            name=name,
            node=node,
            channels=shape[axis],
            height=height,
            width=width,
            channel_axis=axis,
            stride=jump if len(shape) == 4 and height * width > 1 else None,
            receptive_field=None if field == inf else int(field),
            level=levels.get(name),
            depth=depths[node],
            pooling=row.poolings.get(name) or ("gem" if height * width > 1 else "flatten"),
            resizable=larger is not None,
        )
    return found


def _modules(nodes: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """Every node, and every module by its last node, unless the name is taken."""
    last: dict[str, str] = {}
    for node in nodes:
        parts = node.split(".")
        last |= {".".join(parts[:depth]): node for depth in range(1, len(parts) + 1)}
    return {name: node for name, node in last.items() if name not in taken}


def _shapes(traced: fx.GraphModule, height: int, width: int) -> dict[str, torch.Size]:
    """The shape of every node that is an activation: B×C, B×N×C or four-dimensional."""
    with torch.no_grad():
        outputs = traced.forward(torch.empty(2, 3, height, width, device="meta"))
    return {
        node: value.shape
        for node, value in outputs.items()
        if isinstance(value, Tensor) and value.ndim in (2, 3, 4) and value.shape[0] == 2
    }


def _larger(traced: fx.GraphModule, size: int) -> dict[str, torch.Size] | None:
    """The shapes at a larger input size; None: a transformer with fixed positions takes one."""
    try:
        return _shapes(traced, size + 64, size + 128)
    except (AssertionError, RuntimeError, ValueError):
        return None


def _channel_axes(
    shapes: Mapping[str, torch.Size], larger: Mapping[str, torch.Size] | None
) -> dict[str, int]:
    """Which axis holds the channels: the one that another input size leaves alone."""
    by_rank = {2: 1, 3: 2, 4: 1}
    axes = {node: by_rank[len(shape)] for node, shape in shapes.items()}
    if larger is None:
        return axes  # Tokens are B×N×C.
    for node, shape in shapes.items():
        if len(shape) == 4 and shape[1] != larger[node][1] and shape[3] == larger[node][3]:
            axes[node] = 3
    return axes


Field = tuple[float, int]
"""Receptive field (infinite: the whole picture) and jump, in input pixels."""


def _receptive_fields(
    traced: fx.GraphModule, shapes: Mapping[str, torch.Size]
) -> Iterator[tuple[str, Field]]:
    fields: dict[fx.Node, Field] = {}
    names: dict[fx.Node, str] = {}
    output = next(node for node in traced.graph.nodes if node.op == "output")
    for name, node in output.args[0].items():
        names.setdefault(node, name)
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            fields[node] = (1, 1)
        elif node.op in ("call_module", "call_function", "call_method"):
            spatial = len(shapes.get(names.get(node, ""), ())) > 2
            fields[node] = _field(node, traced, fields, spatial)
        else:
            continue
        if node in names:
            yield names[node], fields[node]


def _field(
    node: fx.Node, traced: fx.GraphModule, fields: Mapping[fx.Node, Field], spatial: bool
) -> Field:
    inputs = [fields[source] for source in node.all_input_nodes if source in fields]
    if not inputs:
        return inf, 1
    field, jump = max(f for f, _ in inputs), max(j for _, j in inputs)
    operation: Any = node.target
    if node.op == "call_module":
        # torchvision's own blocks (Conv2dNormActivation, SqueezeExcitation) are traced as one node.
        for module in traced.get_submodule(str(node.target)).modules():
            if isinstance(module, _GLOBAL) or (isinstance(module, nn.Linear) and not spatial):
                return inf, jump
            if isinstance(module, _WINDOWED):
                dilation = getattr(module, "dilation", 1)
                field, jump = _grow(field, jump, module.kernel_size, module.stride, dilation)
    elif operation in _GLOBAL_FUNCTIONS or operation in ("flatten", "mean", "matmul"):
        return inf, jump
    elif operation in _WINDOWED_FUNCTIONS:
        kernel = node.args[1] if len(node.args) > 1 else node.kwargs["kernel_size"]
        stride = node.args[2] if len(node.args) > 2 else node.kwargs.get("stride")
        return _grow(field, jump, kernel, stride or kernel, 1)
    return field, jump


def _grow(field: float, jump: int, kernel: Any, stride: Any, dilation: Any) -> Field:
    k, s, d = (max(v) if isinstance(v, tuple) else int(v) for v in (kernel, stride, dilation))
    return field + (k - 1) * d * jump, jump * s
