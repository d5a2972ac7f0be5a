"""Decoding in processes: the same pixels; a process that is lost costs one picture."""

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import Limits, PictureError, Preparation, prepare_picture
from models.errors import ModelsError
from models.preprocess import CAFFE, IMAGENET
from service.clock import Clock
from service.decoding import process, wire
from service.decoding.pool import Decoders
from service.problems import Problem
from tests.pictures import encoded

WANTED = Preparation((IMAGENET,), 512, thumbnail=True)
BIG = (6000, 6000)
"""Pixels that take a second or so to decode from PNG: time to do something to the process."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    opened = Decoders(2, Limits(), timeout_s=30)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def big() -> bytes:
    png = io.BytesIO()
    Image.new("RGB", BIG, "teal").save(png, "PNG", compress_level=1)
    return png.getvalue()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def at_work(decoders: Decoders, seconds: float = 20) -> int:
    """The query process that holds the pixels of a big picture."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for pid in decoders.processes()["query"]:
            try:
                status = Path(f"/proc/{pid}/statm").read_text().split()
            except OSError:
                continue
            if int(status[1]) * os.sysconf("SC_PAGE_SIZE") > 100 * 2**20:
                return pid
        time.sleep(0.005)
    raise AssertionError("no process is at work")


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except (Problem, ModelsError) as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


@pytest.mark.parametrize(
    "wanted",
    [
        WANTED,
        Preparation((IMAGENET, CAFFE), 512, region=(0.1, 0.2, 0.7, 0.9)),
        Preparation((IMAGENET,), 320, whole=320),
    ],
    ids=["thumbnail", "region of two", "whole"],
)
def test_a_process_gives_what_the_function_gives(decoders: Decoders, wanted: Preparation) -> None:
    content = encoded(3, "JPEG", (1600, 1200))
    here = prepare_picture(content, Limits(), wanted)
    there = decoders.prepare(content, wanted, "query")
    assert (there.width, there.height, there.cut) == (here.width, here.height, here.cut)
    assert there.thumbnail == here.thumbnail
    for expected, pixels in zip(here.prepared.pixels, there.prepared.pixels, strict=True):
        np.testing.assert_array_equal(pixels, expected)


def test_a_bad_picture_keeps_its_code_and_its_process(decoders: Decoders) -> None:
    decoders.prepare(encoded(1), WANTED, "query")
    before = decoders.processes()
    with pytest.raises(PictureError, match="none of the formats") as refused:
        decoders.prepare(b"nothing that is a picture", WANTED, "query")
    assert refused.value.code == "picture-format-unknown"
    assert decoders.processes() == before


@pytest.mark.parametrize("ended_by", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_costs_one_picture(
    decoders: Decoders, big: bytes, ended_by: signal.Signals
) -> None:
    crashing, outcome = in_thread(lambda: decoders.prepare(big, WANTED, "query"))
    pid = at_work(decoders)
    os.kill(pid, ended_by)
    assert decoders.prepare(encoded(2), WANTED, "query").width == 160  # the others' answers come
    crashing.join(30)
    (problem,) = outcome
    assert isinstance(problem, Problem)
    assert problem.code == "decoder-lost"
    assert ended_by.name in str(problem)
    assert decoders.prepare(encoded(4), WANTED, "query").width == 160
    assert pid not in decoders.processes()["query"]
    assert not is_running(pid)


def test_a_hang_costs_one_picture_and_ends_at_its_deadline(big: bytes) -> None:
    hasty = Decoders(1, Limits(), timeout_s=3.0)
    try:
        hasty.prepare(encoded(1), WANTED, "query")
        hanging, outcome = in_thread(lambda: hasty.prepare(big, WANTED, "query"))
        pid = at_work(hasty)
        os.kill(pid, signal.SIGSTOP)
        hanging.join(10)
        assert [error.code for error in outcome if isinstance(error, Problem)] == ["decode-timeout"]
        assert not is_running(pid)
        assert hasty.prepare(encoded(2), WANTED, "query").width == 160
    finally:
        hasty.close()


def test_the_end_of_a_request_ends_its_decoding(decoders: Decoders, big: bytes) -> None:
    decoders.prepare(encoded(1), WANTED, "query")
    with pytest.raises(Problem) as refused:
        decoders.prepare(big, WANTED, "query", Clock(0.05))
    assert refused.value.code == "request-timeout"


def test_a_process_lost_while_idle_costs_nothing(decoders: Decoders) -> None:
    decoders.prepare(encoded(1), WANTED, "query")
    for pid in decoders.processes()["query"]:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert decoders.prepare(encoded(2), WANTED, "query").width == 160


def test_lanes_do_not_wait_for_each_other(big: bytes) -> None:
    one_each = Decoders(1, Limits(), timeout_s=30)
    try:
        one_each.prepare(encoded(1), WANTED, "query")
        job, outcome = in_thread(lambda: one_each.prepare(big, WANTED, "bulk"))
        while not one_each.processes()["bulk"]:
            time.sleep(0.005)
        assert one_each.prepare(encoded(2), WANTED, "query").width == 160
        assert job.is_alive()
        job.join(30)
        (bulk,) = one_each.processes()["bulk"]
        assert os.getpriority(os.PRIO_PROCESS, bulk) == 10
        assert len(outcome) == 1
    finally:
        one_each.close()


def test_memory_has_a_limit() -> None:
    small = Decoders(1, Limits(max_bytes=2**24, max_pixels=10**6), timeout_s=30)
    try:
        small.prepare(encoded(1), WANTED, "query")
        (pid,) = small.processes()["query"]
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        bound = next(line.split()[3] for line in limits if line.startswith("Max address space"))
        assert int(bound) < 2**30
        assert "Max core file size        0" in "\n".join(limits)
    finally:
        small.close()


def test_no_process_is_left() -> None:
    opened = Decoders(2, Limits(), timeout_s=30)
    opened.prepare(encoded(1), WANTED, "query")
    opened.prepare(encoded(1), WANTED, "bulk")
    pids = [pid for each in opened.processes().values() for pid in each]
    assert len(pids) >= 2
    opened.close()
    assert not any(is_running(pid) for pid in pids)
    with pytest.raises(Problem) as refused:
        opened.prepare(encoded(1), WANTED, "query")
    assert refused.value.code == "shutting-down"


ORPHANING = """
import os, signal
from models import Limits, Preparation
from models.preprocess import IMAGENET
from service.decoding import process, wire
from service.decoding.pool import Decoders
from tests.pictures import encoded

decoders = Decoders(2, Limits(), 30)
for lane in ("query", "bulk"):
    decoders.prepare(encoded(1), Preparation((IMAGENET,), 512), lane)
pids = [pid for each in decoders.processes().values() for pid in each]
os.kill(pids[0], signal.SIGSTOP)
print(*pids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_process_outlives_a_killed_service_even_when_stopped() -> None:
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", ORPHANING], check=False, stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert ended.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in ended.stdout.split()]
    assert len(pids) == 2
    end = time.monotonic() + 10
    while any(is_running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(is_running(pid) for pid in pids)


def test_decoding_needs_no_torch_and_starts_at_once() -> None:
    loaded = "import sys, service.decoding.worker; print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    said = subprocess.check_output([sys.executable, "-c", loaded], text=True, cwd=root)
    assert said.strip() == "False"


@pytest.mark.parametrize(
    "said",
    [b"\xff\xff\xff\xff", b"\x02\0\0\0no", b"\x02\0\0\0[]", b"\x02\0\0\0{}{}", b"\x02\0", b""],
    ids=["a huge message", "no JSON", "no object", "too much", "half of one", "nothing"],
)
def test_what_a_process_says_is_not_trusted(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        theirs.close()
        with pytest.raises(wire.LostError):
            wire.receive(ours, time.monotonic() + 5)


def test_what_has_no_time_left_costs_no_process(decoders: Decoders) -> None:
    decoders.prepare(encoded(1), WANTED, "query")
    before = decoders.processes()
    with pytest.raises(Problem) as refused:
        decoders.prepare(encoded(1), WANTED, "query", Clock(0.0))
    assert refused.value.code == "request-timeout"
    assert decoders.processes() == before


def test_a_process_cannot_hand_its_files_to_the_service() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Path(os.devnull).open("rb") as file:
        message = b"\x02\0\0\0{}"
        socket.send_fds(theirs, [message], [file.fileno()])
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert wire.receive(ours) == {}
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("sizes", [[2**40], [-1, 5], [3, 9]])
def test_what_lies_in_the_file_is_taken_only_as_far_as_it_is_there(sizes: list[int]) -> None:
    file = wire.in_memory()
    try:
        assert wire.put(file, [b"abc", b"defgh"]) == [3, 5]
        assert wire.taken(file, [3, 5]) == [b"abc", b"defgh"]
        with pytest.raises(wire.LostError):
            wire.taken(file, sizes)
    finally:
        os.close(file)


def test_the_file_of_a_large_picture_does_not_stay(big: bytes) -> None:
    lone = Decoders(1, Limits(), timeout_s=30)
    try:
        content = big + bytes(wire.KEPT)
        assert lone.prepare(content, WANTED, "query").width == BIG[0]
        (worker,) = lone._crews["query"]._all
        assert os.fstat(worker._file).st_size == 0
        assert lone.prepare(encoded(2), WANTED, "query").width == 160
    finally:
        lone.close()


@pytest.mark.parametrize("code", ["internal-error", "picture-" + "x" * 100, 5, None])
def test_a_process_can_only_say_what_is_wrong_with_a_picture(code: object) -> None:
    assert isinstance(process._refused({"code": code, "message": "m"}), wire.LostError)
    said = process._refused({"code": "picture-unreadable", "message": "m" * 5_000})
    assert (type(said), len(str(said))) == (PictureError, 500)


@pytest.mark.parametrize(
    "wrong", [{"width": 2**31}, {"height": 0}, {"cut": [2**70, 1]}, {"shapes": [[3, 2, 3]]}]
)
def test_an_answer_beyond_any_picture_is_refused(wrong: dict[str, object]) -> None:
    head = {"shapes": [[3, 2, 2]], "width": 2, "height": 2, "cut": [2, 2]}
    parts = [bytearray(12), bytearray()]
    assert process._understood(head, parts, 1).width == 2
    with pytest.raises(ValueError, match=r"sides|reshape"):
        process._understood({**head, **wrong}, parts, 1)


def test_a_process_knows_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL5_WEIGHTS_MIRROR", "https://me:secret@mirror")
    assert "secret" not in str(process._passed_on())
