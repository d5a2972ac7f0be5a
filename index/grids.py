"""A picture's activation grids as few bytes: 8 bits each, then zlib.

Each channel has a step and a zero point of its own, and 0 stays exactly 0: ReLU made most
activations so, and CroW counts them.
"""

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from index.errors import CollectionError

Grids = Mapping[str, npt.NDArray[np.float32]]
"""By name, C×H×W float32 each."""

MOST_ACTIVATIONS = 2**22
"""Of all grids of a picture: 16 MB in float32, of each of some dozens of pictures on their way in.

VGG-19's low, mid and high are half of it.
"""

LARGEST_BYTES = 6 * MOST_ACTIVATIONS + 2**16
"""Of what `pack` compresses; what claims to be more is refused before it is allocated.

An activation is a byte, a channel another five for its step and its zero point; names are short.
"""

LEVEL = 1
"""Of compression: a higher one takes ten times as long for 3 % less."""


def pack(grids: Grids) -> bytes:
    """Grids, finite throughout, to bytes.

    Raises CollectionError (`grids-too-large`) for more than `MOST_ACTIVATIONS`.
    """
    activations = sum(grid.size for grid in grids.values())
    if activations > MOST_ACTIVATIONS:
        raise CollectionError(
            "grids-too-large",
            f"{activations:,} activations of a picture are more than the {MOST_ACTIVATIONS:,} "
            "that can be kept: keep fewer or deeper layers",
        )
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    for name, grid in grids.items():
        flat = grid.reshape(len(grid), -1)
        low = np.minimum(flat.min(axis=1), 0).astype(np.float32)
        high = np.maximum(flat.max(axis=1), 0).astype(np.float32)
        step = np.maximum((high - low) / 255, np.finfo(np.float32).tiny)
        zero = np.round(-low / step)
        codes = np.clip(np.round(flat / step[:, None]) + zero[:, None], 0, 255)
        # safetensors writes memory as it lies, and grids may come channels last.
        codes = np.ascontiguousarray(codes.astype(np.uint8).reshape(grid.shape))
        tensors[f"{name}:codes"] = codes
        tensors[f"{name}:step"] = step.astype(np.float32)
        tensors[f"{name}:zero"] = zero.astype(np.uint8)
    return zlib.compress(safetensors.numpy.save(tensors), LEVEL)


def unpack(content: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """What `pack` packed, to half a step of each channel: its range / 510.

    Raises CollectionError (`grids-damaged`) for anything else; zlib's checksum tells.
    """
    try:
        unzip = zlib.decompressobj()
        raw = unzip.decompress(content, LARGEST_BYTES)
        if not unzip.eof:
            raise _damaged("it ends early or is too large")
        tensors = safetensors.numpy.load(raw)
        names = [name.removesuffix(":codes") for name in tensors if name.endswith(":codes")]
        return {name: _grid(name, tensors) for name in names}
    except (zlib.error, safetensors.SafetensorError, KeyError) as error:
        raise _damaged(str(error)) from error


def _grid(name: str, tensors: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.float32]:
    codes, step, zero = (tensors[f"{name}:{part}"] for part in ("codes", "step", "zero"))
    kinds = [tensor.dtype.name for tensor in (codes, step, zero)]
    if kinds != ["uint8", "float32", "uint8"] or codes.ndim != 3:
        raise _damaged(f"{name} is no grid")
    if not step.shape == zero.shape == codes.shape[:1] or not np.isfinite(step).all():
        raise _damaged(f"{name} does not fit its steps")
    centred = codes.astype(np.float32) - zero.astype(np.float32)[:, None, None]
    grid: npt.NDArray[np.float32] = centred * step.astype(np.float32)[:, None, None]
    return grid


def _damaged(why: str) -> CollectionError:
    return CollectionError(
        "grids-damaged", f"a kept grid cannot be read ({why}): add the item again"
    )
