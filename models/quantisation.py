"""A network whose convolutions multiply 8-bit integers, written as fake quantisation.

An activation x becomes s·round(x/s) with s of its own range, a weight the same with one s per
output channel (Jacob et al., Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, CVPR 2018, equation 12, with zero points of 0). torch computes
these numbers in float32, which simulates; OpenVINO runs the same graph on its integer kernels.
"""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from models.errors import WeightsError
from models.folding import module_of

Range = tuple[float, float]
"""The lowest and the highest value that an activation is to hold."""

MOST_WEIGHT = 127
"""The largest step of a weight, ±, and the most that two neighbours of one sign add up to.

Processors without VNNI add two products of 8 bits in 16 before they go on: 255·(127 + 1), the 1
for rounding, still fits, and 255·(127 + 127) saturates in silence.
"""

_WEIGHTED = (nn.Conv2d, nn.Linear)
_SUMS = (operator.add, torch.add)
_PASSING = (nn.MaxPool2d, nn.Dropout, nn.Flatten, nn.Identity)
_PASSING_FUNCTIONS = (F.max_pool2d, torch.max_pool2d, F.dropout, torch.flatten)
"""What gives no other values than it takes: quantised before it is quantised after it as well."""


def steps(held: Range) -> tuple[float, int, int]:
    """(s, lowest, highest step) of an activation: unsigned where nothing is negative.

    >>> steps((0.0, 51.0))
    (0.2, 0, 255)
    >>> steps((-1.0, 25.5))
    (0.2, -128, 127)
    """
    low, high = held
    unsigned = low >= 0
    reach = high / 255 if unsigned else max(-low, high) / 127.5
    return max(reach, _LEAST), 0 if unsigned else -128, 255 if unsigned else 127


_LEAST = torch.finfo(torch.float32).tiny
"""A dead activation or channel has no reach, and nothing is divided by zero."""


def quantisable(cut: fx.GraphModule) -> list[str]:
    """The nodes whose activations go into integer arithmetic: into convolutions, products and sums.

    A sum counts because the other branch of a residual block would be float32 otherwise, and cost
    what the integers save.
    """
    found: dict[str, None] = {}
    for node in cut.graph.nodes:
        if isinstance(module_of(cut, node), _WEIGHTED):
            found[_source(cut, node.args[0]).name] = None
        elif node.op == "call_function" and node.target in _SUMS:
            terms = [term for term in node.args if isinstance(term, fx.Node)]
            found |= {_source(cut, term).name: None for term in terms}
    return list(found)


def quantised(cut: fx.GraphModule, ranges: Mapping[str, Range]) -> fx.GraphModule:
    """`cut`, folded, with its convolutions and products in int8; changes `cut`.

    `ranges` are those of `quantisable` of the whole network, by node: what lies above the cut is
    passed over. An activation that the cut gives out is given before it is quantised.

    Raises WeightsError (`weights-ranges`) where the range of an activation is not known.
    """
    weighted = [n for n in cut.graph.nodes if isinstance(module_of(cut, n), _WEIGHTED)]
    if lacking := [n for n in (_source(cut, w.args[0]).name for w in weighted) if n not in ranges]:
        raise WeightsError(
            "weights-ranges",
            f"the quantised weights have no range for {lacking[0]}: they were made by another "
            "version of torchvision; make them again with `pool5 quantise`",
        )
    for node in weighted:
        _quantise_weight(cut, node)
    for node in [node for node in cut.graph.nodes if node.name in ranges]:
        _quantise_output(cut, node, ranges[node.name])
    cut.graph.lint()
    cut.recompile()
    return cut


def weight_scales(weight: Tensor) -> Tensor:
    """s of each output channel of a D×C or D×C×h×w weight: D.

    The largest value becomes MOST_WEIGHT, and so does the largest sum of two of one sign that
    are multiplied together: input channels 0 and 1, 2 and 3, … at one position of the kernel.

    >>> weight_scales(torch.tensor([[127.0, -90.0, 1.0], [100.0, 27.0, 0.0], [127.0, 127.0, 0.0]]))
    tensor([1., 1., 2.])
    """
    flat = weight.reshape(len(weight), weight.shape[1], -1)
    even = F.pad(flat, (0, 0, 0, flat.shape[1] % 2))
    even = even.reshape(len(flat), -1, 2, flat.shape[2])
    sums = torch.maximum(even.clamp_min(0).sum(2), (-even).clamp_min(0).sum(2))
    return (sums.flatten(1).amax(1) / MOST_WEIGHT).clamp_min(_LEAST)


def _source(cut: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Where the values of a node come from, below poolings and the like."""
    while isinstance(module_of(cut, node), _PASSING) or (
        node.op == "call_function" and node.target in _PASSING_FUNCTIONS
    ):
        node = node.all_input_nodes[0]
    return node


def _quantise_output(cut: fx.GraphModule, node: fx.Node, held: Range) -> None:
    scale, lowest, highest = steps(held)
    with cut.graph.inserting_after(node):
        limited = cut.graph.call_function(
            torch.fake_quantize_per_tensor_affine, (node, scale, 0, lowest, highest)
        )
    node.replace_all_uses_with(
        limited, delete_user_cb=lambda user: user is not limited and user.op != "output"
    )


def _quantise_weight(cut: fx.GraphModule, node: fx.Node) -> None:
    """Call the function in place of the module, so that its weight can be computed before."""
    name = str(node.target)
    module: Any = cut.get_submodule(name)
    scales = weight_scales(module.weight.detach())
    module.register_buffer("weight_scale", scales)
    module.register_buffer("weight_zero", torch.zeros(len(scales), dtype=torch.int32))
    with cut.graph.inserting_before(node):
        weight, scale, zero = (
            cut.graph.get_attr(f"{name}.{one}") for one in ("weight", "weight_scale", "weight_zero")
        )
        rounded = cut.graph.call_function(
            torch.fake_quantize_per_channel_affine,
            (weight, scale, zero, 0, -MOST_WEIGHT, MOST_WEIGHT),
        )
        bias = None if module.bias is None else cut.graph.get_attr(f"{name}.bias")
    node.op, node.args = "call_function", (node.args[0], rounded, bias)
    if isinstance(module, nn.Conv2d):
        node.target = F.conv2d
        node.args += (module.stride, module.padding, module.dilation, module.groups)
    else:
        node.target = F.linear


def _shape_of(x: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


# torch exports only what has a form without numbers, and gives these two operations none.
for _kind in ("tensor", "channel"):
    torch.library.register_fake(
        f"aten::fake_quantize_per_{_kind}_affine_cachemask", _shape_of, allow_override=True
    )
