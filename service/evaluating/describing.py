"""Many pictures to descriptors in memory, one forward pass each; a bad picture fails alone."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from index.descriptors import norm_of
from index.evaluation import Box
from index.evaluation.groundtruth import Mask
from models import Descriptors, Extractor, Prepared, decode
from service.batcher import Batcher, Vectors
from service.problems import problem_of
from service.stages import Limit, Stages

AHEAD_BATCHES = 4
"""How many batches are decoded ahead: this bounds the memory besides the descriptors."""


@dataclass(frozen=True)
class Picture:
    """A picture by name, how to get its bytes (any thread, any number of times), and a region."""

    name: str
    read: Callable[[], bytes]
    region: Box | None = None


@dataclass(frozen=True)
class Failure:
    """A picture without a descriptor in every space, with a stable code and the reason."""

    name: str
    code: str
    detail: str


@dataclass(frozen=True, eq=False)
class Described:
    """Descriptors by space, (n, dim) float32 for n pictures.

    `kept` (n,) is false for those that failed; their rows are zero.
    """

    vectors: dict[str, Descriptors]
    kept: Mask
    failed: list[Failure]


Progress = Callable[[int, int, int, Limit | None], None]
"""Told how many pictures are done, of how many, how many failed, and which stage limits."""


def describe_all(
    extractor: Extractor,
    pictures: Sequence[Picture],
    *,
    threads: int = 1,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Described:
    """Describe n pictures in every space of an extractor, in one pass through each network.

    Pictures are decoded by `threads` threads while the network works. Asked of many specs at once,
    this is all that a comparison of layers and poolings has to compute.
    """
    described = Described(
        {name: np.zeros((len(pictures), space.dim), np.float32)
         for name, space in extractor.spaces.items()},
        np.zeros(len(pictures), dtype=np.bool_),
        [],
    )  # fmt: skip
    decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    stages = Stages({"read": threads, "decode": threads, "forward": 1})
    batcher = Batcher(batch_size, 2 * batch_size, lambda _size, _seconds: None, stages=stages)
    began = stages.mark()
    ahead: deque[tuple[int, Future[Future[Vectors]]]] = deque()

    def queue(picture: Picture) -> Future[Vectors]:
        with stages.working("read"):
            content = picture.read()
        with stages.working("decode"):
            prepared = _prepared(extractor, content, picture.region)
        return batcher.submit(extractor, prepared, "bulk")

    def settle(index: int, reading: Future[Future[Vectors]]) -> None:
        _settle(described, pictures[index], index, reading)
        if progress:
            limit = stages.between(began, stages.mark())
            progress(index + 1, len(pictures), len(described.failed), limit)

    try:
        for index, picture in enumerate(pictures):
            ahead.append((index, decoders.submit(queue, picture)))
            if len(ahead) >= AHEAD_BATCHES * batch_size:
                settle(*ahead.popleft())
        while ahead:
            settle(*ahead.popleft())
    finally:
        decoders.shutdown(wait=False, cancel_futures=True)
        batcher.close()
        decoders.shutdown(wait=True)
    return described


def _prepared(extractor: Extractor, content: bytes, box: Box | None) -> Prepared:
    # A region in pixels is of the full picture, which is decoded at its scale then.
    min_side = extractor.min_side if box is None else None
    decoded = decode(content, extractor.limits, min_side)
    region = box.shares(decoded.width, decoded.height) if box else None
    return extractor.prepare(decoded.image, region)


def _settle(
    described: Described, picture: Picture, index: int, reading: Future[Future[Vectors]]
) -> None:
    try:
        vectors = reading.result().result()
        for space, vector in vectors.items():
            norm_of(f"space {space!r}", vector)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it fails alone
        problem = problem_of(error)
        described.failed.append(Failure(picture.name, problem["code"], problem["detail"]))
    else:
        for space, vector in vectors.items():
            described.vectors[space][index] = vector
        described.kept[index] = True
