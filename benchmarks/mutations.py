"""Files made hostile: every mutation follows from its number, so that any can be made again."""

import random
from collections.abc import Callable, Sequence

INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 2**32 - 1)
"""Lengths at which fields overflow, change their sign or run out."""

LONGEST = 256 * 1024

Mutation = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def mutated(seeds: Sequence[bytes], number: int, key: str = "") -> bytes:
    """The `number`-th mutant of some files; its first mutants are the seeds as they are.

    >>> mutated([b"seed", b"other"], 1), mutated([b"seed"], 9) == mutated([b"seed"], 9)
    (b'other', True)
    """
    if number < len(seeds):
        return seeds[number]
    rng = random.Random(f"{key}:{number}")
    content = bytearray(rng.choice(seeds))
    # One change gets deep into a decoder, several reach states that one does not.
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        rng.choice(MUTATIONS)(rng, content, seeds)
    return bytes(content[:LONGEST])


def _place(rng: random.Random, content: bytearray) -> int:
    """Where to change something: headers are short and decide most."""
    if rng.random() < 0.4:
        return rng.randrange(min(len(content), 96) + 1)
    return rng.randrange(len(content) + 1)


def _span(rng: random.Random, content: bytearray) -> slice:
    start = _place(rng, content)
    return slice(start, start + min(int(2 ** rng.uniform(0, 12)), len(content) - start))


def _flip_bits(rng: random.Random, content: bytearray, _seeds: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = _place(rng, content)
        content[at : at + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in content[at : at + 1])


def _overwrite(rng: random.Random, content: bytearray, _seeds: Sequence[bytes]) -> None:
    span = _span(rng, content)
    filling = rng.choice((b"\0", b"\xff", rng.randbytes(1), b""))
    length = span.stop - span.start
    content[span] = filling * length if filling else rng.randbytes(length)


def _state_length(rng: random.Random, content: bytearray, _seeds: Sequence[bytes]) -> None:
    """Change a number of 1 to 8 bytes, in either order of bytes: a length, a count, a type."""
    at, size = _place(rng, content), rng.choice((1, 2, 2, 4, 4, 4, 8))
    order = rng.choice(("little", "big"))
    field = content[at : at + size]
    if len(field) < size:
        return
    said = int.from_bytes(field, order)  # type: ignore[arg-type]
    value = rng.choice((rng.choice(INTERESTING), said + rng.randint(-4, 4), said * 2, said // 2))
    content[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, order)  # type: ignore[arg-type]


def _truncate(rng: random.Random, content: bytearray, _seeds: Sequence[bytes]) -> None:
    del content[_place(rng, content) :]


def _remove(rng: random.Random, content: bytearray, _seeds: Sequence[bytes]) -> None:
    del content[_span(rng, content)]


def _repeat(rng: random.Random, content: bytearray, _seeds: Sequence[bytes]) -> None:
    """Put a part of the file in again, some times over: chunks, segments, directories."""
    span = _span(rng, content)
    part = bytes(content[span]) * rng.choice((1, 1, 2, 16))
    at = rng.choice((span.start, span.stop, _place(rng, content)))
    content[at:at] = part


def _splice(rng: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    """Go on as another file does from some place."""
    other = bytearray(rng.choice(seeds))
    content[_place(rng, content) :] = other[_place(rng, other) :]


def _graft(rng: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    """Overwrite a part with a part of another file."""
    other = bytearray(rng.choice(seeds))
    part = other[_span(rng, other)]
    at = _place(rng, content)
    content[at : at + len(part)] = part


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits,
    _flip_bits,
    _overwrite,
    _state_length,
    _state_length,
    _state_length,
    _truncate,
    _remove,
    _repeat,
    _splice,
    _graft,
)
