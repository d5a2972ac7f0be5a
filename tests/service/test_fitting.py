"""Batches that fit: what is remembered of memory and time, and a real want of memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.fitting import PATIENCE, Kind, is_out_of_memory

STARVED = """
import json, resource
import numpy as np
import torch
from models import Extractor, Prepared
from service.batcher import Batcher

torch.set_num_threads(1)
extractor = Extractor("alexnet/conv1/spoc", weights="untrained", device="cpu")
rng = np.random.default_rng(0)
pictures = [Prepared((rng.integers(0, 256, (3, 900, 900), np.uint8),)) for _ in range(9)]
expected = [extractor.forward([one])[""][0] for one in pictures]
sizes = []
batcher = Batcher(8, 64, lambda size, seconds: None)
forward = extractor.forward
def counted(batch, grids=()):
    sizes.append(len(batch))
    return forward(batch, grids)
extractor.forward = counted
batcher.submit(extractor, pictures[8], "bulk").result(120)
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + 160 * 2**20  # a batch of 8 takes more
resource.setrlimit(resource.RLIMIT_AS, (most, most))
def round():
    del sizes[:]
    with batcher._changed:  # all are queued before the first pass begins
        futures = [batcher.submit(extractor, one, "bulk") for one in pictures[:8]]
    found = [future.result(120)[""] for future in futures]
    assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(found, expected))
    return list(sizes)
print(json.dumps([round(), round()]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_a_real_want_of_memory_halves_the_batch_and_is_remembered() -> None:
    root = Path(__file__).parents[2]
    # Arenas of threads are address space that nobody uses.
    small = {**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    said = subprocess.check_output([sys.executable, "-c", STARVED], text=True, cwd=root, env=small)
    first, second = json.loads(said.splitlines()[-1])
    assert first[0] == 8
    assert max(first[1:]) < 8
    assert max(second) < 8  # not tried again
    assert sum(second) == 8  # and nothing was computed twice


@pytest.mark.parametrize("size", [2, 3, 7, 16, 1000])
def test_a_size_that_does_not_fit_is_halved_down_to_one(size: int) -> None:
    kind = Kind(size)
    tried = []
    while kind.most > 1:
        tried.append(kind.most)
        kind.did_not_fit(kind.most)
    assert tried == sorted(set(tried), reverse=True)
    kind.did_not_fit(1)
    assert kind.most == 1


def test_it_is_tried_again_with_one_more_ever_more_rarely() -> None:
    kind = Kind(16)
    kind.did_not_fit(16)
    probes, passes = [], 0
    for _ in range(3):
        while kind.most == 8:
            kind.fitted(8, 0.1)
            passes += 1
        probes.append(passes)
        kind.did_not_fit(9)
    assert probes == [PATIENCE, 3 * PATIENCE, 7 * PATIENCE]


def test_memory_that_has_come_back_is_used_again() -> None:
    kind = Kind(16)
    kind.did_not_fit(16)
    for _ in range(8 * PATIENCE):
        kind.fitted(kind.most, 0.1)
    assert kind.most == 16


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] can't allocate memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_a_want_of_memory(error: Exception, short: bool) -> None:
    assert is_out_of_memory(error) is short
