"""`pool5 train embedded` as one types it: killed, taken up again, and what comes out is used."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.training.loop import CHECKPOINT
from tests.pictures import picture

PROGRAM = [sys.executable, "-c", "from service.cli import main; main()"]
RECIPE = ["--pictures", "4", "--shards", "1", "--batch", "16", "--json"]


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "POOL5_OFFLINE": "1",
        "POOL5_DEVICE": "cpu",
        "POOL5_DATA": str(folder / "data"),
        "POOL5_WEIGHTS_DIR": str(folder / "work"),
        "OMP_NUM_THREADS": "1",
    }


def pool5(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for n in range(3):
        picture(n).save(folder / f"{n}.jpg")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("teacher", [[], ["--teacher", "squeezenet1_1=untrained"]])
def test_a_training_that_is_killed_goes_on_and_its_weights_describe(
    tmp_path: Path, photographs: Path, teacher: list[str]
) -> None:
    flags = ["work", "--photographs", str(photographs), "--steps", "30", *teacher, *RECIPE]
    process = subprocess.Popen(
        [*PROGRAM, "train", "embedded", *flags],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = tmp_path / "work" / "log"
    try:
        end = time.monotonic() + 200
        while not (tmp_path / "work" / CHECKPOINT).exists() and not list(log.glob("*")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = pool5(tmp_path, "train", "embedded", *flags)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["steps"] == 30
    assert made["photographs"] == 3
    weights = Path(made["path"]).name
    arguments = [str(photographs / "0.jpg"), "--spec", "alexnet/conv5/gem", "--json"]
    described = pool5(tmp_path, "describe", *arguments, "--weights", weights)
    assert described.returncode == 0, described.stderr
    assert json.loads(described.stdout)["dim"] == 256


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--teacher", "nonet=x.pth"], "nonet"),
        (["--teacher", "squeezenet1_1=missing.pth"], "missing.pth"),
        (["--photographs", "nowhere"], "nowhere"),
        (["--batch", "3"], "even"),
        (["--pictures", "0"], "picture"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, flags: list[str], named: str) -> None:
    (tmp_path / "work").mkdir()
    refused = pool5(tmp_path, "train", "embedded", "work", *RECIPE, *flags)
    assert refused.returncode == 2
    assert named in refused.stderr
    assert "Traceback" not in refused.stderr
