import pytest

from index import CollectionError, check_id


@pytest.mark.parametrize("item_id", ["a", "x" * 200, "Schuh 7", "鞋", "a.b:c#1", "%2F", ".."])
def test_printable_ids_are_accepted(item_id: str) -> None:
    check_id(item_id)


@pytest.mark.parametrize(
    "item_id", ["", "x" * 201, " a", "a ", "a/b", "a\nb", "a\x00b", "\u2028", "\ud800", "a\u202eb"]
)
def test_ids_that_cannot_stand_in_an_address_are_refused(item_id: str) -> None:
    with pytest.raises(CollectionError) as refused:
        check_id(item_id)
    assert refused.value.code == "item-id-invalid"
    str(refused.value).encode()
