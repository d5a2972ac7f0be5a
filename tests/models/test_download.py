"""What a download promises, against a real HTTP server on the loopback."""

import hashlib
import logging
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from models import download
from models.download import Patience, fetch
from models.errors import WeightsError

BODY = random.Random(5).randbytes(700_001)
HASH = hashlib.sha256(BODY).hexdigest()
QUICK = Patience(connect=5.0, silence=20.0, attempts=3, pause=0.001)
IMPATIENT = replace(QUICK, silence=1.0)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "alexnet.pth"


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_leaves_nothing_beside_it(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    assert fetch(server.url("/a"), target, expected=HASH, patience=QUICK) == HASH
    assert target.read_bytes() == BODY
    assert files_in(target.parent) == [target.name]


def test_the_first_digits_of_the_hash_are_enough_to_pin_a_file(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    assert fetch(server.url("/a"), target, expected=HASH[:8], patience=QUICK) == HASH


def test_a_file_that_is_here_already_is_not_downloaded_again(server: Any, target: Path) -> None:
    target.write_bytes(BODY)
    assert fetch(server.url("/a"), target, expected=HASH, patience=QUICK) == HASH
    assert server.requests == []
    assert files_in(target.parent) == [target.name]


def test_a_changed_file_is_replaced(server: Any, target: Path) -> None:
    target.write_bytes(b"damaged")
    server.files["/a"] = BODY
    fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert target.read_bytes() == BODY


def test_a_truncated_body_is_resumed_where_it_stopped(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    server.replies = ["truncated"]
    fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert target.read_bytes() == BODY
    assert server.ranges == [None, f"bytes={server.HALF}-"]


def test_a_server_that_knows_no_ranges_is_asked_anew(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    server.replies = ["truncated", "whole"]
    fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert target.read_bytes() == BODY
    assert server.ranges == [None, f"bytes={server.HALF}-"]


def test_a_stalled_body_is_given_up_and_resumed(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    server.replies = ["stalled"]
    fetch(server.url("/a"), target, expected=HASH, patience=IMPATIENT)
    assert target.read_bytes() == BODY
    assert server.ranges == [None, f"bytes={server.HALF}-"]


def test_a_server_that_accepts_and_says_nothing_is_given_up(server: Any, target: Path) -> None:
    server.replies = ["silent"] * 2
    with pytest.raises(WeightsError) as refused:
        fetch(server.url("/a"), target, expected=HASH, patience=replace(IMPATIENT, attempts=2))
    assert refused.value.code == "weights-download"
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(server: Any, target: Path, status: int) -> None:
    server.files["/a"] = BODY
    server.replies = [status]
    fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_refusal_is_final(server: Any, target: Path, status: int) -> None:
    server.replies = [status] * 3
    with pytest.raises(WeightsError, match=str(status)) as refused:
        fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert refused.value.code == "weights-download"
    assert len(server.requests) == 1
    assert files_in(target.parent) == []


def test_a_wrong_hash_is_refused_and_its_bytes_deleted(server: Any, target: Path) -> None:
    server.files["/a"] = BODY[:-1] + bytes([BODY[-1] ^ 1])
    found = hashlib.sha256(server.files["/a"]).hexdigest()
    with pytest.raises(WeightsError) as refused:
        fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert refused.value.code == "weights-hash"
    assert HASH in str(refused.value)
    assert found in str(refused.value)
    assert len(server.requests) == 1
    assert files_in(target.parent) == []


def test_a_download_interrupted_too_often_keeps_what_it_has(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    server.replies = ["truncated", 503, 503]
    with pytest.raises(WeightsError) as refused:
        fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert refused.value.code == "weights-download"
    assert files_in(target.parent) == [part_of(target).name]
    fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert server.ranges[-1] == f"bytes={server.HALF}-"
    assert files_in(target.parent) == [target.name]


def test_a_part_of_another_file_is_not_built_upon(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    part_of(target).write_bytes(b"something else")
    fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert server.ranges == ["bytes=14-", None]
    assert target.read_bytes() == BODY


def test_a_part_that_was_complete_needs_no_body(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    part_of(target).write_bytes(BODY)
    assert fetch(server.url("/a"), target, expected=HASH, patience=QUICK) == HASH
    assert server.sent == 0


def test_a_killed_download_is_resumed_by_the_next_process(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    server.replies = ["stalled"]
    program = (
        "import sys, pathlib; from models.download import fetch; "
        "fetch(sys.argv[1], pathlib.Path(sys.argv[2]), expected=sys.argv[3])"
    )
    root = Path(download.__file__).parents[1]
    child = subprocess.Popen(
        [sys.executable, "-c", program, server.url("/a"), str(target), HASH], cwd=root
    )
    assert server.stalling.wait(60)
    while not part_of(target).stat().st_size:
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait(60)
    had = part_of(target).stat().st_size
    fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert server.ranges == [None, f"bytes={had}-"]
    assert target.read_bytes() == BODY


def test_several_who_want_the_same_file_download_it_once(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    with ThreadPoolExecutor(6) as pool:
        wanted = [
            pool.submit(fetch, server.url("/a"), target, expected=HASH, patience=QUICK)
            for _ in range(6)
        ]
        assert {one.result(60) for one in wanted} == {HASH}
    assert len(server.requests) == 1
    assert files_in(target.parent) == [target.name]


@pytest.mark.parametrize("reply", ["whole", "unannounced"])
def test_a_file_beyond_the_cap_is_refused(server: Any, target: Path, reply: str) -> None:
    server.files["/a"] = BODY
    server.replies = [reply]
    with pytest.raises(WeightsError) as refused:
        fetch(server.url("/a"), target, expected=HASH, patience=QUICK, max_bytes=500_000)
    assert refused.value.code == "weights-too-large"
    assert files_in(target.parent) == []


def test_an_unannounced_length_is_fine(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    server.replies = ["unannounced"]
    told: list[tuple[int, int | None]] = []
    fetch(
        server.url("/a"),
        target,
        expected=HASH,
        patience=QUICK,
        progress=lambda *now: told.append(now),
    )
    assert told[-1] == (len(BODY), None)


def test_progress_counts_what_was_there_before(server: Any, target: Path) -> None:
    server.files["/a"] = BODY
    part_of(target).write_bytes(BODY[:100_000])
    told: list[tuple[int, int | None]] = []
    fetch(
        server.url("/a"),
        target,
        expected=HASH,
        patience=QUICK,
        progress=lambda *now: told.append(now),
    )
    assert told == sorted(told)
    assert told[0][0] > 100_000
    assert told[-1] == (len(BODY), len(BODY))


def test_a_redirect_is_followed(server: Any, target: Path) -> None:
    server.files["/b"] = BODY
    server.redirects["/a"] = "/b"
    assert fetch(server.url("/a"), target, expected=HASH, patience=QUICK) == HASH


def test_redirects_in_a_circle_end(server: Any, target: Path) -> None:
    server.redirects |= {"/a": "/b", "/b": "/a"}
    with pytest.raises(WeightsError) as refused:
        fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert refused.value.code == "weights-download"
    assert len(server.requests) == 6


def test_a_redirect_from_https_to_http_is_refused() -> None:
    before = httpx.Response(302, request=httpx.Request("GET", "https://example.org/a"))
    after = httpx.Response(
        200, request=httpx.Request("GET", "http://example.org/a"), history=[before]
    )
    with pytest.raises(WeightsError, match="https to http"):
        download._check(after, "https://example.org/a")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/a", "weights", "http://"])
def test_only_http_is_spoken(target: Path, url: str) -> None:
    with pytest.raises(WeightsError) as refused:
        fetch(url, target, expected=HASH, patience=QUICK)
    assert refused.value.code == "weights-download"


def test_a_redirect_to_a_local_file_is_refused(server: Any, target: Path) -> None:
    server.redirects["/a"] = "file:///etc/hostname"
    with pytest.raises(WeightsError) as refused:
        fetch(server.url("/a"), target, expected=HASH, patience=QUICK)
    assert refused.value.code == "weights-download"


def test_a_host_that_does_not_answer_is_given_up_at_once(
    closed_port: int, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(WeightsError) as refused:
        fetch(f"http://127.0.0.1:{closed_port}/a", target, expected=HASH, patience=QUICK)
    assert refused.value.code == "weights-download"
    assert caplog.records == []


def test_a_folder_that_cannot_be_made_is_an_error_of_its_own(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError) as refused:
        fetch(server.url("/a"), tmp_path / "file" / "a.pth", expected=HASH, patience=QUICK)
    assert refused.value.code == "weights-folder"
    assert server.requests == []
