"""Parameters made from a fixed seed, for where no trained ones can be had.

The numbers depend on the network's and the tensor's name and on the shape alone: not on torch,
its version, or which other tensors are asked for.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from models.errors import WeightsError

SEED = 0
_PIECE = 1 << 20


def recipe_hash(network: str) -> str:
    """What stands for a file's SHA-256 where there is no file: the SHA-256 of the recipe's name.

    >>> recipe_hash("alexnet")[:8]
    '24f9c149'
    """
    return hashlib.sha256(f"pool5 untrained v1: {network}, seed {SEED}".encode()).hexdigest()


def parameters(network: str, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """The tensors of these names and shapes, on the CPU; float32, but for counters.

    Weights of two and more dimensions are normal with standard deviation √(2/fan in) (He et al.
    2015, equation 10: activations keep their magnitude on the way forward); a normalisation starts
    as the identity, and every bias is zero.

    Raises WeightsError (`weights-untrained`) for a tensor that has no such start.
    """
    return {name: _tensor(network, name, shape) for name, shape in shapes.items()}


def _tensor(network: str, name: str, shape: torch.Size) -> torch.Tensor:
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if kind.endswith("bias") or kind == "running_mean":
        return torch.zeros(shape)
    if kind == "running_var" or (kind == "weight" and len(shape) == 1):
        return torch.ones(shape)
    if kind.endswith("weight"):
        return _he_normal(f"{SEED} {network} {name}", shape)
    raise WeightsError(
        "weights-untrained",
        f"{network} has {name}, which has no random start: this network needs its trained "
        f"weights (pool5 weights pull {network})",
    )


def _he_normal(seed: str, shape: torch.Size) -> torch.Tensor:
    """Normal numbers of variance 2/fan in, where the fan in is C·kh·kw of a D×C×kh×kw weight."""
    # The legacy generator: numpy promises that its streams never change.
    words = np.frombuffer(hashlib.sha256(seed.encode()).digest(), dtype="<u4")
    generator = np.random.RandomState(words)
    made = np.empty(shape.numel(), dtype=np.float32)
    scale = (2.0 / shape[1:].numel()) ** 0.5
    # By the piece: the generator's own float64 would take twice the memory of the result.
    for start in range(0, made.size, _PIECE):
        piece = made[start : start + _PIECE]
        piece[:] = generator.standard_normal(piece.size) * scale
    return torch.from_numpy(made).reshape(shape)
