from collections.abc import Callable

import numpy as np
import pytest

from index import Catalog, CollectionError
from index import descriptors as stored_descriptors
from index.descriptors import check, from_bytes, to_bytes
from index.item import Vector
from tests.index.making import HIGH, LOW, new_item, unit, units

SPACES = {"high": HIGH}


def test_float32_descriptors_come_back_bit_for_bit() -> None:
    vectors = units(1, 5, LOW.dim)
    back = from_bytes([bytes(blob) for blob in to_bytes(vectors, LOW)], LOW)
    assert back.dtype == np.float32
    assert np.array_equal(back, vectors)


def test_float16_descriptors_take_half_the_bytes_and_keep_their_direction() -> None:
    vectors = units(1, 50)
    blobs = [bytes(blob) for blob in to_bytes(vectors, HIGH)]
    assert {len(blob) for blob in blobs} == {2 * HIGH.dim}
    back = from_bytes(blobs, HIGH).astype(np.float32)
    cosines = (back * vectors).sum(axis=1) / np.linalg.norm(back, axis=1)
    assert cosines.min() > 0.999999


def _with(place: int, value: float) -> Vector:
    vector = unit(1).copy()
    vector[place] = value
    return vector


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: {},
        lambda: {"high": unit(1), "low": unit(1)},
        lambda: {"low": unit(1)},
        lambda: {"high": unit(1)[:-1]},
        lambda: {"high": unit(1)[None]},
        lambda: {"high": _with(3, np.nan)},
        lambda: {"high": _with(3, np.inf)},
        lambda: {"high": 2 * unit(1)},
    ],
)
def test_what_is_not_one_finite_unit_vector_per_space_is_refused(
    spoil: Callable[[], dict[str, Vector]],
) -> None:
    with pytest.raises(CollectionError) as refused:
        check("item 7", spoil(), SPACES)
    assert refused.value.code == "descriptor-invalid"


def test_a_descriptor_without_a_direction_has_a_code_of_its_own() -> None:
    with pytest.raises(CollectionError, match="space 'high': the descriptor is zero") as refused:
        check("item 7", {"high": 0 * unit(1)}, SPACES)
    assert refused.value.code == "descriptor-zero"
    assert "item 7" in str(refused.value)


def test_a_unit_vector_of_each_space_is_accepted() -> None:
    check("item 7", {"high": unit(1), "low": unit(2, LOW.dim)}, {"high": HIGH, "low": LOW})


def test_reading_in_chunks_reads_everything_once_in_the_order_of_keys(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = catalog.create_collection("shoes", [HIGH], {})
    collection.add([new_item(f"i{n}", n) for n in range(20)])
    monkeypatch.setattr(stored_descriptors, "BYTES_AT_ONCE", 4 * HIGH.dim * 7)
    with catalog.database.reading() as connection:
        chunks = list(stored_descriptors.after(connection, 1, HIGH, key=3))
    assert [keys.size for keys, _ in chunks] == [7, 7, 3]
    assert np.concatenate([keys for keys, _ in chunks]).tolist() == list(range(4, 21))
