"""The plainest reader of an encoded data set there can be: recursive, unguarded, for small data sets of ours. It shares
nothing with the node's walker, so that the two can be held against each other."""

import struct
from dataclasses import dataclass, field

LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
SHORT = set(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
SEQUENCES = {0x00082218, 0x00082228}  # that implicit VR does not name
ITEM, ITEM_END, SEQUENCE_END, UNDEFINED = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF


@dataclass(frozen=True)
class Layout:
    explicit: bool
    big: bool


@dataclass
class Found:
    """boundaries: where an element, item or delimiter begins. lengths: (position, width in bytes) of each length."""

    boundaries: list[int] = field(default_factory=list)
    lengths: list[tuple[int, int]] = field(default_factory=list)


def read_plainly(data: bytes, layout: Layout) -> Found | None:
    """What is there; None unless the last element ends at the last byte."""
    reader = _Reader(data, layout)
    try:
        reader.elements(0, len(data), open_ended=False)
    except (ValueError, struct.error, RecursionError):
        return None
    return reader.found


class _Reader:
    def __init__(self, data: bytes, layout: Layout) -> None:
        self.data, self.layout, self.found = data, layout, Found()
        self.order = ">" if layout.big else "<"

    def head(self, at: int, end: int) -> tuple[int, bytes, int, int]:
        """(tag, value representation, length, where the value begins)."""
        if end - at < 8:
            raise ValueError("cut off")
        group, element = struct.unpack_from(self.order + "HH", self.data, at)
        tag = group << 16 | element
        vr = self.data[at + 4 : at + 6]
        start, width = at + 4, 4
        if self.layout.explicit and group != 0xFFFE:
            if vr not in LONG | SHORT:
                raise ValueError("unknown")
            start, width = (at + 8, 4) if vr in LONG else (at + 6, 2)
        if start + width > end:
            raise ValueError("cut off")
        (length,) = struct.unpack_from(self.order + ("L" if width == 4 else "H"), self.data, start)
        self.found.boundaries.append(at)
        self.found.lengths.append((start, width))
        return tag, vr if self.layout.explicit else b"", length, start + width

    def elements(self, at: int, end: int, open_ended: bool) -> int:
        while at < end:
            tag, vr, length, start = self.head(at, end)
            if tag == ITEM_END:
                return start
            if tag >> 16 == 0xFFFE or tag >> 16 <= 2:
                raise ValueError("misplaced")
            is_sequence = vr == b"SQ" or (not vr and tag in SEQUENCES) or (length == UNDEFINED and vr in (b"UN", b""))
            if is_sequence:
                at = self.items(start, end if length == UNDEFINED else start + length, length == UNDEFINED)
            elif length == UNDEFINED:
                raise ValueError("undefined")
            else:
                at = start + length
            if at > end:
                raise ValueError("past the end")
        if open_ended:
            raise ValueError("delimiter missing")
        return at

    def items(self, at: int, end: int, open_ended: bool) -> int:
        if end > len(self.data):
            raise ValueError("past the end")
        while at < end:
            tag, _, length, start = self.head(at, end)
            if tag == SEQUENCE_END:
                return start
            if tag != ITEM:
                raise ValueError("no item")
            stop = end if length == UNDEFINED else start + length
            if stop > end:
                raise ValueError("past the end")
            at = self.elements(start, stop, length == UNDEFINED)
        if open_ended:
            raise ValueError("delimiter missing")
        return at
