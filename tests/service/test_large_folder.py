"""A folder of 100,000 files: neither counting nor listing it holds them all in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MIB = 1024 * 1024

WALK = """
import json, sys, time
from pathlib import Path
from service.indexing.folder import FolderSource
from service.indexing.source import handfuls

folder = Path(sys.argv[1])
def peak():
    said = Path("/proc/self/status").read_text()
    return int(said.split("VmHWM:")[1].split()[0]) * 1024
before = peak()
source = FolderSource(folder, [folder], 1000)
started = time.process_time()
counted = source.count()
counting = time.process_time() - started
started = time.process_time()
listed = sum(len(few) for few in handfuls(source.entries()))
print(json.dumps({
    "counted": counted, "listed": listed, "grown": peak() - before,
    "counting_s": counting, "listing_s": time.process_time() - started,
}))
"""


pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def walked(folder: Path) -> Any:
    command = [sys.executable, "-c", WALK, str(folder)]
    checkout = Path(__file__).resolve().parents[2]
    ran = subprocess.run(command, cwd=checkout, capture_output=True, check=True)
    return json.loads(ran.stdout)


def fill(folder: Path, files: int) -> None:
    folder.mkdir(parents=True)
    for n in range(files):
        os.close(os.open(folder / f"{n:07d}-a-picture.jpg", os.O_CREAT | os.O_WRONLY))


def test_the_names_of_one_folder_are_all_that_is_held(tmp_path: Path) -> None:
    fill(tmp_path / "flat", 20_000)
    seen = walked(tmp_path / "flat")
    assert seen["counted"] == seen["listed"] == 20_000
    assert 0 < seen["grown"] < 8 * MIB  # 20,000 entries with their paths would be 30 MiB
    assert seen["counting_s"] < seen["listing_s"]


@pytest.mark.long
@pytest.mark.parametrize("per_folder", [1_000, 100_000])
def test_a_hundred_thousand_files_take_a_few_megabytes(tmp_path: Path, per_folder: int) -> None:
    for at in range(100_000 // per_folder):
        fill(tmp_path / "in" / f"{at:04d}", per_folder)
    seen = walked(tmp_path / "in")
    print(seen)
    assert seen["counted"] == seen["listed"] == 100_000
    assert seen["grown"] < (8 if per_folder == 1_000 else 20) * MIB
    assert seen["counting_s"] < seen["listing_s"]
