"""Filters on metadata: JSON in, terms out; and these as an SQL expression, all values bound.

    {"colour": "red"}                          equal (a string, number, true, false or null)
    {"colour": {"in": ["red", "blue"]}}        equal to one of these
    {"price": {"gte": 1, "lt": 5}}             gt, gte, lt, lte, eq: numbers or strings
    {"box.size": {"exists": true}}             a field within a field; present or absent
    {"and": [...]} {"or": [...]} {"not": {}}   several fields in one object are an "and"

A field that is absent, or of another JSON type than the value, does not match; so `not` of it does.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
JOINED = ("and", "or", "not")
COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
NUMBER, TEXT = ("integer", "real"), ("text",)
Clause = ColumnElement[bool]


@dataclass(frozen=True)
class Test:
    """One comparison of the field at a JSON `path`; `operand` is as `OPERATORS[op]` wants it."""

    path: str
    op: str
    operand: Any


@dataclass(frozen=True)
class Joined:
    """An `op` of `and`, `or`, `not` over terms, of which `not` has one."""

    op: str
    parts: tuple["Term", ...]


Term = Test | Joined


def parse(terms: Mapping[str, Any]) -> Term:
    """The terms of a filter. Raises CollectionError: `filter-invalid`, naming the place."""
    count = 0

    def within(terms: Any, place: str, depth: int) -> Term:
        nonlocal count
        if not isinstance(terms, Mapping) or not terms:
            raise _invalid(place, 'an object such as {"colour": "red"} is expected')
        if depth > DEEPEST:
            raise _invalid(place, f"it is deeper than {DEEPEST} levels")
        parts = []
        for name, value in terms.items():
            parts.append(one(name, value, place, depth))
            count += 1
            if count > MOST_TERMS:
                raise _invalid("filter", f"there are more than {MOST_TERMS} terms")
        return _joined("and", parts)

    def one(name: str, value: Any, place: str, depth: int) -> Term:
        place = f"{place}.{_bindable(name, place)[:LONGEST_FIELD]}"
        if name == "not":
            return Joined("not", (within(value, place, depth + 1),))
        if name not in JOINED:
            return _field(name, value, place)
        if not isinstance(value, list) or not value:
            raise _invalid(place, "a list of filters is expected")
        parts = [within(part, f"{place}[{at}]", depth + 1) for at, part in enumerate(value)]
        return _joined(name, parts)

    return within(terms, "filter", 1)


def compile_filter(terms: Mapping[str, Any]) -> Clause:
    """An expression over `items.metadata`, never NULL. Raises as `parse` does."""
    return clause(parse(terms))


def clause(term: Term) -> Clause:
    """A term as an expression over `items.metadata`, never NULL."""
    if isinstance(term, Test):
        return _tested(term)
    parts = [clause(part) for part in term.parts]
    if term.op == "not":
        return not_(*parts)
    return and_(*parts) if term.op == "and" else or_(*parts)


def type_at(path: str) -> ColumnElement[Any]:
    """SQLite's name of the JSON type at `path` of an item's metadata, NULL where it is absent."""
    return func.json_type(METADATA, path)


def value_at(path: str) -> ColumnElement[Any]:
    """The number or text at `path` of an item's metadata."""
    return type_coerce(func.json_extract(METADATA, path), NullType())


def is_plain(value: Any) -> bool:
    """Whether it is a number or a string, which have an order."""
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _joined(op: str, parts: Sequence[Term]) -> Term:
    return parts[0] if len(parts) == 1 else Joined(op, tuple(parts))


def _field(name: str, value: Any, place: str) -> Term:
    path = _path(name, place)
    if not isinstance(value, Mapping):
        return Test(path, "eq", _equalled(value, place))
    if not value:
        raise _invalid(place, f"an operator is expected: {', '.join(OPERATORS)}")
    tests = []
    for op, operand in value.items():
        if op not in OPERATORS:
            raise _invalid(f"{place}.{op}", f"no such operator: use {', '.join(OPERATORS)}")
        tests.append(Test(path, op, OPERATORS[op](operand, f"{place}.{op}")))
    return _joined("and", tests)


def _equalled(value: Any, place: str) -> Any:
    if value is not None and not isinstance(value, bool | int | float | str):
        raise _invalid(
            place, 'a string, number, true, false or null is expected; for several use "in"'
        )
    return _comparable(value, place) if is_plain(value) else value


def _listed(values: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(values, list) or not 1 <= len(values) <= MOST_VALUES:
        raise _invalid(place, f"a list of 1 to {MOST_VALUES} values is expected")
    return tuple(_equalled(value, place) for value in values)


def _ordered(value: Any, place: str) -> Any:
    if not is_plain(value):
        raise _invalid(place, "a number or a string is expected")
    return _comparable(value, place)


def _either(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise _invalid(place, "true or false is expected")
    return value


OPERATORS: Mapping[str, Callable[[Any, str], Any]] = {
    "eq": _equalled,
    "gt": _ordered,
    "gte": _ordered,
    "lt": _ordered,
    "lte": _ordered,
    "in": _listed,
    "exists": _either,
}
"""What checks the operand of each."""


def _tested(test: Test) -> Clause:
    kind = type_at(test.path)
    if test.op == "exists":
        return kind.is_not(None) if test.operand else kind.is_(None)
    if test.op == "in":
        return _one_of(test)
    if not is_plain(test.operand):
        word = {None: "null", True: "true", False: "false"}[test.operand]
        return _sure(kind == word)
    # SQLite orders any number below any string, so the types are compared first.
    types = TEXT if isinstance(test.operand, str) else NUMBER
    bound = bindparam(None, test.operand, NullType(), unique=True)
    return _sure(and_(kind.in_(types), COMPARED[test.op](value_at(test.path), bound)))


def _one_of(test: Test) -> Clause:
    texts = [value for value in test.operand if isinstance(value, str)]
    numbers = [value for value in test.operand if is_plain(value) and not isinstance(value, str)]
    others = [value for value in test.operand if not is_plain(value)]
    clauses = [_tested(Test(test.path, "eq", value)) for value in others]
    for types, some in ((TEXT, texts), (NUMBER, numbers)):
        if some:
            kind, value = type_at(test.path), value_at(test.path)
            clauses.append(_sure(and_(kind.in_(types), value.in_(tables.listed(some)))))
    return or_(*clauses)


def _sure(clause: Clause) -> Clause:
    """NULL, which an absent field gives, is false: `not` must turn it around."""
    return func.coalesce(clause, literal(False))


def _path(field: str, place: str) -> str:
    """`box.size` as SQLite's JSON path `$."box"."size"`."""
    names = field.split(".")
    if len(field) > LONGEST_FIELD or not all(names):
        raise _invalid(place, f"a field is 1 to {LONGEST_FIELD} characters, names joined by dots")
    if not field.isprintable() or '"' in field or "\\" in field:
        raise _invalid(place, "a field has no quotes, backslashes or control characters")
    return "$" + "".join(f'."{name}"' for name in names)


def _comparable(value: Any, place: str) -> Any:
    """A value that SQLite compares as Python does: to SQLite's JSON a text may end at a NUL."""
    if isinstance(value, str) and "\0" in value:
        raise _invalid(place, "it has a NUL, which cannot be compared")
    return _bindable(value, place)


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


def _invalid(place: str, reason: str) -> CollectionError:
    return CollectionError("filter-invalid", f"{place}: {reason}")
