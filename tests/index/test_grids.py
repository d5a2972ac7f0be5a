"""Kept grids: as they were to half a step, and refused where they are not what was kept."""

import zlib

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from index import CollectionError
from index.grids import pack, unpack

grids = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(-100, 100, width=32),
)


@given(x=grids)
@settings(max_examples=60, deadline=None)
def test_a_grid_comes_back_to_within_half_a_step_and_zero_exactly(x: np.ndarray) -> None:
    back = unpack(pack({"alexnet/conv5": x}))["alexnet/conv5"]
    assert back.shape == x.shape
    assert back.dtype == np.float32
    for channel, kept in zip(x, back, strict=True):
        step = (max(float(channel.max()), 0) - min(float(channel.min()), 0)) / 255
        # Rounding the zero point can cut off another half step at one end.
        assert np.abs(channel - kept).max() <= step * 1.01 + 1e-30
        assert (kept[channel == 0] == 0).all()


def test_a_grid_that_lies_channels_last_is_kept_as_any_other() -> None:
    x = np.random.default_rng(0).random((2, 4, 5), dtype=np.float32)
    lying = np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert pack({"a/x": lying}) == pack({"a/x": x})


def test_several_layers_are_kept_together() -> None:
    given_ = {"a/x": np.ones((2, 3, 3), np.float32), "a/y": np.zeros((4, 1, 1), np.float32)}
    back = unpack(pack(given_))
    assert back.keys() == given_.keys()
    np.testing.assert_allclose(back["a/x"], 1, rtol=1e-6)
    assert (back["a/y"] == 0).all()


def _packed(tensors: dict[str, np.ndarray]) -> bytes:
    return zlib.compress(safetensors.numpy.save(tensors))


WHOLE = pack({"a/x": np.random.default_rng(1).random((8, 6, 6), np.float32)})
CODES = {"x:codes": np.zeros((2, 3, 3), np.uint8)}
STEPS = {"x:step": np.ones(2, np.float32), "x:zero": np.zeros(2, np.uint8)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not zlib",
        WHOLE[:-10],
        WHOLE[:40] + b"\0" + WHOLE[41:],
        zlib.compress(b"not safetensors"),
        _packed(CODES),
        _packed({**CODES, **STEPS, "x:step": np.full(2, np.nan, np.float32)}),
        _packed({**CODES, **STEPS, "x:step": np.ones(3, np.float32)}),
        _packed({**STEPS, "x:codes": np.zeros((2, 9), np.uint8)}),
        _packed({**STEPS, "x:codes": np.zeros((2, 3, 3), np.float32)}),
    ],
)
def test_what_was_not_packed_is_refused(content: bytes) -> None:
    with pytest.raises(CollectionError) as refused:
        unpack(content)
    assert refused.value.code == "grids-damaged"


def test_what_may_be_packed_can_be_unpacked_and_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = 1 << 16
    monkeypatch.setattr("index.grids.MOST_ACTIVATIONS", most)
    monkeypatch.setattr("index.grids.LARGEST_BYTES", 6 * most + (1 << 16))
    # A channel for each activation needs the most bytes, noise is what deflates least.
    noise = np.random.default_rng(1).random((most, 1, 1), np.float32)
    assert unpack(pack({"a/x": noise}))["a/x"].shape == noise.shape
    with pytest.raises(CollectionError) as refused:
        pack({"a/x": noise, "a/y": noise[:1]})
    assert refused.value.code == "grids-too-large"


def test_what_would_fill_the_memory_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.grids.LARGEST_BYTES", 100)
    with pytest.raises(CollectionError, match="too large"):
        unpack(WHOLE)
