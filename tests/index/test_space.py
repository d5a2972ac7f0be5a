from dataclasses import replace

import pytest

from index import CollectionError
from index.space import check_name, check_same, check_spaces
from tests.index.making import HIGH, LOW


@pytest.mark.parametrize("name", ["shoes", "0", "a-b_c", "a" * 64])
def test_a_name_of_letters_digits_and_dashes_is_accepted(name: str) -> None:
    check_name(name, "collection")
    check_name(name, "space")


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "a b", "a/b", "..", "a" * 65, "ä", "a\n"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(CollectionError) as refused:
        check_name(name, "collection")
    assert refused.value.code == "collection-name-invalid"
    with pytest.raises(CollectionError) as refused:
        check_name(name, "space")
    assert refused.value.code == "space-name-invalid"


@pytest.mark.parametrize(
    "spaces",
    [
        [],
        [HIGH, HIGH],
        [replace(HIGH, dim=0)],
        [replace(HIGH, dim=1_000_000)],
        [replace(HIGH, dtype="int8")],  # type: ignore[arg-type]
    ],
)
def test_spaces_that_no_collection_can_have_are_refused(spaces: list) -> None:
    with pytest.raises(CollectionError) as refused:
        check_spaces(spaces)
    assert refused.value.code == "space-invalid"


def test_another_fingerprint_is_refused_and_both_are_named() -> None:
    with pytest.raises(CollectionError) as refused:
        check_same({"high": HIGH}, [replace(HIGH, fingerprint="0" * 64)], "shoes")
    assert refused.value.code == "collection-fingerprint-differs"
    assert HIGH.fingerprint in str(refused.value)
    assert "0" * 64 in str(refused.value)


def test_a_space_that_a_collection_does_not_have_is_refused() -> None:
    with pytest.raises(CollectionError) as refused:
        check_same({"high": HIGH}, [LOW], "shoes")
    assert refused.value.code == "collection-fingerprint-differs"
