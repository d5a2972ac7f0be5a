"""Some tensors out of a checkpoint file, without making the rest of it resident."""

import pickletools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from typing import Any

import safetensors
import torch

from models.errors import WeightsError

SUFFIXES = (".safetensors", ".pth")

_PREFIX = "module."  # put before every name by DataParallel


def read(stream: BufferedReader, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """The tensors of these names from an open `.safetensors` or `.pth` file, on the CPU.

    Floating-point tensors become float32 whatever they are stored as; counters stay integers, and
    a missing `num_batches_tracked` is zero. A state dict may be wrapped as `{"state_dict": …}` and
    its names may begin with `module.`. Only the asked tensors are read, from zip files, from
    torch's older format and from safetensors alike. Pickles are read with `weights_only`: they
    can run nothing.

    Raises WeightsError: `weights-unreadable` (no checkpoint, truncated, or not of tensors alone),
    `weights-keys-missing`, `weights-shape`, `weights-not-finite`.
    """
    with _refusing(stream.name):
        found = _reader(stream)(stream, frozenset(shapes))
        _check(stream.name, found, shapes)
        # Each is let go as it is copied, so that there are never two of all.
        return {name: _own(stream.name, name, found.pop(name, None)) for name in shapes}


def header(stream: BufferedReader) -> dict[str, str]:
    """What an open `.safetensors` file says beside its tensors; of other files nothing is known.

    Raises WeightsError: `weights-unreadable`.
    """
    with _refusing(stream.name):
        if _reader(stream) is not _read_safetensors:
            return {}
        with safetensors.safe_open(_reopened(stream), framework="pt", device="cpu") as handle:
            return dict(handle.metadata() or {})


Tensors = dict[str, torch.Tensor]


def _reader(stream: BufferedReader) -> Callable[[BufferedReader, frozenset[str]], Tensors]:
    """The reader for a file, by its first bytes."""
    stream.seek(0)
    head = stream.read(9)
    if head.startswith(b"PK\x03\x04"):
        return _read_zip
    return _read_safetensors if head.endswith(b"{") else _read_legacy


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Whatever a damaged or hostile file provokes becomes one error."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as why:
        reason = (str(why) or type(why).__name__).splitlines()[0][:200]
        raise WeightsError(
            "weights-unreadable",
            f"{name} is damaged or is not a checkpoint of tensors alone: {reason}; "
            "get the file again, or save its state dict as safetensors",
        ) from why


def _reopened(stream: BufferedReader) -> str:
    """A path to the very file that is open, even where another has taken its name since."""
    return f"/dev/fd/{stream.fileno()}"


def _read_safetensors(stream: BufferedReader, names: frozenset[str]) -> Tensors:
    with safetensors.safe_open(_reopened(stream), framework="pt", device="cpu") as handle:
        return {
            name: handle.get_tensor(key)
            for key in handle.keys()  # noqa: SIM118 - a safetensors handle is not a mapping
            if (name := key.removeprefix(_PREFIX)) in names
        }


def _read_zip(stream: BufferedReader, names: frozenset[str]) -> Tensors:
    loaded = torch.load(_reopened(stream), map_location="cpu", weights_only=True, mmap=True)
    return _asked(loaded, names)


def _asked(loaded: Any, names: frozenset[str]) -> Tensors:
    """The asked tensors of what a pickle held."""
    state = loaded.get("state_dict", loaded)
    asked = {
        name: value
        for key, value in state.items()
        if (name := str(key).removeprefix(_PREFIX)) in names
    }
    for name, value in asked.items():
        if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
            raise TypeError(f"{name} is no dense tensor")
    return asked


def _read_legacy(stream: BufferedReader, names: frozenset[str]) -> Tensors:
    """torch's format before 1.6, in which the official VGG-19 file still is.

    Five pickles (magic number, version, system, the object, the keys of its storages) come before
    the storages, each as its count of elements and their bytes. torch would read all of them;
    here it makes the object over storages that are never touched, and the asked ones are filled.
    """
    storages: list[torch.UntypedStorage] = []

    def note(storage: Any, _location: str) -> Any:
        storages.append(storage)
        return storage

    stream.seek(0)
    with torch.serialization.skip_data():
        tensors = _asked(torch.load(stream, map_location=note, weights_only=True), names)
    wanted = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    for position in _file_order(stream, len(storages)):
        storage = storages[position]
        stored = int.from_bytes(stream.read(8), "little")
        if storage.nbytes() % max(stored, 1):
            raise ValueError("the size of a storage is not the one that was declared")
        if storage.data_ptr() not in wanted:
            stream.seek(storage.nbytes(), 1)
        elif stream.readinto(_bytes_of(storage)) != storage.nbytes():
            raise EOFError("the file ends within a tensor")
        wanted.discard(storage.data_ptr())
    if wanted:
        raise ValueError("a tensor has no storage of its own in the file")
    return tensors


def _file_order(stream: BufferedReader, count: int) -> list[int]:
    """For each storage as it stands in the file, the place at which the object first names it.

    Reads the pickles' opcodes and runs none; leaves the stream where the storages begin.
    """
    stream.seek(0)
    *_, thing, keys = ([arg for _, arg, _ in pickletools.genops(stream)] for _ in range(5))
    stored = [key for key in keys if isinstance(key, str)]
    known = set(stored)
    named = {key: n for n, key in enumerate(dict.fromkeys(a for a in thing if a in known))}
    if not len(stored) == len(named) == count:
        raise ValueError("the storages of the file are not those of its tensors")
    return [named[key] for key in stored]


def _bytes_of(storage: torch.UntypedStorage) -> memoryview:
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data


def _check(file: str, found: Tensors, shapes: Mapping[str, torch.Size]) -> None:
    missing = [name for name in shapes if name not in found and not _is_counter(name)]
    if missing:
        raise WeightsError(
            "weights-keys-missing",
            f"{file} lacks {_first(missing)}: it is not of this network, or its tensors are not "
            "named as torchvision names them",
        )
    wrong = [
        f"{name} of {list(tensor.shape)} (should be {list(shapes[name])})"
        for name, tensor in found.items()
        if tensor.shape != shapes[name]
    ]
    if wrong:
        raise WeightsError("weights-shape", f"{file} has {_first(wrong)}: it is of another network")


def _first(many: list[str]) -> str:
    return ", ".join(many[:3]) + (f" and {len(many) - 3} more" if len(many) > 3 else "")


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _own(file: str, name: str, tensor: torch.Tensor | None) -> torch.Tensor:
    """A copy in our own memory, in float32 if it is of floating point."""
    if tensor is None:
        return torch.zeros((), dtype=torch.int64)
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    copy = tensor.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
    # The extremes tell as much as a mask of all numbers, which would take their memory again.
    if not bool(torch.isfinite(torch.stack(copy.aminmax())).all()):
        raise WeightsError("weights-not-finite", f"{file} has infinite or NaN numbers in {name}")
    return copy
