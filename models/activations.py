"""A network cut off above the deepest layer asked for, giving several layers in one forward pass.

The network is built on torch's `meta` device, cut, and only then given the parameters that are
left: what lies above a layer is never loaded, kept or run.
"""

import operator
from collections.abc import Iterable

from torch import Tensor, fx

from models import spec, zoo
from models.folding import folded
from models.quantisation import quantised
from models.weights import Weights, load_parameters

_IN_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


def truncate(network: str, layers: Iterable[str]) -> fx.GraphModule:
    """The network up to the deepest of `layers`, on `meta`; called, it gives {node: activation}."""
    nodes = {name: spec.find_layer(network, name).node for name in layers}
    model = zoo.build(zoo.network(network))
    # Several names may stand for one node, which is cut out once.
    cut = zoo.cut(model, dict.fromkeys(nodes.values()))
    _out_of_place(cut)
    return fx.GraphModule(cut, cut.graph).eval()


def _out_of_place(cut: fx.GraphModule) -> None:
    """Let no operation overwrite an activation that was produced before it.

    torchvision's ReLUs and residual additions work in place: the output of a convolution would
    turn into its rectified version before we read it.
    """
    for module in cut.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    for node in cut.graph.nodes:
        if node.op == "call_function":
            node.target = _IN_PLACE.get(node.target, node.target)
            if node.kwargs.get("inplace"):
                node.kwargs = {**node.kwargs, "inplace": False}


def loaded(weights: Weights, layers: Iterable[str]) -> fx.GraphModule:
    """`truncate` with its parameters, on the CPU, frozen; in int8 where the weights are quantised.

    Raises SpecError and WeightsError.
    """
    cut = truncate(weights.network, layers)
    shapes = {name: value.shape for name, value in cut.state_dict().items()}
    cut.load_state_dict(load_parameters(weights, shapes), strict=True, assign=True)
    cut.requires_grad_(False)
    return quantised(folded(cut), weights.quantised.ranges) if weights.quantised else cut


def channels_first(x: Tensor, channel_axis: int) -> Tensor:
    """Any activation as B×C×H×W; without a grid it is B×C×1×1, tokens are B×C×N×1."""
    if x.ndim == 2:
        return x[:, :, None, None]
    if x.ndim == 3:
        return x.transpose(1, 2).unsqueeze(3)
    return x.movedim(channel_axis, 1)
