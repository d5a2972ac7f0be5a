import operator
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, insert, select

from index import Collection, CollectionError, tables
from index.filters import compile_filter
from tests.index.making import new_item, unit

SHOES = {
    "red": {"colour": "red", "price": 3, "box": {"size": 42}, "sale": True},
    "blue": {"colour": "blue", "price": 4.5, "box": {"size": 43}, "sale": False},
    "bare": {},
    "odd": {"colour": None, "price": "3", "box": "none", "sale": 1},
    "list": {"colour": ["red"], "price": {"eq": 3}, "sale": "true"},
}


@pytest.fixture
def shoes(collection: Collection) -> Collection:
    collection.add(
        [new_item(name, n, metadata) for n, (name, metadata) in enumerate(SHOES.items())]
    )
    return collection


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"colour": "red"}, {"red"}),
        ({"colour": {"eq": "red"}}, {"red"}),
        ({"colour": None}, {"odd"}),
        ({"colour": {"in": ["red", "blue", "green"]}}, {"red", "blue"}),
        ({"colour": {"in": ["red", None]}}, {"red", "odd"}),
        ({"price": 3}, {"red"}),
        ({"price": 3.0}, {"red"}),
        ({"price": "3"}, {"odd"}),
        ({"price": {"in": [3, 4.5, "3"]}}, {"red", "blue", "odd"}),
        ({"price": {"gte": 3, "lt": 4.5}}, {"red"}),
        ({"price": {"gt": 3}}, {"blue"}),
        ({"price": {"lte": 4.5}}, {"red", "blue"}),
        ({"price": {"gte": ""}}, {"odd"}),
        ({"sale": True}, {"red"}),
        ({"sale": False}, {"blue"}),
        ({"sale": 1}, {"odd"}),
        ({"sale": {"in": [True, 1]}}, {"red", "odd"}),
        ({"box.size": 42}, {"red"}),
        ({"box.size": {"exists": True}}, {"red", "blue"}),
        ({"colour": {"exists": True}}, {"red", "blue", "odd", "list"}),
        ({"colour": {"exists": False}}, {"bare"}),
        ({"colour": "red", "price": 3}, {"red"}),
        ({"colour": "red", "price": 4}, set()),
        ({"or": [{"colour": "red"}, {"price": 4.5}]}, {"red", "blue"}),
        ({"and": [{"colour": "red"}, {"not": {"price": 3}}]}, set()),
        ({"not": {"colour": "red"}}, {"blue", "bare", "odd", "list"}),
        ({"not": {"price": {"gt": 3}}}, {"red", "bare", "odd", "list"}),
        ({"not": {"or": [{"colour": "red"}, {"colour": "blue"}]}}, {"bare", "odd", "list"}),
        ({"price": {"lt": 10**30}}, {"red", "blue"}),
    ],
)
def test_a_filter_lets_through_what_it_says(
    shoes: Collection, terms: dict[str, Any], expected: set[str]
) -> None:
    assert {item.id for item in shoes.items(filter=terms)} == expected
    assert {one.id for one in shoes.search(unit(9), 10, filter=terms)} == expected


HOSTILE = [
    "' OR 1=1 --",
    "a') OR 1=1; DROP TABLE items; --",
    "$",
    "$.colour",
    "[0]",
    "%",
    "*",
    ":x",
    "?",
    "colour[0]",
    "größe",
    "鞋",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_or_value_is_only_a_name_or_a_value(shoes: Collection, name: str) -> None:
    shoes.add([new_item("hostile", 99, {name: name})])
    if "." not in name:
        assert [item.id for item in shoes.items(filter={name: name})] == ["hostile"]
        assert [item.id for item in shoes.items(filter={name: {"in": [name]}})] == ["hostile"]
    else:
        assert shoes.items(filter={name: name}) == []
    assert shoes.items(filter={"colour": name}) == []
    assert shoes.count() == len(SHOES) + 1


def _nested(levels: int) -> dict[str, Any]:
    terms: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        terms = {"not": terms}
    return terms


@pytest.mark.parametrize(
    ("terms", "place"),
    [
        ({}, "filter:"),
        ([], "filter:"),
        ({"and": []}, "filter.and:"),
        ({"and": {"a": 1}}, "filter.and:"),
        ({"or": [{"a": 1}, {"b": {"near": 2}}]}, "filter.or[1].b.near:"),
        ({"or": [{"a": 1}, 5]}, "filter.or[1]:"),
        ({"not": [{"a": 1}]}, "filter.not:"),
        ({"a": {}}, "filter.a:"),
        ({"a": [1, 2]}, "filter.a:"),
        ({"a": {"in": []}}, "filter.a.in:"),
        ({"a": {"in": "red"}}, "filter.a.in:"),
        ({"a": {"in": [[1]]}}, "filter.a.in:"),
        ({"a": {"in": list(range(1001))}}, "filter.a.in:"),
        ({"a": {"exists": 1}}, "filter.a.exists:"),
        ({"a": {"gt": None}}, "filter.a.gt:"),
        ({"a": {"gt": True}}, "filter.a.gt:"),
        ({"a": {"gt": float("nan")}}, "filter.a.gt:"),
        ({"a": float("inf")}, "filter.a:"),
        ({"a": 10**400}, "filter.a:"),
        ({"a": "\ud800"}, "filter.a:"),
        ({"a": "red\0"}, "filter.a:"),
        ({"a": {"in": ["blue", "\0"]}}, "filter.a.in:"),
        ({"a": {"gt": "r\0d"}}, "filter.a.gt:"),
        ({"": 1}, "filter.:"),
        ({"a..b": 1}, "filter.a..b:"),
        ({'a"b': 1}, 'filter.a"b:'),
        ({"a\\": 1}, "filter.a\\:"),
        ({"a\x00b": 1}, "filter.a"),
        ({"a" * 201: 1}, "filter.aaa"),
        (_nested(8), "filter" + 8 * ".not" + ":"),
        ({"and": [{"a": 1}] * 101}, "filter:"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_naming_the_place(terms: Any, place: str) -> None:
    with pytest.raises(CollectionError) as refused:
        compile_filter(terms)
    assert refused.value.code == "filter-invalid"
    assert str(refused.value).startswith(place)


def test_a_filter_of_the_greatest_depth_and_length_is_accepted(shoes: Collection) -> None:
    assert len(shoes.items(filter=_nested(7))) == len(SHOES)
    assert len(shoes.items(filter={"or": [{"sale": True}] * 99})) == 1


def test_a_million_terms_are_refused_before_they_are_compiled() -> None:
    with pytest.raises(CollectionError):
        compile_filter({"or": [{"or": [{"a": 1}] * 1000}] * 1000})


FIELDS = st.sampled_from(["a", "b", "a.b"])
VALUES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, "", "x", "1"])
ORDERED = st.integers(-2, 2) | st.sampled_from([0.5, "", "x"])
COMPARISONS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
LEAVES = st.one_of(
    st.builds(lambda field, value: {field: value}, FIELDS, VALUES),
    st.builds(lambda field, some: {field: {"in": some}}, FIELDS, st.lists(VALUES, min_size=1)),
    st.builds(lambda field, there: {field: {"exists": there}}, FIELDS, st.booleans()),
    st.builds(
        lambda field, op, value: {field: {op: value}},
        FIELDS,
        st.sampled_from(sorted(COMPARISONS)),
        ORDERED,
    ),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"and": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"or": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=6,
)
METADATA = st.dictionaries(
    st.sampled_from(["a", "b"]),
    VALUES | st.dictionaries(st.just("b"), VALUES) | st.lists(VALUES, max_size=2),
)
ABSENT = object()


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return repr(value)
    return "number" if isinstance(value, int | float) else type(value).__name__


def _at(metadata: Any, field: str) -> Any:
    for name in field.split("."):
        if not isinstance(metadata, dict) or name not in metadata:
            return ABSENT
        metadata = metadata[name]
    return metadata


def _equals(found: Any, value: Any) -> bool:
    return _kind(found) == _kind(value) and found == value


def _holds(terms: dict[str, Any], metadata: Any) -> bool:
    """The same, said plainly."""
    ((name, value),) = terms.items()
    if name == "and":
        return all(_holds(part, metadata) for part in value)
    if name == "or":
        return any(_holds(part, metadata) for part in value)
    if name == "not":
        return not _holds(value, metadata)
    found = _at(metadata, name)
    if not isinstance(value, dict):
        return _equals(found, value)
    ((op, operand),) = value.items()
    if op == "exists":
        return (found is not ABSENT) is operand
    if op == "in":
        return any(_equals(found, one) for one in operand)
    return _kind(found) == _kind(operand) and COMPARISONS[op](found, operand)


@pytest.fixture(scope="module")
def memory() -> Iterator[Engine]:
    """SQLite with nothing but the table of items."""
    engine = create_engine("sqlite://")
    tables.metadata.create_all(engine)
    yield engine
    engine.dispose()


@settings(max_examples=300)
@given(metadata=METADATA, terms=FILTERS)
def test_any_filter_agrees_with_its_plain_meaning(
    memory: Engine, metadata: dict[str, Any], terms: dict[str, Any]
) -> None:
    row = {"collection_id": 1, "id": "a", "sha256": "", "name": "", "source": ""}
    more = {"metadata": metadata, "width": 1, "height": 1, "added_at": datetime.now(UTC)}
    with memory.begin() as connection:
        connection.execute(tables.items.delete())
        connection.execute(insert(tables.items).values(row | more))
        found = connection.execute(select(tables.items.c.key).where(compile_filter(terms))).all()
        assert bool(found) == _holds(terms, metadata)
        refused = select(tables.items.c.key).where(~compile_filter(terms))
        assert bool(connection.execute(refused).all()) != bool(found)
