"""The `pool5` command as a script meets it: exit status, standard output, one-line errors."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from service.cli import main
from tests.pictures import encoded


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Result]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(5):
        (folder / f"{n}.png").write_bytes(encoded(n))
    return folder


@pytest.fixture
def pool5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Run the command in this process: its start alone costs seconds in a new one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOL5_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("POOL5_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("POOL5_DEVICE", "cpu")
    handlers, level = logging.root.handlers[:], logging.root.level

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["pool5", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Result(int(ended.value.code or 0), *capsys.readouterr())

    yield run
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def parsed(result: Result) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_folder_is_indexed_then_searched(pool5: Command, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    indexed = parsed(pool5("index", str(pictures), "--json"))
    assert (indexed["state"], indexed["done"], indexed["failed"]) == ("done", 5, 1)
    again = pool5("index", str(pictures))
    assert "0 indexed, 5 unchanged, 1 failed" in again.stderr
    assert "broken.png" in again.stderr
    found = parsed(pool5("search", str(pictures / "3.png"), "-k", "2", "--json"))
    assert found["neighbours"][0]["name"] == "3.png"
    assert len(found["neighbours"]) == 2
    rerank = '{"method": "dba", "k": 2}'
    ranked = parsed(pool5("search", str(pictures / "3.png"), "--rerank", rerank, "--json"))
    assert any(one["score"] != one["similarity"] for one in ranked["neighbours"])
    table = pool5("search", str(pictures / "3.png"), "--region", "0,0,0.5,1")
    assert table.returncode == 0
    assert "score" in table.stdout
    verified = parsed(
        pool5("search", str(pictures / "3.png"), "-k", "3", "--verify", "2", "--json")
    )
    assert ["inliers" in neighbour for neighbour in verified["neighbours"]] == [True, True, False]


def test_descriptors_go_to_standard_output_or_a_file(
    pool5: Command, tmp_path: Path, pictures: Path
) -> None:
    arguments = ["describe", str(pictures / "1.png"), "--spec", "alexnet/conv3/mac"]
    found = parsed(pool5(*arguments, "--json"))
    assert (found["dim"], found["weights"]) == (384, "embedded")
    written = pool5(*arguments, "--output", str(tmp_path / "d.npy"))
    assert "embedded" in written.stderr
    np.testing.assert_allclose(np.load(tmp_path / "d.npy"), found["descriptors"], atol=1e-6)


def test_a_whitening_is_fitted_and_then_named_by_a_spec(pool5: Command, pictures: Path) -> None:
    base = ["--spec", "alexnet/conv5/gem"]
    fitted = parsed(pool5("whiten", str(pictures), *base, "--dim", "3", "--json"))
    assert fitted["spec"] == "alexnet/conv5/gem/pca3"
    arguments = ["describe", str(pictures / "1.png"), "--spec", fitted["spec"], "--json"]
    assert parsed(pool5(*arguments))["dim"] == 3


def test_networks_and_layers_are_listed(pool5: Command, tmp_path: Path) -> None:
    names = [row["name"] for row in parsed(pool5("networks", "--json"))["networks"]]
    assert {"alexnet", "vgg19", "resnet152"} <= set(names)
    layers = parsed(pool5("networks", "vgg19", "--json"))["layers"]
    assert {"conv1_1", "conv5_4", "pool5", "fc6", "fc7"} <= {layer["name"] for layer in layers}


def test_doctor_finds_nothing_wrong_here(pool5: Command, tmp_path: Path) -> None:
    report = parsed(pool5("doctor", "--json"))
    assert all(finding["ok"] for finding in report.values())


def test_keys_are_made_listed_rotated_and_revoked(pool5: Command, tmp_path: Path) -> None:
    scoped = ["--scope", "write", "--collection", "shoes", "--collection", "hats"]
    made = parsed(pool5("keys", "add", "shop", *scoped, "--expires", "30d", "--json"))
    assert (made["scope"], made["collections"], made["state"]) == (
        "write",
        ["shoes", "hats"],
        "holds",
    )
    plain = pool5("keys", "add", "ops")
    assert plain.stdout.startswith("pool5_")
    assert len(plain.stdout.split()) == 1
    next_ = parsed(pool5("keys", "rotate", made["id"], "--grace", "1h", "--json"))
    assert (next_["name"], next_["scope"]) == ("shop", "write")
    assert pool5("keys", "revoke", plain.stdout.split("_")[1]).returncode == 0
    listed = pool5("keys", "list")
    assert [
        word for word in ("shop", "hats", "revoked", "holds") if word not in listed.stdout
    ] == []
    keys = parsed(pool5("keys", "list", "--json"))["keys"]
    assert [key["state"] for key in keys] == ["holds", "revoked", "holds"]
    audit = (tmp_path / "data" / "audit.jsonl").read_text()
    everything = audit + listed.stdout + str(keys)
    for secret in (made["secret"], next_["secret"], plain.stdout.strip()):
        assert secret.split("_", 2)[2] not in everything
    commands = [json.loads(line) for line in audit.splitlines()]
    assert [line["operation"] for line in commands] == [
        "pool5 keys add", "pool5 keys add", "pool5 keys rotate", "pool5 keys revoke",
    ]  # fmt: skip
    assert all(line["user"] and line["key"] for line in commands)


def test_a_gallery_is_rendered_once(pool5: Command, tmp_path: Path) -> None:
    assert pool5("gallery", "gallery", "--count", "6").returncode == 0
    files = sorted((tmp_path / "gallery").rglob("*.jpg"))
    written = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 6
    assert pool5("gallery", "gallery", "--count", "6").returncode == 0
    assert [file.stat().st_mtime_ns for file in files] == written


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "missing.png"], "missing.png: No such file or directory"),
        (["search", "pictures/0.png", "--space", "none"], "no space 'none'"),
        (["search", "pictures/0.png", "--collection", "none"], "'none'"),
        (["search", "pictures/0.png", "--rerank", "none"], "none of ['dba', 'diffusion'"),
        (["search", "pictures/0.png", "--rerank", '{"method"'], "--rerank is no valid JSON"),
        (["describe", "pictures/0.png", "--spec", "alexnet/conv9"], "conv9"),
        (["describe", "pictures/0.png", "--device", "cuda:99"], "cuda:99"),
        (["describe", "pictures/0.png", "--spec", "vgg19/fc7"], "pool5 weights pull vgg19"),
        (["index", "missing"], "missing: No such file or directory"),
        (["weights", "pull", "alexnet"], "OFFLINE"),
        (["networks", "nonet"], "nonet"),
        (["serve", "--port", "99999"], "POOL5_PORT"),
        (["serve", "--host", "0.0.0.0"], "pool5 keys add"),
        (["serve", "--cors-origins", "*"], "POOL5_CORS_ORIGINS"),
        (["serve", "--rate-read", "often"], "POOL5_RATE_READ"),
        (["serve", "--trusted-proxies", "proxy"], "POOL5_TRUSTED_PROXIES"),
        (["keys", "revoke", "none"], "there is no key 'none'"),
        (["keys", "add", "ops", "--expires", "soon"], "--expires is a number"),
        (["keys", "add", "ops", "--collection", "../a"], "cannot name a collection"),
        (["whiten", "pictures", "--dim", "400", "--spec", "alexnet/conv5/gem"], "400"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_status_2(
    pool5: Command, pictures: Path, arguments: list[str], said: str
) -> None:
    assert pictures.is_dir()
    result = pool5(*arguments)
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("pool5: ")
    assert said in last
    assert "Traceback" not in result.stderr


def test_the_installed_command_is_there() -> None:
    command = Path(sys.executable).with_name("pool5")
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    for name in ("serve", "index", "search", "describe", "networks", "weights", "doctor"):
        assert name in shown.stdout
