"""Mutated files of every kind: none may crash, hang, or take more memory than the caps allow."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fuzz

CHECKOUT = Path(__file__).resolve().parents[2]
RESULT = Path("benchmarks") / "results" / "fuzz.json"


def fuzzed(files: int, out: Path, kept: Path) -> Any:
    """The fuzz in a process of its own: it forks, and nothing here may."""
    flags = ["--files", str(files), "--out", str(out), "--kept", str(kept)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", *flags],
        cwd=CHECKOUT,
        env=environment,
        check=False,
    )
    return json.loads(out.read_text())


def check(result: Any, files: int) -> None:
    broken = {name: kind["found"] for name, kind in result["kinds"].items() if kind["found"]}
    assert not broken
    assert result["files"] >= files
    for name, kind in result["kinds"].items():
        assert kind["read"], f"no mutant of {name} is read: the fuzz is shallow"
        assert kind["refused"], f"no mutant of {name} is refused"


def test_a_few_mutants_of_every_kind_are_read_or_refused(tmp_path: Path) -> None:
    check(fuzzed(900, tmp_path / "fuzz.json", tmp_path / "kept"), 900)


@pytest.mark.long
def test_a_hundred_thousand_mutants_are_read_or_refused(tmp_path: Path) -> None:
    check(fuzzed(100_000, CHECKOUT / RESULT, tmp_path / "kept"), 100_000)


@pytest.mark.long
def test_the_fuzz_finds_what_crashes_hangs_allocates_or_breaks_a_promise(tmp_path: Path) -> None:
    code = (
        "import ctypes, sys, time, json\n"
        "from pathlib import Path\n"
        "from benchmarks import fuzz\n"
        "fuzz.DEADLINE_S = 0.5\n"
        "def read(content, number):\n"
        "    if number == 3: ctypes.string_at(0)\n"
        "    if number == 5: time.sleep(60)\n"
        "    if number == 7: bytearray(2 * fuzz.MEMORY)\n"
        "    if number == 8: raise IndexError('out of range')\n"
        "target = fuzz.Target('made', [b'seed' * 9], read)\n"
        "print(json.dumps(fuzz.fuzzed(target, 12, Path(sys.argv[1]))))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=CHECKOUT, capture_output=True, check=True
    )
    result = json.loads(ran.stdout)
    assert result["found"] == [
        {"number": 3, "what": "SIGSEGV"},
        {"number": 5, "what": "hangs for 0.5 s"},
        {"number": 7, "what": "memory"},
        {"number": 8, "what": "IndexError:out of range"},
    ]
    assert (result["files"], result["read"]) == (12, 8)
    kept = tmp_path / "made-3"
    assert kept.read_bytes() == fuzz.mutated([b"seed" * 9], 3, "made")
