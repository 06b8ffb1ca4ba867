"""Data sets made at random: whole ones, of which it is known where each top-level element ends."""

import random
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from tests.support.encoded import CT, element, raw_header

EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
JPEG_2000: Final = "1.2.840.10008.1.2.4.90"
SYNTAXES: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED, JPEG_2000)

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA, PADDING, UNDEFINED = 0x7FE00010, 0xFFFCFFFC, 0xFFFFFFFF
UIDS: Final = {0x00080016: CT, 0x00080018: "1.2.3.4", 0x0020000D: "1.2.3.1", 0x0020000E: "1.2.3.2"}
TEXTS: Final = {0x00080020: "DA", 0x00080030: "TM", 0x00080060: "CS", 0x00080070: "LO", 0x00100010: "PN"}
OTHERS: Final = (
    (0x00080008, "CS"),
    (0x00181012, "DA"),
    (0x00280010, "US"),
    (0x00283006, "OW"),
    (0x00290010, "LO"),
    (0x00291010, "UN"),
    (0x00400275, "UT"),
    (0x00420011, "OB"),
)
SEQUENCES: Final = (0x00082218, 0x00081140, 0x00400275, 0x00540016)  # SQ in the dictionary: implicit VR knows them
WORDS: Final = (
    *(vr.encode() for vr in ("SQ", "UN", "OB", "OW", "UT", "US", "UI", "PN", "ZZ", "ox")),
    *(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in (ITEM, ITEM_END, SEQUENCE_END, PIXEL_DATA, *UIDS)),
    *(struct.pack("<HHL", tag >> 16, tag & 0xFFFF, 0) for tag in (ITEM, ITEM_END, SEQUENCE_END)),
    struct.pack("<HHL", ITEM >> 16, ITEM & 0xFFFF, UNDEFINED),
    struct.pack("<HH2sxxL", 0x0008, 0x2218, b"SQ", UNDEFINED),
    struct.pack("<HH2sxxL", 0x0009, 0x1010, b"UN", UNDEFINED),
    struct.pack(">HH2sxxL", 0x0008, 0x2218, b"SQ", UNDEFINED),
    b"\xff\xff\xff\xff",
)


@dataclass(frozen=True)
class Made:
    """ends: every length at which a top-level element ends, 0 and the whole included; of the bytes before deflation."""

    data: bytes
    syntax: str
    ends: tuple[int, ...]


def make(rng: random.Random, syntax: str) -> Made:
    """A whole data set with the identities of an image, elements in ascending order."""
    return Making(rng, syntax).data_set()


class Making:
    def __init__(self, rng: random.Random, syntax: str) -> None:
        self.rng = rng
        self.syntax = syntax
        self.big = syntax == EXPLICIT_BIG
        self.explicit = syntax != IMPLICIT_LITTLE

    def data_set(self) -> Made:
        parts = {tag: self.element(tag, "UI", uid) for tag, uid in UIDS.items()}
        for tag, vr in TEXTS.items():
            if self.rng.randint(0, 1):
                parts[tag] = self.element(tag, vr, "A" * self.rng.randint(0, 12))
        for _ in range(self.rng.randint(0, 5)):
            tag, part = self.other(0)
            parts[tag] = part
        if self.rng.randint(0, 1):
            parts[PIXEL_DATA] = self.pixel_data()
        if not self.rng.randint(0, 7):
            parts[PADDING] = self.element(PADDING, "OB", bytes(8))
        data, ends = b"", [0]
        for tag in sorted(parts):
            data += parts[tag]
            ends.append(len(data))
        return Made(deflate(data) if self.syntax == DEFLATED else data, self.syntax, tuple(ends))

    def element(self, tag: int, vr: str, value: bytes | str) -> bytes:
        return element(tag, vr, value, self.explicit, self.big)

    def other(self, depth: int) -> tuple[int, bytes]:
        if depth < 4 and self.rng.randrange(3) == 0:
            tag = SEQUENCES[self.rng.randrange(len(SEQUENCES))]
            return tag, self.sequence(tag, depth)
        tag, vr = OTHERS[self.rng.randrange(len(OTHERS))]
        if tag == 0x00400275 and not self.explicit:  # the dictionary calls this one a sequence
            return tag, self.sequence(tag, depth)
        return tag, self.element(tag, vr, bytes(self.rng.randint(0, 20)))

    def sequence(self, tag: int, depth: int) -> bytes:
        items = b"".join(self.item(depth) for _ in range(self.rng.randint(0, 2)))
        if self.rng.randint(0, 1):
            return self.head(tag, "SQ", UNDEFINED) + items + self.head(SEQUENCE_END, "", 0)
        return self.head(tag, "SQ", len(items)) + items

    def item(self, depth: int) -> bytes:
        content = b"".join(self.other(depth + 1)[1] for _ in range(self.rng.randint(0, 2)))
        if self.rng.randint(0, 1):
            return self.head(ITEM, "", UNDEFINED) + content + self.head(ITEM_END, "", 0)
        return self.head(ITEM, "", len(content)) + content

    def pixel_data(self) -> bytes:
        if self.syntax != JPEG_2000:
            return self.element(PIXEL_DATA, "OW", bytes(2 * self.rng.randint(0, 40)))
        pieces = b"".join(
            self.head(ITEM, "", size) + bytes(size) for size in (2 * self.rng.randint(0, 9) for _ in range(3))
        )
        return self.head(PIXEL_DATA, "OB", UNDEFINED) + pieces + self.head(SEQUENCE_END, "", 0)

    def head(self, tag: int, vr: str, length: int) -> bytes:
        return raw_header(tag, vr, length, self.explicit, self.big)


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()
