"""Damage to bytes, as a hostile or a broken sender does it. Everything is drawn from one random.Random, so a seed
repeats a run and hypothesis can drive the same code (and shrink what it finds)."""

import random
from collections.abc import Sequence
from typing import Final

LENGTHS: Final = (0, 1, 2, 4, 6, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x3FFF, 0x7FFF, 0xFFFE, 0xFFFF)
LONG_LENGTHS: Final = (*LENGTHS, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)


def pick(rng: random.Random, choices: Sequence[bytes]) -> bytes:
    return choices[rng.randrange(len(choices))]


def mutated(rng: random.Random, data: bytes, words: Sequence[bytes] = (), others: Sequence[bytes] = ()) -> bytes:
    """`data` after one to four changes. words: what means something in this format. others: to splice with."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        _change(rng, changed, words, others)
    return bytes(changed)


def _change(rng: random.Random, data: bytearray, words: Sequence[bytes], others: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    kind = rng.randrange(9)
    if kind == 0 and data:
        data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
    elif kind == 1 and data:
        data[min(at, len(data) - 1)] = rng.randrange(256)
    elif kind in (2, 3):
        _put_number(rng, data, at)
    elif kind == 4:
        del data[at:]
    elif kind == 5:
        del data[at : at + _span(rng)]
    elif kind == 6:
        data[at:at] = data[at : at + _span(rng)]
    elif kind == 7 and words:
        word = pick(rng, words)
        data[at : at + len(word) * rng.randint(0, 1)] = word
    elif kind == 8 and others:
        other = pick(rng, others)
        data[at:] = other[rng.randint(0, len(other)) :]


def _put_number(rng: random.Random, data: bytearray, at: int) -> None:
    """A length that lies: one of the usual suspects, or just beside what is really left."""
    wide = rng.randint(0, 1)
    choices = LONG_LENGTHS if wide else LENGTHS
    value = choices[rng.randrange(len(choices))]
    if rng.randint(0, 1):
        value = max(0, len(data) - at + rng.randint(-12, 4))
    size = 4 if wide else 2
    value = min(value, (1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, "big" if rng.randint(0, 1) else "little")


def _span(rng: random.Random) -> int:
    return 1 << rng.randrange(9)
