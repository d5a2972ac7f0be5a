import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import CollectionError
from index.metadata import checked, merge

PLAIN = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
DOCUMENTS = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)

# The examples of RFC 7396, appendix A.
RFC = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "merged"), RFC)
def test_merging_gives_what_the_rfc_gives(target: Any, patch: Any, merged: Any) -> None:
    assert merge(target, patch) == merged


@given(DOCUMENTS, DOCUMENTS)
def test_merging_twice_is_merging_once(target: Any, patch: Any) -> None:
    once = merge(target, patch)
    assert merge(once, patch) == once


def test_merging_leaves_the_target_as_it_was() -> None:
    target = {"size": {"eu": 42}}
    merge(target, {"size": {"eu": 43}})
    assert target == {"size": {"eu": 42}}


def test_checked_metadata_is_what_reading_gives_back() -> None:
    assert checked({"tags": ("a", "b"), "n": 1.5}) == {"tags": ["a", "b"], "n": 1.5}


def _deep(levels: int) -> Any:
    return json.loads('{"a":' * levels + "1" + "}" * levels)


@pytest.mark.parametrize(
    "metadata",
    [
        {"price": float("nan")},
        {"price": float("inf")},
        {"when": object()},
        {"text": "\ud800"},
        {"text": "x" * 70_000},
        _deep(33),
    ],
)
def test_what_is_not_sound_json_is_refused(metadata: Any) -> None:
    with pytest.raises(CollectionError) as refused:
        checked(metadata)
    assert refused.value.code == "metadata-invalid"


def test_metadata_of_the_greatest_depth_is_accepted() -> None:
    assert checked(_deep(32)) == _deep(32)
