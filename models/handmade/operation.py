"""What torch.fx takes as one step, because it is computed outside torch or by the picture."""

from torch import nn


class Operation(nn.Module):
    """A module that is traced as one node and never looked into.

    Its `forward` gives an empty result of the right shape on torch's `meta` device. `kernel_size`
    and `stride` are those of a window: they make the receptive field, in pixels of its input.
    """

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
