"""Batch normalisation folded into the convolution before it: the same numbers by fewer passes."""

from collections import Counter

from torch import fx, nn
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.ops.misc import Conv2dNormActivation


def folded(cut: fx.GraphModule) -> fx.GraphModule:
    """`cut` with every normalisation that follows a convolution folded into it; changes `cut`.

    The folded convolution takes the node, and so the name, of the normalisation, whose numbers it
    gives. A convolution that something else sees as well stays as it is.
    """
    _open(cut)
    calls = Counter(node.target for node in cut.graph.nodes if node.op == "call_module")
    for node in cut.graph.nodes:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        normalisation, convolution = module_of(cut, node), module_of(cut, before)
        if not isinstance(normalisation, nn.BatchNorm2d) or not isinstance(convolution, nn.Conv2d):
            continue
        if calls[node.target] > 1 or calls[before.target] > 1:
            continue
        cut.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, normalisation))
        node.target, node.args = before.target, before.args
        cut.graph.erase_node(before)
    cut.delete_all_unused_submodules()
    cut.recompile()
    return cut


def _open(cut: fx.GraphModule) -> None:
    """Let the graph call what torchvision's blocks of convolution and normalisation hold.

    They are cut out as one node each, which the last of its modules takes.
    """
    for node in cut.graph.nodes:
        block = module_of(cut, node)
        if block is None or type(block) is not Conv2dNormActivation:
            continue
        *names, last = (f"{node.target}.{name}" for name, _ in block.named_children())
        for name in names:
            with cut.graph.inserting_before(node):
                node.args = (cut.graph.call_module(name, node.args),)
        node.target = last


def module_of(cut: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls, if it calls one."""
    return cut.get_submodule(str(node.target)) if node.op == "call_module" else None
