"""Metadata: the JSON object that an item carries, checked before it is stored."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from index.errors import CollectionError

LARGEST_BYTES = 65_536
DEEPEST = 32

encoded: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
"""As JSON text, in which the catalog stores it."""


def check(metadata: Mapping[str, Any]) -> str:
    """Return `metadata` as JSON: an object, of UTF-8, finite, not too large.

    Raises CollectionError: `metadata-invalid`.
    """
    if _depth(metadata) > DEEPEST:
        raise CollectionError("metadata-invalid", f"metadata is deeper than {DEEPEST} levels")
    try:
        text = encoded(dict(metadata))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise CollectionError("metadata-invalid", f"metadata is not JSON: {error}") from error
    if size > LARGEST_BYTES:
        raise CollectionError(
            "metadata-invalid", f"metadata has {size} bytes as JSON, {LARGEST_BYTES} are allowed"
        )
    return text


def checked(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return `metadata` as it will be read back. Raises CollectionError: `metadata-invalid`."""
    stored: dict[str, Any] = json.loads(check(metadata))
    return stored


def same(one: Any, other: Any) -> bool:
    """Whether two documents are the same JSON; to Python 1, 1.0 and True are equal.

    >>> same({"a": 1, "b": 2}, {"b": 2, "a": 1}), same({"a": 1}, {"a": True})
    (True, False)
    """
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def merge(target: Any, patch: Any) -> Any:
    """Merge `patch` into `target`, null removing a member (JSON merge patch, RFC 7396 section 2).

    >>> merge({"colour": "red", "size": {"eu": 42, "us": 9}}, {"colour": None, "size": {"us": 10}})
    {'size': {'eu': 42, 'us': 10}}
    """
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def _depth(value: Any) -> int:
    """Levels of nesting, counted no further than one above what is allowed."""
    level, deep = [value], 0
    while deep <= DEEPEST:
        inner = [
            each.values() if isinstance(each, Mapping) else each
            for each in level
            if isinstance(each, Mapping | list | tuple)
        ]
        if not inner:
            break
        level, deep = [each for values in inner for each in values], deep + 1
    return deep
