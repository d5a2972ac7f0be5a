"""A pickle's plain containers and numpy arrays, read without unpickling.

`pickletools` only splits a pickle into opcodes. What they build is built here, from a table: lists,
dicts, tuples, text, bytes, numbers, arrays. No class is ever looked up, imported or called, so that
there is nothing that a hostile file could name (docs/decisions/0008).
"""

import io
import math
import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from index.errors import EvaluationError

MOST_OPCODES = 5_000_000
"""Half a minute of work; revisited Oxford's file has some ten thousand."""

MOST_SIDES, LONGEST_SIDE = 32, 2**53
"""Of an array; the product of more and longer ones would take for ever."""

_DTYPE = re.compile(r"[<>|=]?(?P<kind>[biufSU])\d{1,4}|[|=]?(?P<object>O)8?")

_ARGUMENT = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
"""Opcodes that push their argument."""

_CONSTANT: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: Mapping[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
_SHORT_TUPLE: Mapping[str, int] = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = frozenset({"PROTO", "FRAME", "STOP"})

_GLOBALS: Mapping[str, str] = {
    "numpy.core.multiarray _reconstruct": "reconstruct",
    "numpy._core.multiarray _reconstruct": "reconstruct",
    "numpy.core.multiarray scalar": "scalar",
    "numpy._core.multiarray scalar": "scalar",
    "numpy.core.numeric _frombuffer": "frombuffer",
    "numpy._core.numeric _frombuffer": "frombuffer",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
    "__builtin__ bytes": "no bytes",
}
"""All that a pickle may name, and what it is here: a word, not the thing itself."""


@dataclass(frozen=True)
class _Named:
    word: str


@dataclass
class _Unbuilt:
    """An array or dtype between REDUCE and BUILD; `memo` is where it has been put meanwhile."""

    form: str | None = None
    memo: list[int] = field(default_factory=list)


def load(name: str, content: bytes) -> Any:
    """What a pickle of plain containers and numpy arrays holds.

    Raises EvaluationError: `truth-file-forbidden` where it names anything else,
    `truth-file-too-large`, `truth-file-broken`.
    """
    machine = _Machine(name)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(content))):
            if count >= MOST_OPCODES:
                raise EvaluationError(
                    "truth-file-too-large", f"{name} has more than {MOST_OPCODES:,} opcodes"
                )
            machine.step(opcode.name, argument)
        return machine.stack.pop()
    except (ValueError, TypeError, LookupError, OverflowError, struct.error) as error:
        raise EvaluationError("truth-file-broken", f"{name} is no whole pickle: {error}") from error


class _Machine:
    """The stack and memo of `pickle`, over values that cannot do anything."""

    def __init__(self, name: str) -> None:
        self.stack: list[Any] = []
        self._name = name
        self._below: list[list[Any]] = []  # what lies under each mark
        self._memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Do what one opcode says."""
        if opcode in _ARGUMENT:
            self.stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
        elif opcode in _CONSTANT:
            self.stack.append(_CONSTANT[opcode])
        elif opcode in _EMPTY:
            self.stack.append(_EMPTY[opcode]())
        elif opcode in _SHORT_TUPLE:
            self.stack.append(self._pop(_SHORT_TUPLE[opcode]))
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in _NOTHING:
            raise self._forbidden(f"the opcode {opcode}")

    def _pop(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise ValueError("its stack is empty too early")
        taken = tuple(self.stack[-count:])
        del self.stack[-count:]
        return taken

    def _mark(self, _: Any) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        pushed, self.stack = self.stack, self._below.pop()
        return pushed

    def _list(self, _: Any) -> None:
        pushed = self._marked()
        self.stack.append(pushed)

    def _tuple(self, _: Any) -> None:
        pushed = self._marked()
        self.stack.append(tuple(pushed))

    def _dict(self, _: Any) -> None:
        pushed = self._marked()
        self.stack.append({})
        self._set(pushed)

    def _append(self, _: Any) -> None:
        self._extend(list(self._pop(1)))

    def _appends(self, _: Any) -> None:
        self._extend(self._marked())

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("it appends to what is no list")
        self.stack[-1].extend(values)

    def _set_item(self, _: Any) -> None:
        self._set(list(self._pop(2)))

    def _set_items(self, _: Any) -> None:
        self._set(self._marked())

    def _set(self, pairs: list[Any]) -> None:
        # Hashing nested tuples can take for ever, so keys are plain.
        if type(self.stack[-1]) is not dict or not all(
            isinstance(key, str | int | bytes) for key in pairs[::2]
        ):
            raise ValueError("it sets what is no item of a dict")
        self.stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def _drop(self, _: Any) -> None:
        self._pop(1)

    def _drop_marked(self, _: Any) -> None:
        self._marked()

    def _duplicate(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _put(self, at: Any) -> None:
        at = len(self._memo) if at is None else at
        self._memo[at] = self.stack[-1]
        if isinstance(self.stack[-1], _Unbuilt):
            self.stack[-1].memo.append(at)

    def _get(self, at: Any) -> None:
        self.stack.append(self._memo[at])

    def _name_global(self, argument: Any) -> None:
        self.stack.append(self._named(argument))

    def _name_from_stack(self, _: Any) -> None:
        module, attribute = self._pop(2)
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise TypeError("it names what is no text")
        self.stack.append(self._named(f"{module} {attribute}"))

    def _named(self, what: str) -> _Named:
        if what not in _GLOBALS:
            raise self._forbidden(what.replace(" ", "."))
        return _Named(_GLOBALS[what])

    def _reduce(self, _: Any) -> None:
        called, arguments = self._pop(2)
        if not isinstance(called, _Named) or type(arguments) is not tuple:
            raise ValueError("it calls what cannot be called")
        self.stack.append(_CALLS[called.word](*arguments))

    def _build(self, _: Any) -> None:
        unbuilt, state = self._pop(2)
        if not isinstance(unbuilt, _Unbuilt) or type(state) is not tuple:
            raise ValueError("it builds what is no array")
        built = _array(*state) if unbuilt.form is None else _dtype(unbuilt.form, *state)
        for at in unbuilt.memo:
            self._memo[at] = built
        self.stack.append(built)

    def _forbidden(self, what: str) -> EvaluationError:
        return EvaluationError(
            "truth-file-forbidden",
            f"{self._name} asks for {what[:200]!r}; only lists, dicts, text, numbers and numpy "
            "arrays are read: do not open this file with pickle",
        )


_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "LIST": _Machine._list,
    "TUPLE": _Machine._tuple,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "POP": _Machine._drop,
    "POP_MARK": _Machine._drop_marked,
    "DUP": _Machine._duplicate,
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._put,
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "GLOBAL": _Machine._name_global,
    "STACK_GLOBAL": _Machine._name_from_stack,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
}


def _reconstruct(kind: Any, _shape: Any, _typecode: Any) -> _Unbuilt:
    if kind != _Named("ndarray"):
        raise ValueError("it reconstructs what is no array")
    return _Unbuilt()


def _declared(form: Any, _align: Any = False, _copy: Any = True) -> _Unbuilt:
    if not isinstance(form, str):  # and is not shown: nested tuples can take for ever
        raise TypeError("a dtype has no name")
    if not _DTYPE.fullmatch(form):
        raise ValueError(f"arrays of {form[:40]!r} are not read")
    return _Unbuilt(form)


def _dtype(form: str, _version: Any, order: Any, *rest: Any) -> np.dtype[Any]:
    """`rest` says what structured types are made of, and has to say nothing."""
    if order not in ("<", ">", "|", "=") or any(part is not None for part in rest[:3]):
        raise ValueError(f"arrays of {form!r} in this form are not read")
    return np.dtype(form).newbyteorder(order)


def _array(_version: Any, shape: Any, dtype: Any, fortran: Any, content: Any) -> Any:
    if isinstance(dtype, np.dtype) and dtype.kind == "O" and type(content) is list:
        return content
    return _from_bytes(content, dtype, shape, "F" if fortran else "C")


def _from_bytes(content: Any, dtype: Any, shape: Any, order: Any = "C") -> Any:
    """The array whose bytes these are; it takes no more memory than they do."""
    if isinstance(content, str):
        content = content.encode("latin-1")
    if not isinstance(content, bytes) or not isinstance(dtype, np.dtype) or dtype.kind == "O":
        raise ValueError("an array has no content")
    if (
        type(shape) is not tuple
        or len(shape) > MOST_SIDES
        or not all(type(side) is int and 0 <= side <= LONGEST_SIDE for side in shape)
    ):
        raise ValueError("an array has no shape")
    if math.prod(shape) * dtype.itemsize != len(content) or order not in ("C", "F"):
        raise ValueError(f"an array of the shape {shape} has {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    return _from_bytes(content, dtype, ()).item()


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("it encodes what is no bytes")
    return text.encode("latin-1")


_CALLS: Mapping[str, Callable[..., Any]] = {
    "reconstruct": _reconstruct,
    "frombuffer": _from_bytes,
    "dtype": _declared,
    "scalar": _scalar,
    "encode": _encode,
    "no bytes": lambda: b"",
}
