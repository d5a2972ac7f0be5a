"""Filters answered from columns: the same as SQL answers, whatever was written in between."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Catalog, Collection, columns
from tests.index.making import HIGH, new_item, unit
from tests.index.test_filters import FILTERS, METADATA


def _searched(collection: Collection, terms: dict[str, Any]) -> set[str]:
    return {one.id for one in collection.search(unit(9), 1000, filter=terms)}


def _by_sql(collection: Collection, terms: dict[str, Any]) -> set[str]:
    return {item.id for item in collection.items(filter=terms, limit=1000)}


WRITES = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 6), st.integers(0, 3), METADATA),
        st.tuples(st.just("patch"), st.integers(0, 6), METADATA),
        st.tuples(st.just("remove"), st.integers(0, 6)),
        st.tuples(st.just("compact")),
    ),
    max_size=6,
)


@settings(max_examples=10, deadline=None)
@given(rounds=st.lists(st.tuples(WRITES, FILTERS), min_size=1, max_size=4))
def test_columns_answer_as_sql_does_after_any_writes(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[Any]
) -> None:
    folder: Path = tmp_path_factory.mktemp("columns")
    with Catalog.open(folder) as catalog, Catalog.open(folder) as other:
        written = catalog.create_collection("shoes", [HIGH], {})
        read = other.collection("shoes")
        for writes, terms in rounds:
            for kind, *operands in writes:
                _write(written, kind, operands)
            expected = _by_sql(written, terms)
            assert _searched(written, terms) == expected
            assert _searched(read, terms) == expected


def _write(collection: Collection, kind: str, operands: list[Any]) -> None:
    if kind == "add":
        number, seed, metadata = operands
        collection.add([new_item(f"i{number}", seed, metadata)])
    elif kind == "remove":
        collection.remove([f"i{operands[0]}"])
    elif kind == "compact":
        collection.compact()
    elif collection.known([f"i{operands[0]}"]):
        collection.patch(f"i{operands[0]}", operands[1])


LARGE = 2**53


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"n": LARGE + 1}, {"odd"}),
        ({"n": {"gt": LARGE}}, {"odd"}),
        ({"n": {"in": [LARGE, 5]}}, {"even", "small"}),
        ({"n": {"lt": LARGE + 1}}, {"even", "small"}),
    ],
)
def test_integers_that_no_float_can_hold_are_compared_as_they_are(
    collection: Collection, terms: dict[str, Any], expected: set[str]
) -> None:
    numbers = {"odd": LARGE + 1, "even": LARGE, "small": 5}
    collection.add(
        [new_item(name, n, {"n": number}) for n, (name, number) in enumerate(numbers.items())]
    )
    assert _searched(collection, terms) == expected


def test_true_is_not_one_also_when_one_was_asked_for_before(collection: Collection) -> None:
    collection.add([new_item("one", 1, {"n": 1}), new_item("true", 2, {"n": True})])
    for _ in range(2):
        assert _searched(collection, {"n": 1}) == {"one"}
        assert _searched(collection, {"n": True}) == {"true"}


def test_more_fields_than_are_kept_and_more_words_than_fit_change_no_answer(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "MOST_COLUMNS", 2)
    monkeypatch.setattr(columns, "MOST_WORDS", 3)
    collection.add(
        [new_item(f"i{n}", n, {"a": n, "b": n % 2, "c": n % 3, "word": str(n)}) for n in range(6)]
    )
    for _ in range(2):
        for field, value, expected in (
            ("a", 4, {"i4"}),
            ("b", 1, {"i1", "i3", "i5"}),
            ("c", 2, {"i2", "i5"}),
            ("word", "4", {"i4"}),
        ):
            assert _searched(collection, {field: value}) == expected


def test_a_column_holds_no_more_bytes_of_words_than_it_may(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "MOST_WORD_BYTES", 1_000)
    texts = {f"i{n}": f"{n}{'é' * 100}" for n in range(8)}
    added = [new_item(item_id, n, {"t": texts[item_id]}) for n, item_id in enumerate(texts)]
    collection.add(added[:4])
    for _ in range(2):
        assert _searched(collection, {"t": texts["i3"]}) == {"i3"}
        held = collection._searching.columns
        assert sum(column.word_bytes for column in held._columns.values()) <= 1_000
        collection.add(added)
    assert held._inexact == {'$."t"'}


def test_a_field_that_no_item_has_takes_no_room(collection: Collection) -> None:
    collection.add([new_item("a", 1, {"here": 1})])
    assert _searched(collection, {"nowhere": 1}) == set()
    assert _searched(collection, {"here": 1}) == {"a"}
    assert list(collection._searching.columns._columns) == ['$."here"']
    collection.patch("a", {"nowhere": 1})
    assert _searched(collection, {"nowhere": 1}) == {"a"}


def test_columns_are_read_in_parts(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "READ_AT_ONCE", 3)
    for count in (7, 14):
        collection.add([new_item(f"i{n}", n, {"n": n}) for n in range(count)])
        assert _searched(collection, {"n": {"gte": 5}}) == {f"i{n}" for n in range(5, count)}
