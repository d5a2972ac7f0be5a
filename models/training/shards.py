"""Shards: views and what their teachers say of them, prepared once and read many times.

On a CPU a teacher's forward pass and the making of a view cost as much as a student's step, so
both are paid once for several epochs. A shard is a safetensors file that appears when it is whole:
preparation that was cut off goes on where it stopped.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.training.teacher import Teachers
from models.training.views import Views

SIZE = 1024
"""Views in a shard."""
_CHUNK = 32
_BATCH = 64

Shard = Mapping[str, Tensor]
"""`views` N×3×S×S uint8 RGB, and every target of the teachers, N×D float16."""


def prepare(
    views: Views,
    teachers: Teachers,
    folder: Path,
    count: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `count` shards below `folder` that are not there yet; return the paths of all.

    `progress` is called with (shards that are there, count). Views are made in as many processes
    as there are processors, while the teachers look at those of the shard before.

    Raises PictureError where a picture of `views` cannot be decoded.
    """
    recipe = views.recipe() + "".join(one.sha256 for one in teachers.weights)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05}.safetensors" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not _whole(path, recipe)]
    done = count - len(missing)
    if progress is not None:
        progress(done, count)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        for number, made in _ahead(pool, views, missing):
            _save(paths[number], {"views": made, **_taught(teachers, made)}, recipe)
            done += 1
            if progress is not None:
                progress(done, count)
    return paths


def read(path: Path) -> Shard:
    """What `prepare` wrote, in memory."""
    with safetensors.safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _whole(path: Path, recipe: str) -> bool:
    """Whether a shard is there and of this recipe; one of another recipe is made anew."""
    if not path.exists():
        return False
    with safetensors.safe_open(path, "pt") as file:
        return bool((file.metadata() or {}).get("recipe") == recipe)


def _ahead(
    pool: ProcessPoolExecutor, views: Views, numbers: list[int]
) -> Iterator[tuple[int, Tensor]]:
    """The views of each shard, the next already in the making."""
    waiting: list[tuple[int, list[Future[np.ndarray]]]] = []
    for number in [*numbers, None, None]:
        if number is not None:
            starts = range(number * SIZE, (number + 1) * SIZE, _CHUNK)
            waiting.append((number, [pool.submit(_made, views, start) for start in starts]))
        if len(waiting) > 1 or (number is None and waiting):
            of, futures = waiting.pop(0)
            yield of, torch.from_numpy(np.concatenate([future.result() for future in futures]))


def _made(views: Views, start: int) -> np.ndarray:
    made = np.stack([views.view(n) for n in range(start, start + _CHUNK)])
    return np.ascontiguousarray(made.transpose(0, 3, 1, 2))


def _taught(teachers: Teachers, views: Tensor) -> dict[str, Tensor]:
    parts = [teachers.targets(batch) for batch in torch.split(views, _BATCH)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _save(path: Path, tensors: Mapping[str, Tensor], recipe: str) -> None:
    aside = path.with_suffix(".part")
    save_file(dict(tensors), aside, {"recipe": recipe})
    aside.replace(path)
