"""Filters on metadata: JSON in, an SQL expression out, every value and name bound.

    {"colour": "red"}                          equal (a string, number, true, false or null)
    {"colour": {"in": ["red", "blue"]}}        equal to one of these
    {"price": {"gte": 1, "lt": 5}}             gt, gte, lt, lte, eq: numbers or strings
    {"box.size": {"exists": true}}             a field within a field; present or absent
    {"and": [...]} {"or": [...]} {"not": {}}   several fields in one object are an "and"

A field that is absent, or of another JSON type than the value, does not match; so `not` of it does.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, literal, not_, or_, type_coerce
from sqlalchemy.types import NullType

from index import tables
from index.errors import CollectionError

DEEPEST = 8
MOST_TERMS = 100
MOST_VALUES = 1_000
LONGEST_FIELD = 200
LONGEST_VALUE = 10_000

METADATA = tables.items.c.metadata
COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
OPERATORS = (*COMPARED, "in", "exists")
NUMBER, TEXT = ("integer", "real"), ("text",)
BY_TYPE = {bool: "true or false", int: "a number", float: "a number", str: "a string"}

Clause = ColumnElement[bool]


def compile_filter(terms: Mapping[str, Any]) -> Clause:
    """An expression over `items.metadata`, never NULL.

    Raises CollectionError: `filter-invalid`, naming the place.
    """
    count = 0

    def counted(clauses: Iterator[Clause]) -> list[Clause]:
        nonlocal count
        found = []
        for clause in clauses:
            count += 1
            if count > MOST_TERMS:
                raise _invalid("filter", f"there are more than {MOST_TERMS} terms")
            found.append(clause)
        return found

    def within(terms: Any, place: str, depth: int) -> Clause:
        if not isinstance(terms, Mapping) or not terms:
            raise _invalid(place, 'an object such as {"colour": "red"} is expected')
        if depth > DEEPEST:
            raise _invalid(place, f"it is deeper than {DEEPEST} levels")
        return and_(*counted(one(name, value, place, depth) for name, value in terms.items()))

    def one(name: str, value: Any, place: str, depth: int) -> Clause:
        place = f"{place}.{_bindable(name, place)[:LONGEST_FIELD]}"
        if name == "not":
            return not_(within(value, place, depth + 1))
        if name not in ("and", "or"):
            return _field(name, value, place)
        if not isinstance(value, list) or not value:
            raise _invalid(place, "a list of filters is expected")
        parts = [within(part, f"{place}[{at}]", depth + 1) for at, part in enumerate(value)]
        return and_(*parts) if name == "and" else or_(*parts)

    return within(terms, "filter", 1)


def _field(name: str, value: Any, place: str) -> Clause:
    path = _path(name, place)
    if not isinstance(value, Mapping):
        return _equal(path, value, place)
    if not value:
        raise _invalid(place, f"an operator is expected: {', '.join(OPERATORS)}")
    return and_(*(_operator(path, op, operand, f"{place}.{op}") for op, operand in value.items()))


def _operator(path: str, op: str, operand: Any, place: str) -> Clause:
    if op == "eq":
        return _equal(path, operand, place)
    if op == "in":
        return _one_of(path, operand, place)
    if op == "exists":
        if not isinstance(operand, bool):
            raise _invalid(place, "true or false is expected")
        return _type(path).is_not(None) if operand else _type(path).is_(None)
    if op not in COMPARED:
        raise _invalid(place, f"no such operator: use {', '.join(OPERATORS)}")
    if isinstance(operand, bool) or not isinstance(operand, int | float | str):
        raise _invalid(place, "a number or a string is expected")
    return _compared(path, op, operand, place)


def _equal(path: str, value: Any, place: str) -> Clause:
    if value is None or isinstance(value, bool):
        word = {None: "null", True: "true", False: "false"}[value]
        return _sure(_type(path) == word)
    if isinstance(value, int | float | str):
        return _compared(path, "eq", value, place)
    raise _invalid(place, 'a string, number, true, false or null is expected; for several use "in"')


def _one_of(path: str, values: Any, place: str) -> Clause:
    if not isinstance(values, list) or not 1 <= len(values) <= MOST_VALUES:
        raise _invalid(place, f"a list of 1 to {MOST_VALUES} values is expected")
    texts = [_bindable(value, place) for value in values if isinstance(value, str)]
    numbers = [
        _bindable(value, place)
        for value in values
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    others = [value for value in values if not _plain(value)]
    clauses = [_equal(path, value, place) for value in others]
    for types, some in ((TEXT, texts), (NUMBER, numbers)):
        if some:
            clauses.append(
                _sure(and_(_type(path).in_(types), _value(path).in_(tables.listed(some))))
            )
    return or_(*clauses)


def _compared(path: str, op: str, value: float | str, place: str) -> Clause:
    # SQLite orders any number below any string, so the types are compared first.
    types = TEXT if isinstance(value, str) else NUMBER
    bound = bindparam(None, _bindable(value, place), NullType(), unique=True)
    return _sure(and_(_type(path).in_(types), COMPARED[op](_value(path), bound)))


def _sure(clause: Clause) -> Clause:
    """NULL, which an absent field gives, is false: `not` must turn it around."""
    return func.coalesce(clause, literal(False))


def _type(path: str) -> ColumnElement[Any]:
    return func.json_type(METADATA, path)


def _value(path: str) -> ColumnElement[Any]:
    return type_coerce(func.json_extract(METADATA, path), NullType())


def _path(field: str, place: str) -> str:
    """`box.size` as SQLite's JSON path `$."box"."size"`."""
    names = field.split(".")
    if len(field) > LONGEST_FIELD or not all(names):
        raise _invalid(place, f"a field is 1 to {LONGEST_FIELD} characters, names joined by dots")
    if not field.isprintable() or '"' in field or "\\" in field:
        raise _invalid(place, "a field has no quotes, backslashes or control characters")
    return "$" + "".join(f'."{name}"' for name in names)


def _bindable(value: Any, place: str) -> Any:
    """A value as SQLite can hold it: UTF-8, finite, an integer of 64 bits."""
    try:
        if isinstance(value, str):
            value.encode()
            if len(value) > LONGEST_VALUE:
                raise _invalid(place, f"it is longer than {LONGEST_VALUE} characters")
            return value
        if not math.isfinite(value):
            raise _invalid(place, "a finite number is expected")
        return value if isinstance(value, float) or -(2**63) <= value < 2**63 else float(value)
    except (UnicodeEncodeError, OverflowError) as error:
        raise _invalid(place, str(error)) from error


def _plain(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _invalid(place: str, reason: str) -> CollectionError:
    return CollectionError("filter-invalid", f"{place}: {reason}")
