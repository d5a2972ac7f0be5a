"""Where weights come from, how they are pinned, and what is said when they are not to be had."""

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from models import weights as weights_module
from models import zoo
from models.download import hash_of
from models.embedded import EMBEDDED
from models.errors import SpecError, WeightsError
from models.preprocess import CAFFE, IMAGENET
from models.spec import parse
from models.weights import Weights, WeightsFolder, load_parameters

State = dict[str, torch.Tensor]
NETWORK = "squeezenet1_1"
OFFICIAL = "squeezenet1_1-b8a52dc0.pth"
_NOISE = np.random.RandomState(3).standard_normal(1_000_003).astype(np.float16)


def official_shaped(network: str) -> State:
    """Every key and shape of a network's checkpoint, with half-precision noise."""
    state = zoo.build(zoo.network(network)).state_dict()
    return {
        name: torch.from_numpy(np.resize(_NOISE, tuple(tensor.shape)))
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }


def shapes_of(network: str) -> dict[str, torch.Size]:
    state = zoo.build(zoo.network(network)).state_dict()
    return {name: tensor.shape for name, tensor in state.items()}


def pin(path: Path, digest: str | None = None) -> None:
    """Write the file's hash down as an operator would with sha256sum."""
    with (path.parent / "SHA256SUMS").open("a") as sums:
        sums.write(f"{digest or hash_of(path)}  {path.name}\n")


def flip_a_byte(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))


def refusal(folder: WeightsFolder, *arguments: Any, **named: Any) -> str:
    with pytest.raises(WeightsError) as refused:
        folder.resolve(*arguments, **named)
    return refused.value.code


@pytest.fixture(scope="module")
def state() -> State:
    return official_shaped(NETWORK)


@pytest.fixture
def folder(tmp_path: Path) -> WeightsFolder:
    return WeightsFolder(tmp_path, offline=True)


def test_auto_takes_the_pinned_weights_of_the_folder(folder: WeightsFolder, state: State) -> None:
    torch.save(state, folder.folder / OFFICIAL)
    pin(folder.folder / OFFICIAL)
    found = folder.resolve(NETWORK)
    assert (found.name, found.path) == ("imagenet1k_v1", folder.folder / OFFICIAL)
    assert found.sha256 == hash_of(folder.folder / OFFICIAL)
    assert found.notice is None
    loaded = load_parameters(found, shapes_of(NETWORK))
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in state.items())


def test_an_official_file_must_have_the_hash_that_its_name_ends_with(
    folder: WeightsFolder, state: State
) -> None:
    torch.save(state, folder.folder / OFFICIAL)
    assert refusal(folder, NETWORK) == "weights-hash"
    assert not (folder.folder / "SHA256SUMS").exists()


def test_a_file_is_pinned_by_its_first_use_and_sha256sum_agrees(
    folder: WeightsFolder, state: State
) -> None:
    for name in ("mine.pth", "other.pth"):
        torch.save(state, folder.folder / name)
        folder.resolve(NETWORK, name)
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=folder.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert checked.stdout == "mine.pth: OK\nother.pth: OK\n"
    flip_a_byte(folder.folder / "mine.pth")
    assert refusal(folder, NETWORK, "mine.pth") == "weights-hash"
    folder.resolve(NETWORK, "other.pth")


def test_a_file_that_changes_after_it_was_resolved_is_not_loaded(
    folder: WeightsFolder, state: State
) -> None:
    torch.save(state, folder.folder / "mine.pth")
    found = folder.resolve(NETWORK, "mine.pth")
    flip_a_byte(folder.folder / "mine.pth")
    with pytest.raises(WeightsError) as refused:
        load_parameters(found, shapes_of(NETWORK))
    assert refused.value.code == "weights-hash"
    assert found.sha256 in str(refused.value)


def test_a_folder_that_cannot_be_written_is_used_unpinned_and_aloud(
    folder: WeightsFolder, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(state, folder.folder / "mine.pth")
    (folder.folder / "SHA256SUMS.part").mkdir()
    with caplog.at_level(logging.WARNING):
        assert folder.resolve(NETWORK, "mine.pth").name == "mine.pth"
    assert "cannot be pinned" in caplog.text


def test_a_read_only_folder_stays_as_it_is_even_for_root(
    folder: WeightsFolder, state: State
) -> None:
    torch.save(state, folder.folder / "mine.pth")
    folder.folder.chmod(0o555)
    folder.resolve(NETWORK, "mine.pth")
    folder.folder.chmod(0o755)
    assert [path.name for path in folder.folder.iterdir()] == ["mine.pth"]


def test_a_damaged_sums_file_is_an_error_and_not_an_empty_one(
    folder: WeightsFolder, state: State
) -> None:
    torch.save(state, folder.folder / "mine.pth")
    (folder.folder / "SHA256SUMS").write_text("1e1e844be558  mine.pth\n")
    assert refusal(folder, NETWORK, "mine.pth") == "weights-sums"


def test_the_format_is_found_in_the_file_itself(folder: WeightsFolder, state: State) -> None:
    safetensors.torch.save_file(state, folder.folder / "mine.safetensors")
    found = folder.resolve(NETWORK, "mine.safetensors")
    bias = {"features.0.bias": torch.Size((64,))}
    loaded = load_parameters(found, bias)
    assert torch.equal(loaded["features.0.bias"], state["features.0.bias"].float())


def test_a_local_file_may_declare_its_preprocessing(folder: WeightsFolder, state: State) -> None:
    torch.save(state, folder.folder / "mine.pth")
    plain = folder.resolve(NETWORK, "mine.pth").preprocessing
    imagenet = folder.resolve(NETWORK, "mine.pth:imagenet").preprocessing
    caffe = folder.resolve(NETWORK, "mine.pth:caffe").preprocessing
    assert plain == imagenet == IMAGENET
    assert caffe == CAFFE


@pytest.mark.parametrize(
    "name",
    [
        "../outside.pth",
        "/etc/passwd",
        "sub/inside.pth",
        ".",
        "..",
        "",
        "link.pth",
        "notes.txt",
        "mine.pth:gray",
        "mine\0.pth",
        "mine\ud800.pth",
        "IMAGENET1K_V1",
        "default",
        "embedded",
    ],
)
def test_only_files_of_the_folder_can_be_named(folder: WeightsFolder, name: str) -> None:
    outside = folder.folder.parent / "outside.pth"
    for path in (outside, folder.folder / "sub" / "inside.pth", folder.folder / "mine.pth"):
        path.parent.mkdir(exist_ok=True)
        torch.save({}, path)
    (folder.folder / "notes.txt").write_text("nothing")
    (folder.folder / "link.pth").symlink_to(outside)
    assert refusal(folder, NETWORK, name) == "weights-unknown"


def test_a_file_that_is_not_there_is_said_to_be_missing(folder: WeightsFolder) -> None:
    assert refusal(folder, NETWORK, "mine.pth") == "weights-missing"


def test_an_unknown_network_is_a_question_of_the_spec(folder: WeightsFolder) -> None:
    with pytest.raises(SpecError):
        folder.resolve("alexnot")


def test_alexnet_falls_back_to_the_embedded_weights_and_says_so(
    folder: WeightsFolder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = folder.resolve("alexnet")
    assert found.name == "embedded"
    assert found.notice is not None
    assert "embedded" in found.notice
    assert "POOL5_OFFLINE" in found.notice
    assert caplog.messages == [found.notice]


@pytest.mark.parametrize("network", EMBEDDED)
def test_embedded_weights_come_with_the_package_and_fit_their_network(
    folder: WeightsFolder, network: str
) -> None:
    found = folder.resolve(network, "embedded")
    assert found.path is not None
    assert hash_of(found.path) == found.sha256
    assert found.path.stat().st_size <= 5_000_000
    plain = zoo.build(zoo.network(network)).state_dict()
    trunk = {name: value.shape for name, value in plain.items() if name.startswith("features.")}
    loaded = load_parameters(found, trunk)
    assert {name: value.shape for name, value in loaded.items()} == trunk
    assert all(parse(spec).network == network for spec in found.specs.values())
    assert folder.resolve(network, "embedded", sha256=found.sha256) == found


def test_a_changed_embedded_file_is_refused_when_it_is_loaded(
    folder: WeightsFolder, tmp_path: Path
) -> None:
    found = folder.resolve("alexnet", "embedded")
    assert found.path is not None
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(found.path.read_bytes())
    flip_a_byte(copy)
    with pytest.raises(WeightsError) as refused:
        load_parameters(replace(found, path=copy), {"features.0.bias": torch.Size((64,))})
    assert refused.value.code == "weights-hash"


def test_only_networks_that_have_them_know_embedded_weights(folder: WeightsFolder) -> None:
    assert refusal(folder, "vgg19", "embedded") == "weights-unknown"


def test_untrained_is_said_aloud_even_when_it_was_chosen(folder: WeightsFolder) -> None:
    assert "untrained" in (folder.resolve("resnet152", "untrained").notice or "")


def test_any_other_network_without_weights_names_every_remedy(folder: WeightsFolder) -> None:
    with pytest.raises(WeightsError) as refused:
        folder.resolve("vgg19")
    assert refused.value.code == "weights-unavailable"
    for remedy in ("pool5 weights pull vgg19", "POOL5_WEIGHTS_DIR", '"untrained"'):
        assert remedy in str(refused.value)


def test_untrained_weights_load_and_are_pinned_like_others(folder: WeightsFolder) -> None:
    found = folder.resolve("alexnet", "untrained")
    bias = {"features.0.bias": torch.Size((64,))}
    assert load_parameters(found, bias)["features.0.bias"].eq(0).all()
    assert folder.resolve("alexnet", "untrained", sha256=found.sha256) == found
    assert folder.resolve("vgg19", "untrained").sha256 != found.sha256


def test_other_weights_than_a_collection_was_made_with_are_refused(
    folder: WeightsFolder, state: State
) -> None:
    torch.save(state, folder.folder / "mine.pth")
    actual = folder.resolve(NETWORK, "mine.pth").sha256
    with pytest.raises(WeightsError) as refused:
        folder.resolve(NETWORK, "mine.pth", sha256="0" * 64)
    assert refused.value.code == "weights-differ"
    assert "0" * 64 in str(refused.value)
    assert actual in str(refused.value)


def test_offline_makes_no_connection(server: Any, tmp_path: Path) -> None:
    folder = WeightsFolder(tmp_path, mirror=server.url(), offline=True)
    assert refusal(folder, NETWORK) == "weights-unavailable"
    assert refusal(folder, NETWORK, "imagenet1k_v1") == "weights-offline"
    with pytest.raises(WeightsError) as refused:
        folder.pull(NETWORK)
    assert refused.value.code == "weights-offline"
    assert folder.resolve("alexnet").name == "embedded"
    assert server.requests == []


def test_auto_downloads_from_the_mirror(server: Any, tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "made")
    server.files[f"/w/{OFFICIAL}"] = (tmp_path / "made").read_bytes()
    folder = WeightsFolder(tmp_path / "new", mirror=server.url("/w/"), offline=False)
    folder.folder.mkdir()
    pin(folder.folder / OFFICIAL, hash_of(tmp_path / "made"))
    found = folder.resolve(NETWORK)
    assert (found.name, found.notice) == ("imagenet1k_v1", None)
    assert folder.resolve(NETWORK) == found
    assert server.requests == [f"/w/{OFFICIAL}"]


def test_a_mirror_is_held_to_the_hash_in_the_name(
    server: Any, tmp_path: Path, state: State
) -> None:
    torch.save(state, tmp_path / "made")
    server.files[f"/{OFFICIAL}"] = (tmp_path / "made").read_bytes()
    folder = WeightsFolder(tmp_path / "new", mirror=server.url(), offline=False)
    with pytest.raises(WeightsError) as refused:
        folder.pull(NETWORK)
    assert refused.value.code == "weights-hash"
    assert list(folder.folder.iterdir()) == []


def test_a_mirror_that_does_not_answer_is_as_good_as_offline(
    closed_port: int, tmp_path: Path
) -> None:
    folder = WeightsFolder(tmp_path, mirror=f"http://127.0.0.1:{closed_port}", offline=False)
    assert folder.resolve("alexnet").name == "embedded"
    assert refusal(folder, NETWORK) == "weights-unavailable"


def test_pull_replaces_a_changed_file_and_tells_its_progress(
    server: Any, tmp_path: Path, state: State
) -> None:
    folder = WeightsFolder(tmp_path, mirror=server.url(), offline=False)
    torch.save(state, tmp_path / OFFICIAL)
    pin(tmp_path / OFFICIAL)
    size = (tmp_path / OFFICIAL).stat().st_size
    server.files[f"/{OFFICIAL}"] = (tmp_path / OFFICIAL).read_bytes()
    flip_a_byte(tmp_path / OFFICIAL)
    assert refusal(folder, NETWORK) == "weights-hash"
    told: list[tuple[int, int | None]] = []
    found = folder.pull(NETWORK, progress=lambda *now: told.append(now))
    assert told[-1] == (size, size)
    assert folder.resolve(NETWORK) == found


def test_pull_knows_only_torchvisions_names(folder: WeightsFolder) -> None:
    for name in ("default", "untrained", "mine.pth"):
        with pytest.raises(WeightsError) as refused:
            folder.pull("resnet152", name)
        assert refused.value.code == "weights-unknown"


def test_every_name_at_hand_resolves_to_weights_of_that_name(
    folder: WeightsFolder, state: State
) -> None:
    for name in (OFFICIAL, f"{NETWORK}.pth", "squeezenet1_0.pth", "vgg19_bn.pth"):
        torch.save(state, folder.folder / name)
    pin(folder.folder / OFFICIAL)
    assert folder.at_hand(NETWORK) == ["imagenet1k_v1", f"{NETWORK}.pth", "untrained"]
    assert folder.at_hand("vgg19") == ["untrained"]
    assert folder.at_hand("alexnet") == ["embedded", "untrained"]
    for name in (*folder.at_hand(NETWORK), f"{NETWORK}.pth:caffe"):
        assert folder.resolve(NETWORK, name).name == name


def test_verify_tells_what_is_right_changed_unpinned_and_gone(
    folder: WeightsFolder, state: State
) -> None:
    assert folder.verify() == []
    for name in ("changed.pth", "gone.pth", "right.pth", "unpinned.pth", OFFICIAL):
        torch.save(state, folder.folder / name)
        if name not in ("unpinned.pth", OFFICIAL):
            pin(folder.folder / name)
    flip_a_byte(folder.folder / "changed.pth")
    (folder.folder / "gone.pth").unlink()
    assert {one.file: one.status for one in folder.verify()} == {
        "changed.pth": "changed",
        "gone.pth": "missing",
        "right.pth": "ok",
        "unpinned.pth": "unpinned",
        OFFICIAL: "changed",
    }


def test_a_folder_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    folder = WeightsFolder(tmp_path / "none", offline=True)
    assert folder.verify() == []
    assert folder.at_hand(NETWORK) == ["untrained"]
    assert refusal(folder, NETWORK) == "weights-unavailable"


def test_without_arguments_the_environment_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOL5_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("POOL5_WEIGHTS_MIRROR", "http://127.0.0.1/w")
    for said, meant in (("1", True), ("true", True), ("0", False), ("", False)):
        monkeypatch.setenv("POOL5_OFFLINE", said)
        assert WeightsFolder() == WeightsFolder(tmp_path, "http://127.0.0.1/w", meant)


def test_every_network_pins_weights_that_torchvision_names_by_their_hash() -> None:
    for row in map(zoo.network, zoo.names()):
        name = row.name
        if row.module:
            continue  # ours: torchvision has no weights for it
        url = weights_module.official(name)[weights_module.pinned(row)]
        digits = weights_module.official_hashes()[url.rpartition("/")[2]]
        assert len(digits) >= 8, url
        assert set(digits) <= set("0123456789abcdef"), url


def test_genuine_weights_load_number_for_number(shared_weights: Path, tmp_path: Path) -> None:
    folder = WeightsFolder(tmp_path, offline=True)
    for network in (NETWORK, "mobilenet_v2"):
        file = shutil.copy(shared_weights / f"{network}.pth", tmp_path)
        loaded = load_parameters(folder.resolve(network, f"{network}.pth"), shapes_of(network))
        genuine = torch.load(file, weights_only=True)
        assert all(
            torch.equal(loaded[name], genuine[name].to(t.dtype)) for name, t in loaded.items()
        )


@dataclass(frozen=True)
class Official:
    """An official-shaped file, pinned in a folder."""

    network: str
    state: State
    folder: Path
    path: Path


@pytest.fixture(scope="module", params=["alexnet", "vgg19", "resnet152"])
def named_network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    network = request.param
    row = zoo.network(network)
    url = weights_module.official(network)[weights_module.pinned(row)]
    folder = tmp_path_factory.mktemp(network)
    path = folder / url.rpartition("/")[2]
    state = official_shaped(network)
    torch.save(state, path)
    pin(path)
    yield Official(network, state, folder, path)
    shutil.rmtree(folder)


def assert_loads_whole(found: Weights, state: State) -> None:
    loaded = load_parameters(found, shapes_of(found.network))
    assert loaded.keys() >= state.keys()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in state.items())


@pytest.mark.slow
def test_a_named_network_loads_by_enum_name(named_network: Official) -> None:
    folder = WeightsFolder(named_network.folder, offline=True)
    found = folder.resolve(named_network.network, "imagenet1k_v1")
    assert found.path == named_network.path
    assert_loads_whole(found, named_network.state)


@pytest.mark.slow
def test_a_named_network_loads_by_file_and_refuses_one_changed_byte(
    named_network: Official, tmp_path: Path
) -> None:
    shutil.copy(named_network.path, tmp_path / "mine.pth")
    folder = WeightsFolder(tmp_path, offline=True)
    found = folder.resolve(named_network.network, "mine.pth:caffe")
    assert found.preprocessing.channels == "BGR"
    assert_loads_whole(found, named_network.state)
    flip_a_byte(tmp_path / "mine.pth")
    assert refusal(folder, named_network.network, "mine.pth") == "weights-hash"
    with pytest.raises(WeightsError, match="SHA-256"):
        load_parameters(found, {})


@pytest.mark.slow
def test_a_named_network_loads_by_mirror_and_refuses_one_changed_byte(
    named_network: Official, server: Any, tmp_path: Path
) -> None:
    network, file = named_network.network, named_network.path.name
    shutil.copy(named_network.folder / "SHA256SUMS", tmp_path)
    folder = WeightsFolder(tmp_path, mirror=server.url(), offline=False)
    body = bytearray(named_network.path.read_bytes())
    body[len(body) // 2] ^= 1
    server.files[f"/{file}"] = body
    with pytest.raises(WeightsError) as refused:
        folder.pull(network)
    assert refused.value.code == "weights-hash"
    assert not (tmp_path / file).exists()
    body[len(body) // 2] ^= 1
    assert_loads_whole(folder.resolve(network), named_network.state)


MEASURE = """
import re, sys
from pathlib import Path
from models import zoo
from models.weights import WeightsFolder, load_parameters

def resident(what):
    return 1024 * int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def grown(shapes):
    load_parameters(weights, shapes)
    return resident("VmHWM") - before

path = Path(sys.argv[1])
weights = WeightsFolder(path.parent, offline=True).resolve("vgg19", path.name)
full = {k: v.shape for k, v in zoo.build(zoo.network("vgg19")).state_dict().items()}
conv4_4 = {k: v for k, v in full.items() if k.startswith("features.") and int(k.split(".")[1]) < 26}
before = resident("VmRSS")
print(grown(conv4_4), grown(full))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_what_lies_above_conv4_4_never_becomes_resident(form: str, tmp_path: Path) -> None:
    state = official_shaped("vgg19")
    path = tmp_path / ("vgg19.safetensors" if form == "safetensors" else "vgg19.pth")
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    size = path.stat().st_size
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        cwd=Path(weights_module.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    path.unlink()
    truncated, whole = map(int, measured.stdout.split())
    print(f"{form}: {truncated / 1e6:.0f} MB for conv4_4, {whole / 1e6:.0f} MB for all")
    assert truncated < size / 3
    assert whole > size, "this measures nothing"
