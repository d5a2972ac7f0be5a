"""Reading some tensors of a checkpoint: every format, nothing hostile, nothing by halves."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import checkpoint
from models.errors import WeightsError

State = dict[str, torch.Tensor]
Save = Callable[[State, Path], None]


def save_zip(state: object, path: Path) -> None:
    torch.save(state, path)


def save_legacy(state: object, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


SAVES: dict[str, Save] = {
    "zip": save_zip,
    "legacy": save_legacy,
    "safetensors": safetensors.torch.save_file,
}
PICKLES = {"zip": save_zip, "legacy": save_legacy}
every_format = pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
every_pickle = pytest.mark.parametrize("save", PICKLES.values(), ids=PICKLES)


def small_state() -> State:
    generator = torch.Generator().manual_seed(7)
    shapes = {"features.0.weight": (4, 3, 5, 5), "features.0.bias": (4,), "fc.weight": (10, 64)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def shapes_of(state: State) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def read(path: Path, shapes: dict[str, torch.Size]) -> State:
    with path.open("rb") as stream:
        return checkpoint.read(stream, shapes)


def assert_same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def refusal(path: Path, shapes: dict[str, torch.Size]) -> str:
    with pytest.raises(WeightsError) as refused:
        read(path, shapes)
    assert str(path) in str(refused.value)
    return refused.value.code


@every_format
def test_a_checkpoint_gives_the_numbers_that_were_saved(save: Save, tmp_path: Path) -> None:
    state = small_state()
    save(state, tmp_path / "a")
    assert_same(read(tmp_path / "a", shapes_of(state)), state)


@every_format
def test_only_what_is_asked_is_given(save: Save, tmp_path: Path) -> None:
    state = small_state()
    save(state, tmp_path / "a")
    for name, tensor in state.items():
        assert_same(read(tmp_path / "a", {name: tensor.shape}), {name: tensor})


@every_format
def test_what_is_read_stays_when_the_file_goes(save: Save, tmp_path: Path) -> None:
    state = small_state()
    save(state, tmp_path / "a")
    found = read(tmp_path / "a", shapes_of(state))
    (tmp_path / "a").write_bytes(bytes((tmp_path / "a").stat().st_size))
    assert_same(found, state)


@every_format
def test_the_open_file_is_read_even_when_another_takes_its_name(save: Save, tmp_path: Path) -> None:
    state, other = small_state(), {name: -x for name, x in small_state().items()}
    save(state, tmp_path / "a")
    save(other, tmp_path / "b")
    with (tmp_path / "a").open("rb") as stream:
        (tmp_path / "b").replace(tmp_path / "a")
        assert_same(checkpoint.read(stream, shapes_of(state)), state)


@every_format
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_point_becomes_float32(
    save: Save, dtype: torch.dtype, tmp_path: Path
) -> None:
    state = {name: tensor.to(dtype) for name, tensor in small_state().items()}
    save(state, tmp_path / "a")
    found = read(tmp_path / "a", shapes_of(state))
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert_same(found, {name: tensor.float() for name, tensor in state.items()})


@every_format
def test_names_may_begin_with_module(save: Save, tmp_path: Path) -> None:
    state = small_state()
    save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "a")
    assert_same(read(tmp_path / "a", shapes_of(state)), state)


@every_pickle
def test_a_training_checkpoint_wraps_its_state_dict(save: Save, tmp_path: Path) -> None:
    state = small_state()
    momentum = {name: -tensor for name, tensor in state.items()}
    save({"epoch": 90, "optimizer": momentum, "state_dict": state}, tmp_path / "a")  # type: ignore[dict-item]
    assert_same(read(tmp_path / "a", shapes_of(state)), state)


@every_pickle
def test_tensors_may_share_their_storage(save: Save, tmp_path: Path) -> None:
    whole = torch.arange(24.0)
    state = {"a": whole[:6].view(2, 3), "b": whole[6:].view(3, 6).t(), "c": whole}
    save(state, tmp_path / "a")
    assert_same(read(tmp_path / "a", shapes_of(state)), state)
    assert_same(read(tmp_path / "a", {"b": torch.Size((6, 3))}), {"b": state["b"]})


@every_format
def test_a_missing_batch_counter_is_zero(save: Save, tmp_path: Path) -> None:
    save(small_state(), tmp_path / "a")
    found = read(tmp_path / "a", {"bn1.num_batches_tracked": torch.Size(())})
    assert_same(found, {"bn1.num_batches_tracked": torch.tensor(0)})


@every_format
def test_missing_tensors_are_named(save: Save, tmp_path: Path) -> None:
    save(small_state(), tmp_path / "a")
    wanted = {f"features.{n}.weight": torch.Size((1,)) for n in range(1, 9)}
    with pytest.raises(WeightsError, match=r"features\.1\.weight.* and 5 more") as refused:
        read(tmp_path / "a", wanted)
    assert refused.value.code == "weights-keys-missing"


@every_format
def test_a_wrong_shape_is_named_with_the_right_one(save: Save, tmp_path: Path) -> None:
    save(small_state(), tmp_path / "a")
    with pytest.raises(WeightsError, match=r"\[4\] \(should be \[5\]\)") as refused:
        read(tmp_path / "a", {"features.0.bias": torch.Size((5,))})
    assert refused.value.code == "weights-shape"


@every_format
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(save: Save, number: float, tmp_path: Path) -> None:
    state = small_state()
    state["fc.weight"][3, 3] = number
    save(state, tmp_path / "a")
    assert refusal(tmp_path / "a", shapes_of(state)) == "weights-not-finite"
    del state["fc.weight"]
    assert_same(read(tmp_path / "a", shapes_of(state)), state)


class Hostile:
    """What it pickles as runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_hostile_pickle_is_refused_and_runs_nothing(form: str, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    thing = {"fc.weight": torch.zeros(2), "harm": Hostile(f"touch {proof}")}
    path = tmp_path / "a"
    if form == "pickle":
        path.write_bytes(pickle.dumps(thing["harm"], protocol=2))
    else:
        PICKLES[form](thing, path)  # type: ignore[arg-type]
    assert refusal(path, {"fc.weight": torch.Size((2,))}) == "weights-unreadable"
    assert not proof.exists()
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert proof.exists(), "this pickle is not hostile at all"


@every_pickle
@pytest.mark.parametrize("thing", [[1, 2], torch.zeros(3), {"fc.weight": "text"}, None])
def test_a_pickle_of_anything_else_is_refused(save: Save, thing: object, tmp_path: Path) -> None:
    save(thing, tmp_path / "a")  # type: ignore[arg-type]
    assert refusal(tmp_path / "a", {"fc.weight": torch.Size((3,))}) == "weights-unreadable"


@pytest.mark.parametrize("form", SAVES)
@given(data=st.data())
def test_a_truncated_checkpoint_is_refused_wherever_it_ends(
    form: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = small_state()
    path = tmp_path_factory.mktemp("cut") / "a"
    SAVES[form](state, path)
    end = data.draw(st.integers(0, path.stat().st_size - 1))
    os.truncate(path, end)
    assert refusal(path, shapes_of(state)) == "weights-unreadable"


@given(
    head=st.sampled_from([b"", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{", b"\x80\x02"]),
    tail=st.binary(),
)
def test_bytes_that_are_no_checkpoint_are_refused(
    head: bytes, tail: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("noise") / "a"
    path.write_bytes(head + tail)
    assert refusal(path, {"fc.weight": torch.Size((2,))}) == "weights-unreadable"
