"""Colour histograms (Swain & Ballard 1991), one for each cell of a grid."""

from torch import Tensor, nn

from models.handmade.operation import Operation

LEVELS = 8
"""Of each channel: 8³ colours."""

CELL = 16


class Colour(nn.Module):
    """`rgb8`: the share of each of 512 RGB colours in every cell of 16×16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb8 = Shares()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """B×3×H×W float32, RGB in 0…255, to {layer: B×512×⌊H/16⌋×⌊W/16⌋}."""
        return {"rgb8": self.rgb8(x)}


class Shares(Operation):
    """How often each colour occurs in a cell; the shares of a cell add up to 1."""

    def __init__(self) -> None:
        super().__init__(kernel_size=CELL, stride=CELL)

    def forward(self, x: Tensor) -> Tensor:
        """B×3×H×W, RGB in 0…255, to B×512×⌊H/16⌋×⌊W/16⌋.

        >>> import torch
        >>> red = torch.tensor([255.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
        >>> Shares()(red)[0, 7 * 64].item()  # level 7 of red, 0 of green and of blue
        1.0
        """
        pictures, (down, across) = x.shape[0], (length // CELL for length in x.shape[2:])
        counts = x.new_zeros(pictures, down, across, LEVELS**3)
        level = (x[:, :, : down * CELL, : across * CELL] * (LEVELS / 256)).long()
        colour = (level[:, 0] * LEVELS + level[:, 1]) * LEVELS + level[:, 2]
        cells = colour.reshape(pictures, down, CELL, across, CELL).transpose(2, 3).flatten(3)
        # Counts are whole numbers: their sum is exact in whatever order it is made.
        counts.scatter_add_(3, cells, x.new_ones(()).expand(cells.shape))
        return (counts / CELL**2).movedim(3, 1)
